"""Divides sequences into equal segments of time: windows of a spectrogram, and resampling of positions."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from emofuse_jax.ops.normalize import at_least_float32


def cut_segments(
    values: Float[Array, "b t f"], mask: Bool[Array, "b t"], *, num_segments: int, window_steps: int
) -> tuple[Float[Array, "b n w f"], Bool[Array, "b n w"]]:
    """Cuts windows around the centres of equal segments of each clip.

    Frame `w // 2` of window i is frame `floor((i + 1/2) T / n)` of the clip, where T is the index of the last
    valid frame plus 1. So the windows do not depend on padding, and each window contains at least one frame
    of the clip. Reference: Common Information (Ma et al., 2020, Appl. Sci. 10(20), 7239), with 30 segments
    per clip; the length of the window is a design choice.

    Args:
      values: frames; values at padding have no effect.
      mask: True at valid frames.
      num_segments: number of windows per clip, n.
      window_steps: number of frames per window, w; windows overlap if `n w` is larger than T.

    Returns:
      `(windows, window_mask)`: n windows of w frames for each clip in the dtype of `values`, zero at masked
      frames, and their masks, which are False outside the clip and at frames that `mask` excludes.
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
    """Resamples a sequence to equal segments of time; each is the mean of the positions that overlap it.

    A position at time index o of T overlaps segment i of n if the middle of one is inside the other:
    `floor((o + 1/2) n / T) = i` or `floor((i + 1/2) T / n) = o`. With T = n nothing changes. Positions with
    the same time index (one column of a feature map) are averaged.

    Args:
      values: encoded positions.
      mask: True at valid positions.
      time_index: time index o of each position.
      length: number of time steps of each clip, T.
      num_segments: number of segments, n.

    Returns:
      `(vectors, segment_mask)`: one vector for each segment in the dtype of `values`, and the mask of the
      segments. Segments without a valid position are zero, and their mask is False.
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
