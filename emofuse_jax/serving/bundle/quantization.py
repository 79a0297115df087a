"""Weights in fewer bits: how a bundle stores them, and what its graph makes of them.

int8: ``w ~ q s``, ``s = max|w| / 127`` for each output channel (the last axis), ``q = round(w / s)``, as in
Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference" (CVPR 2018), for the weights alone: activations stay as they are. bf16: the nearest bfloat16.
Vectors (biases, norms) and model state are kept.
"""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jaxtyping import Array

from emofuse_jax.models.pretrained.conversion import flatten_by_path
from emofuse_jax.types import Params

WEIGHT_FORMATS = ("bf16", "int8")
SCALE_SUFFIX = ":scale"
"""Ends the name of an int8 array's scales."""


def quantize_weights(weights: dict[str, np.ndarray], weight_format: str) -> dict[str, np.ndarray]:
    """What is stored of float32 arrays by name; as they are where `weight_format` is ''."""
    if not weight_format:
        return weights
    stored_weights = {}
    for name, array in weights.items():
        if array.ndim < 2 or array.dtype != np.float32 or not name.startswith("params/"):
            stored_weights[name] = array
        elif weight_format == "bf16":
            stored_weights[name] = array.astype(ml_dtypes.bfloat16)
        else:
            scale = np.abs(array).max(axis=tuple(range(array.ndim - 1)), keepdims=True) / 127
            scale = np.where(scale > 0, scale, 1).astype(np.float32)
            stored_weights[name] = np.round(array / scale).astype(np.int8)
            stored_weights[name + SCALE_SUFFIX] = scale
    return stored_weights


def simulate_quantization(params: Params, weight_format: str) -> Params:
    """The parameters that are left when they are stored."""
    if not weight_format:
        return params
    weights = dequantize_weights(
        quantize_weights(jax.device_get(flatten_by_path({"params": params})), weight_format)
    )
    return jax.tree.unflatten(jax.tree.structure(params), list(weights.values()))


def dequantize_weights(stored_weights: dict[str, Array]) -> dict[str, Array]:
    """The float32 arrays of what `quantize_weights` gave; inside a graph too."""
    weights = {}
    for name, array in stored_weights.items():
        if name.endswith(SCALE_SUFFIX):
            continue
        scale = stored_weights.get(name + SCALE_SUFFIX)
        if scale is not None:
            array = array.astype(jnp.float32) * scale
        elif array.dtype == jnp.bfloat16:
            array = array.astype(jnp.float32)
        weights[name] = array
    return weights
