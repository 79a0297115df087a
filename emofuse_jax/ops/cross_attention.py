"""Cross-attention: weighs the positions of each modality by how well they match those of the other one."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from emofuse_jax.ops.masking import masked_softmax
from emofuse_jax.ops.normalize import at_least_float32


class CrossAttentionOutput(NamedTuple):
    """Both modalities after cross-attention; weights and weighted sums are in at least float32."""

    audio: Float[Array, "*batch n d_a"]
    video: Float[Array, "*batch m d_v"]
    audio_weights: Float[Array, "*batch m n"]
    """`softmax(C^T)`: row j has the weights of the audio positions for video position j."""
    video_weights: Float[Array, "*batch n m"]
    """`softmax(C)`: row i has the weights of the video positions for audio position i."""
    audio_picked: Float[Array, "*batch m d_a"]
    """`softmax(C^T) X_a`, before the residual sum and the tanh."""
    video_picked: Float[Array, "*batch n d_v"]
    """`softmax(C) X_v`, before the residual sum and the tanh."""


def cross_attention(
    audio: Float[Array, "*batch n d_a"],
    video: Float[Array, "*batch m d_v"],
    w: Float[Array, "d_a d_v"],
    audio_mask: Bool[Array, "*batch n"],
    video_mask: Bool[Array, "*batch m"],
) -> CrossAttentionOutput:
    """Attends between the positions of audio and video.

    `C = X_a W X_v^T`, `X_a' = tanh(X_a + softmax(C^T) X_a)`, `X_v' = tanh(X_v + softmax(C) X_v)`. Reference:
    Mocanu et al., 2023, Image and Vision Computing 133; the transposes are chosen so that each row of weights
    sums to 1 over the valid positions. A masked position counts as a zero vector: it has no weights and gets
    weight 0. If one modality has no valid position, the output of the other one is its tanh.

    Args:
      audio: X_a, one row per position.
      video: X_v, one row per position; as many positions as `audio`.
      w: affinity matrix W.
      audio_mask: False at positions without audio.
      video_mask: False at positions without a face.

    Returns:
      A CrossAttentionOutput: `audio` X_a' and `video` X_v' in the dtypes and shapes of the inputs; the
      weights `audio_weights` = softmax(C^T) [.. m n] and `video_weights` = softmax(C) [.. n m]; the weighted
      sums `audio_picked` = softmax(C^T) X_a [.. m d_a] and `video_picked` = softmax(C) X_v [.. n d_v].
      Weights and sums are in at least float32.

    Raises:
      ValueError: if `audio` and `video` have different numbers of positions, or a mask has another number.
      TypeError: if `w` does not have the widths of `audio` and `video`.
    """
    if audio.shape[-2] != video.shape[-2]:
        raise ValueError(
            f"cross_attention: {audio.shape[-2]} audio positions and {video.shape[-2]} video positions,"
            " expected the same number; resample both (ops.segments.resample_sequence)"
        )
    x_a, x_v = _zero_masked(audio, audio_mask), _zero_masked(video, video_mask)
    affinity = x_a @ at_least_float32(w) @ jnp.swapaxes(x_v, -1, -2)  # ... n m
    audio_weights = _masked_row_softmax(jnp.swapaxes(affinity, -1, -2), video_mask, audio_mask)
    video_weights = _masked_row_softmax(affinity, audio_mask, video_mask)
    audio_picked, video_picked = audio_weights @ x_a, video_weights @ x_v
    return CrossAttentionOutput(
        jnp.tanh(x_a + audio_picked).astype(audio.dtype),
        jnp.tanh(x_v + video_picked).astype(video.dtype),
        audio_weights,
        video_weights,
        audio_picked,
        video_picked,
    )


def _zero_masked(x: Float[Array, "*batch l d"], mask: Bool[Array, "*batch l"]) -> Float[Array, "*batch l d"]:
    return jnp.where(mask[..., None], at_least_float32(x), 0.0)


def _masked_row_softmax(
    scores: Float[Array, "*batch l m"],
    row_mask: Bool[Array, "*batch l"],
    column_mask: Bool[Array, "*batch m"],
) -> Float[Array, "*batch l m"]:
    """Computes a softmax over the valid columns of each row; masked rows and columns are zero.

    Both masks are True at valid positions. The result is in at least float32; a row without a valid column is
    zero.
    """
    return masked_softmax(scores, row_mask[..., :, None] & column_mask[..., None, :])
