"""Soft-HGR: the maximal correlation of two feature vectors as an objective."""

import warnings

import jax.numpy as jnp
from jaxtyping import Array, Float

from emofuse_jax.ops.normalize import promote


def soft_hgr(
    f: Float[Array, "b d"], g: Float[Array, "b d"], weight: Float[Array, " b"] | None = None
) -> Float[Array, ""]:
    """`H = 1/(m-1) sum_i f_i^T g_i - 1/2 tr(C_f C_g)`, features centred over the global batch of m.

    `C_f = f^T f / (m-1)` is d x d. Reference: Wang et al., arXiv 1811.08979. Under jit with a sharded batch
    the sums are global, so that one device and eight give the same number.

    Args:
      f: features of one stream.
      g: features of the other.
      weight: number of times that a row counts, 0 for padding; m is its sum. None is 1 for each row.

    Returns:
      H in float32, to be maximised; 0 where fewer than two rows count.

    Warns:
      UserWarning: d > b / 4, where the estimate is badly biased (-274 for a true 32 at d=64, b=8).
    """
    b, d = f.shape
    if 4 * d > b:
        warnings.warn(f"soft_hgr: width {d} is over a quarter of the batch ({b}): biased", stacklevel=2)
    f, g = promote(f), promote(g)
    weight = jnp.ones(b, f.dtype) if weight is None else weight.astype(f.dtype)
    m = jnp.sum(weight)
    f, g = _centre(f, weight, m), _centre(g, weight, m)
    scale = jnp.where(m > 1, 1.0 / jnp.where(m > 1, m - 1, 1.0), 0.0)
    shared = scale * jnp.sum(weight[:, None] * f * g)
    c_f = scale * jnp.einsum("b,bi,bj->ij", weight, f, f)
    c_g = scale * jnp.einsum("b,bi,bj->ij", weight, g, g)
    return shared - 0.5 * jnp.sum(c_f * c_g)  # both symmetric: the trace of the product


def _centre(x, weight, m):
    x = jnp.where(weight[:, None] > 0, x, 0.0)
    return x - jnp.sum(weight[:, None] * x, axis=0) / jnp.maximum(m, 1.0)
