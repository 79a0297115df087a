"""Batch normalisation over valid positions only."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from emofuse_jax.ops.normalize import at_least_float32, masked_moments


def masked_batch_norm(
    norm: nnx.BatchNorm, x: Float[Array, "n *space c"], mask: Bool[Array, "n *#space 1"], *, train: bool
) -> Float[Array, "n *space c"]:
    """Normalises by the statistics of the valid positions if `train`, else by the running statistics.

    In training it also updates the running statistics of `norm`, unless the batch has no valid position.
    Under jit with a sharded batch the statistics are those of the global batch. Reference: Ioffe & Szegedy,
    2015, arXiv 1502.03167.

    Args:
      norm: batch norm with its parameters and running statistics.
      x: values; all must be finite, masked ones too.
      mask: True at valid positions; axes of `space` may have length 1.
      train: whether to use the statistics of this batch, and update the running ones.

    Returns:
      Normalised values at all positions, in the dtype of the norm or, if it has none, of `x`.
    """
    if not train:
        return norm(x, use_running_average=True)
    assert norm.scale is not None  # every norm has a scale and a bias
    assert norm.bias is not None
    mean, var = masked_moments(x, mask)
    has_valid = jnp.any(mask)
    for running, batch_value in ((norm.mean, mean), (norm.var, var)):
        updated = norm.momentum * running[...] + (1 - norm.momentum) * jax.lax.stop_gradient(batch_value)
        running[...] = jnp.where(has_valid, updated, running[...])
    gain = jax.lax.rsqrt(var + norm.epsilon) * norm.scale[...]
    y = (at_least_float32(x) - mean) * gain + norm.bias[...]
    return y.astype(norm.dtype or x.dtype)
