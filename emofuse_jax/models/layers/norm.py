"""Batch normalisation over the valid rows only."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from emofuse_jax.ops.normalize import at_least_float32, masked_moments


def masked_batch_norm(
    norm: nnx.BatchNorm, x: Float[Array, "n *space c"], mask: Bool[Array, "n *#space 1"], *, train: bool
) -> Float[Array, "n *space c"]:
    """Normalises by the statistics of the valid positions (training) or by the running ones.

    A batch without one valid position leaves the running statistics as they are. Under jit with a sharded
    batch the statistics are those of the global batch. Reference: Ioffe & Szegedy, arXiv 1502.03167.
    """
    if not train:
        return norm(x, use_running_average=True)
    mean, var = masked_moments(x, mask)
    has_valid = jnp.any(mask)
    for running, batch_value in ((norm.mean, mean), (norm.var, var)):
        updated = norm.momentum * running[...] + (1 - norm.momentum) * jax.lax.stop_gradient(batch_value)
        running[...] = jnp.where(has_valid, updated, running[...])
    gain = jax.lax.rsqrt(var + norm.epsilon) * norm.scale[...]
    y = (at_least_float32(x) - mean) * gain + norm.bias[...]
    return y.astype(norm.dtype or x.dtype)
