"""Batch normalisation over the valid rows only."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float


def masked_batch_norm(
    norm: nnx.BatchNorm, x: Float[Array, "n *space c"], mask: Bool[Array, "n *#space 1"], *, train: bool
) -> Float[Array, "n *space c"]:
    """Normalises by the statistics of the valid positions (training) or by the running ones.

    A batch without one valid position leaves the running statistics as they are. Under jit with a sharded
    batch the statistics are those of the global batch. Reference: Ioffe & Szegedy, arXiv 1502.03167.
    """
    if not train:
        return norm(x, use_running_average=True)
    some = jnp.any(mask)
    mean, var = norm.mean[...], norm.var[...]
    y = norm(x, use_running_average=False, mask=mask | ~some)  # a mean over nothing would be NaN
    norm.mean[...] = jnp.where(some, norm.mean[...], mean)
    norm.var[...] = jnp.where(some, norm.var[...], var)
    return y
