"""Attention of each modality's positions, guided by how well they go with the other's."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from emofuse_jax.ops.masking import masked_softmax
from emofuse_jax.ops.normalize import at_least_float32


class CrossAttentionOutput(NamedTuple):
    """Both modalities after cross-attention; weights and products are in float32."""

    audio: Float[Array, "*batch n d_a"]
    video: Float[Array, "*batch m d_v"]
    audio_weights: Float[Array, "*batch m n"]
    """`softmax(C^T)`: row j holds the audio positions that video position j picks."""
    video_weights: Float[Array, "*batch n m"]
    """`softmax(C)`: row i holds the video positions that audio position i picks."""
    audio_picked: Float[Array, "*batch m d_a"]
    """`softmax(C^T) X_a`, before the residual and tanh."""
    video_picked: Float[Array, "*batch n d_v"]
    """`softmax(C) X_v`, before the residual and tanh."""


def cross_attention(
    audio: Float[Array, "*batch n d_a"],
    video: Float[Array, "*batch m d_v"],
    w: Float[Array, "d_a d_v"],
    audio_mask: Bool[Array, "*batch n"],
    video_mask: Bool[Array, "*batch m"],
) -> CrossAttentionOutput:
    """`C = X_a W X_v^T`, `X_a' = tanh(X_a + softmax(C^T) X_a)`, `X_v' = tanh(X_v + softmax(C) X_v)`.

    Reference: Mocanu et al., Image and Vision Computing 133, 2023, with the transposes set so that every row
    that is applied sums to 1 over the valid positions. Both sequences have the same number of positions. A
    masked position counts as a zero vector, which picks nothing and is picked by nobody: where one modality
    has no valid position, the other becomes its tanh.

    Args:
      audio: X_a, one row a position.
      video: X_v.
      w: W.
      audio_mask: False where there is no sound.
      video_mask: False where there is no face.

    Returns:
      The attended modalities in their dtypes, with the weights and products.

    Raises:
      ValueError: the numbers of positions differ.
    """
    if audio.shape[-2] != video.shape[-2]:
        raise ValueError(f"cross_attention: {audio.shape[-2]} audio positions, {video.shape[-2]} of video")
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
    """Softmax over the valid columns; rows that are masked are zero."""
    return masked_softmax(scores, row_mask[..., :, None] & column_mask[..., None, :])
