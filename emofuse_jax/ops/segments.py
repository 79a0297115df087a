"""Sequences in equal parts of time: windows of a spectrogram, and encoded positions on another grid."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from emofuse_jax.ops.normalize import promote


def cut_segments(
    values: Float[Array, "b t f"], mask: Bool[Array, "b t"], *, count: int, steps: int
) -> tuple[Float[Array, "b n w f"], Bool[Array, "b n w"]]:
    """Windows of `steps` frames around the centres of `count` equal parts of each clip.

    Frame `steps // 2` of window i is frame `floor((i + 1/2) T / count)` of the clip, where T is one more than
    the last valid step, so that nothing depends on padding, and every window of a clip has a frame of it.
    Reference: Ma et al., Appl. Sci. 2020, 10(20), 7239 (30 segments a clip; the window is a design choice).

    Args:
      values: frames, whatever at padding.
      mask: valid frames.
      count: windows a clip, n.
      steps: frames a window, w; windows overlap where `count * steps` is above T.

    Returns:
      The windows, zero at masked positions, and their masks: False outside the clip and where `mask` is.
    """
    t = mask.shape[1]
    length = jnp.max(jnp.where(mask, jnp.arange(1, t + 1), 0), axis=1)  # b
    centre = (2 * jnp.arange(count) + 1) * length[:, None] // (2 * count)  # b n
    place = centre[:, :, None] - steps // 2 + jnp.arange(steps)  # b n w
    flat = jnp.clip(place, 0, t - 1).reshape(mask.shape[0], -1)  # b n w -> b n*w
    inside = (place >= 0) & (place < length[:, None, None])
    inside &= jnp.take_along_axis(mask, flat, axis=1).reshape(place.shape)
    windows = jnp.take_along_axis(values, flat[:, :, None], axis=1)  # b n*w f
    return jnp.where(inside[..., None], windows.reshape(*place.shape, -1), 0), inside


def resample(
    values: Float[Array, "b l d"],
    mask: Bool[Array, "b l"],
    order: Int[Array, "b l"],
    length: Int[Array, " b"],
    *,
    count: int,
) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
    """Positions on a grid of `count` equal parts of time: the mean of those that lie at each part.

    A position at place o of T lies at part i of n when the middle of the one is inside the other:
    `floor((o + 1/2) n / T) = i` or `floor((i + 1/2) T / n) = o`. With T = n nothing changes; positions that
    share a place (a feature map's column) are averaged.

    Args:
      values: encoded positions.
      mask: valid ones.
      order: place in time of each.
      length: number of places of the clip, T.
      count: parts, n.

    Returns:
      A vector for each part, zero where no valid position lies, and False there.
    """
    part, length = jnp.arange(count)[:, None], jnp.maximum(length, 1)[:, None, None]  # n 1, b 1 1
    place = order[:, None, :]  # b 1 l
    at = ((2 * place + 1) * count // (2 * length) == part) | ((2 * part + 1) * length // (2 * count) == place)
    at &= mask[:, None, :]  # b n l
    number = jnp.sum(at, axis=-1)
    valid = promote(jnp.where(mask[..., None], values, 0))
    total = jnp.einsum("bnl,bld->bnd", at.astype(valid.dtype), valid)
    return (total / jnp.maximum(number, 1)[..., None]).astype(values.dtype), number > 0
