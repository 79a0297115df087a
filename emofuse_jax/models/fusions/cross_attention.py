"""Cross-modal attention between equal parts of time, then a classifier on all parts.

Reference: Mocanu et al., 2023, Image and Vision Computing 133.
"""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from emofuse_jax.models.interfaces import EncodedSequence, EncodedSequences, FusionOutput
from emofuse_jax.models.layers.head import Head
from emofuse_jax.models.layers.linear import linear, scaled_uniform
from emofuse_jax.ops.cross_attention import cross_attention
from emofuse_jax.ops.segments import resample_sequence
from emofuse_jax.types import PRNGKey


class CrossAttention(nnx.Module):
    """Fusion by cross-attention between positions.

    `C = X_a W X_v^T`, `z = [tanh(X_a + softmax(C^T) X_a) ; tanh(X_v + softmax(C) X_v)]`, flattened. Both
    sequences are first resampled to `positions` equal parts of time and, if their widths differ, mapped to
    `common_width`. The `layer_norm` of each position before C is a design choice: outputs of ReLUs are
    positive and would saturate the tanh. The initial W is so small that the entries of C are of order 1.

    Raises:
      ValueError: if `config.positions` is below 1.
    """

    modalities = ("audio", "video")
    takes = "sequences"
    defaults = {"positions": 6, "common_width": 512, "layer_norm": True, "head_dropout": 0.3}
    small = {"positions": 3, "common_width": 64, "head_dropout": 0.1}

    def __init__(
        self, d_a: int, d_v: int, classes: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> None:
        if config.positions < 1:
            raise ValueError(f"config.model.fusion.positions: {config.positions}, expected at least 1")
        self.positions, width = config.positions, d_a
        self.has_projection = d_a != d_v
        if self.has_projection:
            width = config.common_width
            self.audio_projection = linear(d_a, width, dtype, rngs=rngs)
            self.video_projection = linear(d_v, width, dtype, rngs=rngs)
        self.has_layer_norm = config.layer_norm
        if self.has_layer_norm:
            self.audio_norm = nnx.LayerNorm(width, dtype=dtype, rngs=rngs)
            self.video_norm = nnx.LayerNorm(width, dtype=dtype, rngs=rngs)
        self.w = nnx.Param(scaled_uniform(1.0 / width)(rngs.params(), (width, width)))
        self.head = Head(2 * self.positions * width, classes, config.head_dropout, rngs=rngs)

    def __call__(self, sequences: EncodedSequences, *, train: bool, key: PRNGKey | None) -> FusionOutput:
        """Lets the positions of audio and video attend to each other, and computes the logits from both.

        Args:
          sequences: `audio` and `video`; each has `values` [b l d] of l positions, `mask` [b l], True at
            valid positions, `time_index` [b l], the time step of each position, and `length` [b], the number
            of steps of each clip.
          train: whether dropout acts.
          key: random key of the dropout; may be None if `train` is False.

        Returns:
          A FusionOutput: `logits` [b c] of the c classes; `embedding` [b 2nd], position by position the
          attended audio vector, then the video vector (their width d is that of the encoders, or
          `config.common_width` if these differ), for n = `config.positions` positions, the equal parts of
          time to which both sequences are first resampled; and the dict `aux` with the attention weights
          `cross_audio_weights` [b n n] (row i: of the audio positions for video position i) and
          `cross_video_weights` [b n n] (row i: of the video positions for audio position i). An absent
          modality has no effect on the other one; both weights are then 0.

        Raises:
          ValueError: if `train` is True but `key` is None, a dropout rate is not in [0, 1), or the network
            has no encoder of one of the modalities.
        """
        audio_sequence, video_sequence = sequences.of_both_modalities()
        audio, audio_mask = self._resample_and_normalize(audio_sequence, "audio")
        video, video_mask = self._resample_and_normalize(video_sequence, "video")
        attended = cross_attention(audio, video, self.w[...], audio_mask, video_mask)
        concatenated = jnp.concatenate([attended.audio, attended.video], axis=-1)  # b n 2d
        flat = concatenated.reshape(concatenated.shape[0], -1)  # b n 2d -> b n*2d
        aux = {"cross_audio_weights": attended.audio_weights, "cross_video_weights": attended.video_weights}
        return FusionOutput(self.head(flat, train=train, key=key), flat, aux)

    def _resample_and_normalize(
        self, sequence: EncodedSequence, modality: str
    ) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        values, mask = resample_sequence(*sequence, num_segments=self.positions)
        if self.has_projection:
            values = getattr(self, f"{modality}_projection")(values)
        return (getattr(self, f"{modality}_norm")(values) if self.has_layer_norm else values), mask
