"""Soft-HGR: the maximal correlation of two feature vectors as an objective."""

import warnings

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emofuse_jax.ops.normalize import at_least_float32

HIGHEST_PRECISION = jax.lax.Precision.HIGHEST
"""Products of covariances in full float32, also where a device would round their factors."""


def soft_hgr(
    f: Float[Array, "b d"],
    g: Float[Array, "b d"],
    weight: Float[Array, " b"] | None = None,
    *,
    covariances: tuple[Float[Array, "d d"], Float[Array, "d d"]] | None = None,
) -> Float[Array, ""]:
    """`H = 1/(m-1) sum_i f_i^T g_i - 1/2 tr(C_f C_g)`, features centred over the global batch of m.

    `C_f = f^T f / (m-1)` is d x d. Reference: Wang et al., arXiv 1811.08979. Under jit with a sharded batch
    the sums are global, so that one device and eight give the same number.

    Args:
      f: features of one stream.
      g: features of the other.
      weight: number of times that a row counts, 0 for padding; m is its sum. None is 1 for each row.
      covariances: `(C_f, C_g)` in place of the batch's, such as `moving_covariance` of many batches.

    Returns:
      H in float32, to be maximised; 0 where fewer than two rows count.

    Warns:
      UserWarning: d > b / 4 without `covariances`: the estimate is badly biased (-274 for a true 32 at
        d=64, b=8).
    """
    b, d = f.shape
    if covariances is None and 4 * d > b:
        warnings.warn(f"soft_hgr: width {d} is over a quarter of the batch ({b}): biased", stacklevel=2)
    (f, weight, scale), (g, *_) = _centre(f, weight), _centre(g, weight)
    cross_term = scale * jnp.sum(weight[:, None] * f * g)
    c_f, c_g = covariances or (_weighted_covariance(f, weight, scale), _weighted_covariance(g, weight, scale))
    trace = jnp.sum(at_least_float32(c_f) * at_least_float32(c_g))  # both symmetric: the trace of the product
    return cross_term - 0.5 * jnp.where(scale > 0, trace, 0.0)


def covariance(x: Float[Array, "b d"], weight: Float[Array, " b"] | None = None) -> Float[Array, "d d"]:
    """`C = sum_i w_i (x_i - mean)(x_i - mean)^T / (m - 1)`, `m = sum_i w_i`, over the global batch.

    In float32; zero where fewer than two rows count, and which number stands in an uncounted row never
    matters. `weight` as in `soft_hgr`.
    """
    return _weighted_covariance(*_centre(x, weight))


def moving_covariance(
    x: Float[Array, "b d"],
    weight: Float[Array, " b"] | None,
    total: Float[Array, "d d"],
    batch_count: Float[Array, ""],
    *,
    decay: float,
) -> tuple[Float[Array, "d d"], Float[Array, "d d"], Float[Array, ""]]:
    """`S <- decay S + (1 - decay) C_batch`, `C = S / (1 - decay^count)`: for batches too small for d.

    The correction for the zero start is Adam's (arXiv 1412.6980). C has the value of the average, but the
    whole gradient of the batch's covariance: with the share `1 - decay` of it, which the formula gives, H
    would be stationary only where the features' variance is `1 / (1 - decay)` times its best value.

    Args:
      x: features of this batch.
      weight: as in `soft_hgr`; a batch in which fewer than two rows count changes nothing.
      total: S so far, zero at the start.
      batch_count: batches in it.
      decay: share that stays, in (0, 1).

    Returns:
      C, and the new S and count, which carry no gradient.
    """
    x, weight, scale = _centre(x, weight)
    batch_covariance = _weighted_covariance(x, weight, scale)
    updated_total = decay * total + (1.0 - decay) * batch_covariance
    total, batch_count = jax.lax.stop_gradient(
        (jnp.where(scale > 0, updated_total, total), batch_count + jnp.where(scale > 0, 1.0, 0.0))
    )
    corrected_covariance = correct_ema_bias(total, batch_count, decay=decay)
    return (
        batch_covariance + jax.lax.stop_gradient(corrected_covariance - batch_covariance),
        total,
        batch_count,
    )


def correct_ema_bias(
    total: Float[Array, "d d"], batch_count: Float[Array, ""], *, decay: float
) -> Float[Array, "d d"]:
    """`S / (1 - decay^count)`: the average of the covariances seen, zero before the first."""
    correction = 1.0 - decay**batch_count
    return total / jnp.where(correction > 0, correction, 1.0)


def _centre(x, weight):
    """Centred rows in float32, zero where uncounted, their weights, and `1 / (m - 1)` or 0."""
    x = at_least_float32(x)
    weight = jnp.ones(len(x), x.dtype) if weight is None else weight.astype(x.dtype)
    m = jnp.sum(weight)
    scale = jnp.where(m > 1, 1.0 / jnp.where(m > 1, m - 1, 1.0), 0.0)
    x = jnp.where(weight[:, None] > 0, x, 0.0)
    return x - jnp.sum(weight[:, None] * x, axis=0) / jnp.maximum(m, 1.0), weight, scale


def _weighted_covariance(x, weight, scale):
    return scale * jnp.einsum("bi,bj->ij", weight[:, None] * x, x, precision=HIGHEST_PRECISION)
