"""Normalisations whose values and gradients are finite everywhere, also for rows of zeros."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def at_least_float32(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Converts half precision to float32; leaves float32 and float64 unchanged.

    Norms, powers, softmaxes and covariances are never computed in half precision.
    """
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def l2_normalize(x: Float[Array, "*batch d"], *, eps: float = 1e-6) -> Float[Array, "*batch d"]:
    """Divides vectors by their L2 norm: `x / sqrt(sum x^2 + eps)` over the last axis.

    At a zero vector the gradient is `1 / sqrt(eps)` times the identity; that of `x / norm(x)` would be NaN.

    Args:
      x: vectors, in any unit.
      eps: added to the squared norm.

    Returns:
      Vectors of norm at most 1 in the dtype of `x`, computed in at least float32; a zero vector stays zero.
    """
    x_f32 = at_least_float32(x)
    norm = jnp.sqrt(jnp.sum(x_f32 * x_f32, axis=-1, keepdims=True) + eps)
    return (x_f32 / norm).astype(x.dtype)


def signed_sqrt(x: Float[Array, "..."], *, eps: float = 1e-6) -> Float[Array, "..."]:
    """Computes `sign(x) sqrt(|x|)`, the power normalisation of MFB.

    For `|x| < eps` it returns `x / sqrt(eps)` instead, a line that keeps the gradient finite at 0. Reference:
    MFB (Yu et al., 2017, arXiv 1708.01471).

    Returns:
      Values in the dtype of `x`, computed in at least float32.
    """
    x_f32 = at_least_float32(x)
    is_small = jnp.abs(x_f32) < eps
    safe_x = jnp.where(is_small, 1.0, x_f32)  # the square root never sees 0, so no NaN enters its gradient
    root = jnp.sign(safe_x) * jnp.sqrt(jnp.abs(safe_x))
    return jnp.where(is_small, x_f32 / eps**0.5, root).astype(x.dtype)


def standardize(
    x: Float[Array, "*batch f"], mean: Float[Array, " f"], std: Float[Array, " f"], *, eps: float = 1e-5
) -> Float[Array, "*batch f"]:
    """Standardises each bin: `(x - mean) / max(std, eps)`; the result is in at least float32.

    `mean` and `std` have the mean and the standard deviation of each of the f bins.
    """
    return (at_least_float32(x) - mean) / jnp.maximum(std, eps)


def masked_moments(
    x: Float[Array, "n *space c"], mask: Bool[Array, "n *#space 1"]
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Computes the mean and the variance of each channel over the valid positions.

    `E[x]` and `E[x^2] - E[x]^2`, at least 0. The axes along which the mask has length 1 are summed first, so
    that the mask is never broadcast to the size of `x`.

    Args:
      x: values; all of them must be finite, masked ones too.
      mask: True at valid positions; axes of `space` may have length 1.

    Returns:
      `(mean, variance)` in at least float32, one number per channel c; over all positions if none is valid.
    """
    mask = mask | ~jnp.any(mask)
    unmasked_axes = tuple(axis for axis in range(1, x.ndim - 1) if mask.shape[axis] == 1)
    x_f32, axes = at_least_float32(x), tuple(range(x.ndim - 1))
    count = mask.sum() * math.prod(x.shape[axis] for axis in unmasked_axes)

    def mean(values: Float[Array, "n *space c"]) -> Float[Array, " c"]:
        return jnp.where(mask, values.sum(unmasked_axes, keepdims=True), 0).sum(axes) / count

    channel_mean = mean(x_f32)
    return channel_mean, jnp.maximum(mean(x_f32 * x_f32) - channel_mean * channel_mean, 0.0)
