"""Sequences in equal parts of time: windows of a spectrogram, and encoded positions on another grid."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from emofuse_jax.ops.normalize import at_least_float32


def cut_segments(
    values: Float[Array, "b t f"], mask: Bool[Array, "b t"], *, num_segments: int, window_steps: int
) -> tuple[Float[Array, "b n w f"], Bool[Array, "b n w"]]:
    """Windows of `window_steps` frames around the centres of `num_segments` equal parts of each clip.

    Frame `steps // 2` of window i is frame `floor((i + 1/2) T / count)` of the clip, where T is one more than
    the last valid step, so that nothing depends on padding, and every window of a clip has a frame of it.
    Reference: Ma et al., Appl. Sci. 2020, 10(20), 7239 (30 segments a clip; the window is a design choice).

    Args:
      values: frames, whatever at padding.
      mask: valid frames.
      num_segments: windows a clip, n.
      window_steps: frames a window, w; windows overlap where `count * steps` is above T.

    Returns:
      The windows, zero at masked positions, and their masks: False outside the clip and where `mask` is.
    """
    t = mask.shape[1]
    length = jnp.max(jnp.where(mask, jnp.arange(1, t + 1), 0), axis=1)  # b
    centre = (2 * jnp.arange(num_segments) + 1) * length[:, None] // (2 * num_segments)  # b n
    frame_index = centre[:, :, None] - window_steps // 2 + jnp.arange(window_steps)  # b n w
    flat_index = jnp.clip(frame_index, 0, t - 1).reshape(mask.shape[0], -1)  # b n w -> b n*w
    window_mask = (frame_index >= 0) & (frame_index < length[:, None, None])
    window_mask &= jnp.take_along_axis(mask, flat_index, axis=1).reshape(frame_index.shape)
    windows = jnp.take_along_axis(values, flat_index[:, :, None], axis=1)  # b n*w f
    return jnp.where(window_mask[..., None], windows.reshape(*frame_index.shape, -1), 0), window_mask


def resample_sequence(
    values: Float[Array, "b l d"],
    mask: Bool[Array, "b l"],
    time_index: Int[Array, "b l"],
    length: Int[Array, " b"],
    *,
    num_segments: int,
) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
    """Positions on a grid of `num_segments` equal parts of time: the mean of those that lie at each part.

    A position at place o of T lies at part i of n when the middle of the one is inside the other:
    `floor((o + 1/2) n / T) = i` or `floor((i + 1/2) T / n) = o`. With T = n nothing changes; positions that
    share a place (a feature map's column) are averaged.

    Args:
      values: encoded positions.
      mask: valid ones.
      time_index: place in time of each.
      length: number of places of the clip, T.
      num_segments: parts, n.

    Returns:
      A vector for each part, zero where no valid position lies, and False there.
    """
    segment, length = jnp.arange(num_segments)[:, None], jnp.maximum(length, 1)[:, None, None]  # n 1, b 1 1
    position = time_index[:, None, :]  # b 1 l
    overlaps = ((2 * position + 1) * num_segments // (2 * length) == segment) | (
        (2 * segment + 1) * length // (2 * num_segments) == position
    )
    overlaps &= mask[:, None, :]  # b n l
    position_count = jnp.sum(overlaps, axis=-1)
    valid_values = at_least_float32(jnp.where(mask[..., None], values, 0))
    total = jnp.einsum("bnl,bld->bnd", overlaps.astype(valid_values.dtype), valid_values)
    return (total / jnp.maximum(position_count, 1)[..., None]).astype(values.dtype), position_count > 0
