"""Stores weights in fewer bits, and restores them in the bundle's graph.

int8: ``w ~ q s``, ``s = max|w| / 127`` for each output channel (the last axis), ``q = round(w / s)``, as in
Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"
(CVPR 2018), applied to the weights only: activations are not quantized. bf16: the nearest bfloat16. Vectors
(biases, norms) and model state are stored unchanged.
"""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jaxtyping import Array

from emofuse_jax.models.pretrained.conversion import flatten_by_path
from emofuse_jax.types import Params

WEIGHT_FORMATS = ("bf16", "int8")
"""Formats with fewer bits than float32."""
SCALE_SUFFIX = ":scale"
"""Suffix of the name of an int8 array's scales."""


def quantize_weights(weights: dict[str, np.ndarray], weight_format: str) -> dict[str, np.ndarray]:
    """Returns the arrays to store for `weights`, by name.

    Args:
      weights: arrays by name. float32 arrays of two or more axes whose name starts with `params/` are
        quantized; others stay unchanged.
      weight_format: "bf16" or "int8"; "" returns `weights` unchanged. It is not checked: any other text acts
        as "int8".

    Returns:
      `weights` with quantized arrays of the same names and shapes: bfloat16, or int8. A dict with int8 arrays
      also has their float32 scales as `<name>:scale`, [1 .. 1 n] with one scale for each of the n output
      channels (last axis); the product of int8 array and scale is the weight, up to rounding.
    """
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
    """Returns the parameters rounded to the values that the bundle stores in `weight_format`, as float32.

    The result has the structure of `params`, nested dicts of arrays. Only float32 arrays of two or more axes
    are rounded. The weight format is "bf16" or "int8", which is not checked; "" returns the parameters
    unchanged.
    """
    if not weight_format:
        return params
    stored_weights = quantize_weights(jax.device_get(flatten_by_path({"params": params})), weight_format)
    weights = dequantize_weights({name: jnp.asarray(array) for name, array in stored_weights.items()})
    return jax.tree.unflatten(jax.tree.structure(params), list(weights.values()))


def dequantize_weights(stored_weights: dict[str, Array]) -> dict[str, Array]:
    """Returns the arrays by name as they were before `quantize_weights`, up to rounding; JAX can trace it.

    Quantized arrays become float32; the scales are left out.
    """
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
