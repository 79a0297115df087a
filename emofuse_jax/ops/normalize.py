"""Normalisations whose value and gradient are finite everywhere, zero rows included."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def at_least_float32(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """At least float32: norms, powers, softmaxes and covariances are not computed in half precision."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def l2_normalize(x: Float[Array, "*batch d"], *, eps: float = 1e-6) -> Float[Array, "*batch d"]:
    """`x / sqrt(sum x^2 + eps)` over the last axis, in float32; a zero row stays zero.

    The gradient at a zero row is `1 / sqrt(eps)` times the identity, where `x / norm(x)` has NaN.

    Args:
      x: vectors, any unit.
      eps: added to the squared norm.

    Returns:
      Vectors of norm at most 1, in the dtype of `x`.
    """
    x_f32 = at_least_float32(x)
    norm = jnp.sqrt(jnp.sum(x_f32 * x_f32, axis=-1, keepdims=True) + eps)
    return (x_f32 / norm).astype(x.dtype)


def signed_sqrt(x: Float[Array, "..."], *, eps: float = 1e-6) -> Float[Array, "..."]:
    """`sign(x) sqrt(|x|)`, continued by the line `x / sqrt(eps)` where `|x| < eps`.

    The power normalisation of MFB (Yu et al., arXiv 1708.01471); the line keeps the gradient finite at 0.
    """
    x_f32 = at_least_float32(x)
    is_small = jnp.abs(x_f32) < eps
    safe_x = jnp.where(is_small, 1.0, x_f32)  # the square root never sees 0, so no NaN enters its gradient
    root = jnp.sign(safe_x) * jnp.sqrt(jnp.abs(safe_x))
    return jnp.where(is_small, x_f32 / eps**0.5, root).astype(x.dtype)


def standardize(
    x: Float[Array, "*batch f"], mean: Float[Array, " f"], std: Float[Array, " f"], *, eps: float = 1e-5
) -> Float[Array, "*batch f"]:
    """`(x - mean) / max(std, eps)` per bin, in float32."""
    return (at_least_float32(x) - mean) / jnp.maximum(std, eps)


def masked_moments(
    x: Float[Array, "n *space c"], mask: Bool[Array, "n *#space 1"]
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Mean and variance of each channel over the valid positions: `E[x]`, `E[x^2] - E[x]^2`, in float32.

    Sums over the axes that share a mask come first, so that the mask is never as large as `x`. Without one
    valid position both are those of all positions. Masked values must be finite.
    """
    mask = mask | ~jnp.any(mask)
    unmasked_axes = tuple(axis for axis in range(1, x.ndim - 1) if mask.shape[axis] == 1)
    x_f32, axes = at_least_float32(x), tuple(range(x.ndim - 1))
    count = mask.sum() * math.prod(x.shape[axis] for axis in unmasked_axes)

    def mean(values):
        return jnp.where(mask, values.sum(unmasked_axes, keepdims=True), 0).sum(axes) / count

    channel_mean = mean(x_f32)
    return channel_mean, jnp.maximum(mean(x_f32 * x_f32) - channel_mean * channel_mean, 0.0)
