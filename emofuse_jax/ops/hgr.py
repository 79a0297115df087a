"""Soft-HGR: maximal correlation of two feature vectors as a training objective."""

import warnings

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emofuse_jax.ops.normalize import at_least_float32
from emofuse_jax.ops.shapes import check_shapes

HIGHEST_PRECISION = jax.lax.Precision.HIGHEST
"""Precision of products with covariances: full float32, even on devices that would round the factors."""


def soft_hgr(
    f: Float[Array, "b d"],
    g: Float[Array, "b d"],
    weight: Float[Array, " b"] | None = None,
    *,
    covariances: tuple[Float[Array, "d d"], Float[Array, "d d"]] | None = None,
) -> Float[Array, ""]:
    """Computes the soft-HGR correlation of two feature matrices.

    `H = 1/(m-1) sum_i f_i^T g_i - 1/2 tr(C_f C_g)`, with features centred over the global batch of m rows and
    covariances `C_f = f^T f / (m-1)` of size d x d. Reference: Wang et al., 2018, arXiv 1811.08979. Under jit
    with a sharded batch the sums are global, so one device and eight devices give the same number.

    Args:
      f: features of one stream.
      g: features of the other stream.
      weight: how many times each row counts, 0 for padding; m is its sum. None counts each row once.
      covariances: `(C_f, C_g)` to use instead of those of the batch, for example from `moving_covariance`.

    Returns:
      H in at least float32, to be maximised; 0 if the weights sum to 1 or less.

    Raises:
      ValueError: the shapes of `f`, `g` and `weight` do not fit together.
      TypeError: the two `covariances` have different shapes.

    Warns:
      UserWarning: if d > b / 4 and `covariances` is None: the estimate is then badly biased (-274 for a true
        value of 32 at d=64, b=8).
    """
    arrays = {"f": (f, "b d"), "g": (g, "b d")} | ({} if weight is None else {"weight": (weight, "b")})
    check_shapes(arrays)
    b, d = f.shape
    if covariances is None and 4 * d > b:
        warnings.warn(
            f"soft_hgr: width {d} is over a quarter of the batch ({b} rows), so the estimate is biased;"
            " use larger batches or pass covariances of many batches",
            stacklevel=2,
        )
    (f, weight, scale), (g, *_) = _centre(f, weight), _centre(g, weight)
    cross_term = scale * jnp.sum(weight[:, None] * f * g)
    c_f, c_g = covariances or (_weighted_covariance(f, weight, scale), _weighted_covariance(g, weight, scale))
    trace = jnp.sum(at_least_float32(c_f) * at_least_float32(c_g))  # tr(C_f C_g): both are symmetric
    return cross_term - 0.5 * jnp.where(scale > 0, trace, 0.0)


def covariance(x: Float[Array, "b d"], weight: Float[Array, " b"] | None = None) -> Float[Array, "d d"]:
    """Computes the covariance matrix of the rows of `x`, over the global batch.

    `C = sum_i w_i (x_i - mean)(x_i - mean)^T / (m - 1)`, `m = sum_i w_i`.

    Args:
      x: features, one row per sample.
      weight: how many times each row counts; values in rows of weight 0 have no effect. None counts each row
        once.

    Returns:
      C in at least float32; zeros if the weights sum to 1 or less.
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
    """Updates a moving average of covariances, for batches that are too small compared to the width d.

    `S <- decay S + (1 - decay) C_batch`, `C = S / (1 - decay^count)`. The correction for the zero start is
    that of Adam (Kingma & Ba, 2014, arXiv 1412.6980). C has the value of the average, but the gradient of the
    batch's covariance, not scaled: the formula would scale the gradient by `1 - decay`, and H would then be
    stationary only where the variance of the features is `1 / (1 - decay)` times its best value.

    Args:
      x: features of this batch.
      weight: how many times each row counts, None for once each; a batch whose weights sum to 1 or less
        does not change S and the count.
      total: S before this batch; zeros at the start.
      batch_count: number of batches in S.
      decay: factor on the previous S, in (0, 1).

    Returns:
      `(C, S, count)`: the average C, which is zero while count is 0, and the new S and count, which have no
      gradient.
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
    """Returns the average covariance `S / (1 - decay^count)`, corrected for the zero start of S.

    `total` is the moving sum S (`S <- decay S + (1 - decay) C_batch` for each batch, from zeros), and
    `batch_count` the number of batches in it; if this is 0, `total` is returned. `decay` is in (0, 1).
    """
    correction = 1.0 - decay**batch_count
    return total / jnp.where(correction > 0, correction, 1.0)


def _centre(
    x: Float[Array, "b d"], weight: Float[Array, " b"] | None
) -> tuple[Float[Array, "b d"], Float[Array, " b"], Float[Array, ""]]:
    """Returns `(centred, weight, scale)`: the rows minus their weighted mean, their weights, and a factor.

    The factor is `1 / (m - 1)`, or 0 if m <= 1, where m is the sum of the weights. Rows of weight 0 are set
    to zero before the mean is subtracted. If `weight` is None, each row has weight 1. All results are in at
    least float32.
    """
    x = at_least_float32(x)
    weight = jnp.ones(len(x), x.dtype) if weight is None else weight.astype(x.dtype)
    m = jnp.sum(weight)
    scale = jnp.where(m > 1, 1.0 / jnp.where(m > 1, m - 1, 1.0), 0.0)
    x = jnp.where(weight[:, None] > 0, x, 0.0)
    return x - jnp.sum(weight[:, None] * x, axis=0) / jnp.maximum(m, 1.0), weight, scale


def _weighted_covariance(
    x: Float[Array, "b d"], weight: Float[Array, " b"], scale: Float[Array, ""]
) -> Float[Array, "d d"]:
    return scale * jnp.einsum("bi,bj->ij", weight[:, None] * x, x, precision=HIGHEST_PRECISION)
