"""Common information: soft-HGR correlates the audio, the video and the labels of segments.

Reference: Ma et al., 2020, Appl. Sci. 10(20), 7239.
"""

import warnings

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from emofuse_jax.models.interfaces import EncodedSequence, EncodedSequences, FusionOutput
from emofuse_jax.models.layers.common_information import CommonHeadPair, LabelNetwork
from emofuse_jax.models.layers.head import Head
from emofuse_jax.models.layers.linear import linear
from emofuse_jax.ops.masking import equal_weights, masked_mean
from emofuse_jax.ops.segments import resample_sequence
from emofuse_jax.types import PRNGKey


class CommonInformation(nnx.Module):
    """Fusion `p = mean_i softmax(W_2 relu(W_1 [f_i; g_i]))` over the segments i of a clip.

    The logits are `log p`. f and g are linear in the positions of the encoders, which are first resampled to
    `segments` equal parts of time; an absent modality is zero. A segment counts if it has at least one
    modality. The objective `correlation` maximises `H(f, g) + H(f, h) + H(g, h)`, with h of the label
    network; the objective `levels` is the cross-entropy of the segments. `ema` > 0 averages covariances over
    many batches, for batches with fewer than 4 `width` segments. Reference: Common Information (Ma et al.,
    2020, Appl. Sci. 10(20), 7239).

    Raises:
      ValueError: if `config.segments` is below 1, or `config.ema` is outside [0, 1).
    """

    modalities = ("audio", "video")
    takes = "sequences"
    defaults = {
        "segments": 30,
        "width": 64,
        "label_hidden": 64,
        "hidden": 128,
        "head_dropout": 0.5,
        "ema": 0.0,
    }
    small = {"segments": 8, "width": 16, "label_hidden": 32, "hidden": 64}

    def __init__(
        self, d_a: int, d_v: int, classes: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> None:
        if config.segments < 1:
            raise ValueError(f"config.model.fusion.segments: {config.segments}, expected at least 1")
        self.common = CommonHeadPair(d_a, d_v, config, dtype, rngs=rngs)
        self.labels = LabelNetwork(classes, config.label_hidden, config.width, rngs=rngs)
        self.hidden = linear(2 * config.width, config.hidden, dtype, rngs=rngs)
        self.head = Head(config.hidden, classes, config.head_dropout, rngs=rngs)
        self.segments, self.dtype = config.segments, dtype

    def __call__(self, sequences: EncodedSequences, *, train: bool, key: PRNGKey | None) -> FusionOutput:
        """Computes the logits as the log of the mean posterior over the segments of each clip.

        Args:
          sequences: `audio` and `video`; each has `values` [b l d] of l positions, `mask` [b l], True at
            valid positions, `time_index` [b l], the time step of each position, and `length` [b], the number
            of steps of each clip.
          train: whether dropout acts and running statistics are updated.
          key: random key of the dropout; may be None if `train` is False.

        Returns:
          A FusionOutput: `logits` [b c] of the c classes; `embedding` [b e], the mean of the hidden layer of
          width e = `config.hidden` over the segments; and the dict `aux` with the common features
          `audio_common` and `video_common` [b l d] of width d = `config.width` for the l = `config.segments`
          segments; their masks `audio_common_mask` and `video_common_mask` [b l], True for segments with the
          modality; their covariances `audio_covariance` and `video_covariance` [d d] (only if `ema` > 0); the
          mean cosine `correlation` [b] of the two features after their running means are subtracted, over the
          segments with both modalities (0 if there is none); `label_features` [c d], one row for each class;
          `level_logits` [b l c] of the segments; and `level_mask` [b l], True for segments with audio or
          video.

        Raises:
          ValueError: if `train` is True but `key` is None, a dropout rate is not in [0, 1), or the network
            has no encoder of one of the modalities.
        """
        (audio, audio_mask), (video, video_mask) = map(self._to_segments, sequences.of_both_modalities())
        f, g, aux = self.common(audio, audio_mask, video, video_mask, train=train)
        concatenated = jnp.concatenate([f, g], axis=-1).astype(self.dtype)
        hidden = jax.nn.relu(self.hidden(concatenated))  # b l e
        flat_hidden = hidden.reshape(-1, hidden.shape[-1])  # b l e -> b*l e
        flat_logits = self.head(flat_hidden, train=train, key=key)
        segment_logits = flat_logits.reshape(*hidden.shape[:2], -1)  # b*l c -> b l c
        segment_mask = audio_mask | video_mask
        weights = equal_weights(segment_mask)
        log_p = jax.nn.logsumexp(jax.nn.log_softmax(segment_logits), axis=1, b=weights[..., None])  # b c
        aux |= {"label_features": self.labels(), "level_logits": segment_logits, "level_mask": segment_mask}
        return FusionOutput(log_p, masked_mean(hidden, segment_mask), aux)

    def _to_segments(self, sequence: EncodedSequence) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        return resample_sequence(*sequence, num_segments=self.segments)

    @staticmethod
    def check_training(config: ConfigDict) -> None:
        """Warns (UserWarning) if a batch has so few labelled segments that soft-HGR with labels is biased.

        That is the case below 4 `model.fusion.width` segments. Their number is `data.batch_size` times
        `model.fusion.segments` and, if `data.keep_unlabelled`, times `data.labelled_share` or, if that is 0,
        `data.labelled_fraction`. Does nothing if the factor `loss.objectives.correlation` is 0 or missing, or
        `model.fusion.ema` is not 0.

        Args:
          config: complete config of an experiment.
        """
        data, fusion = config.data, config.model.fusion
        if not config.loss.objectives.get("correlation", 0.0) or fusion.ema:
            return
        labelled_fraction = (data.labelled_share or data.labelled_fraction) if data.keep_unlabelled else 1.0
        labelled_segments = data.batch_size * fusion.segments * labelled_fraction
        if labelled_segments < 4 * fusion.width:
            warnings.warn(
                f"soft-HGR with labels: about {labelled_segments:.0f} labelled segments per batch, fewer than"
                f" 4 x config.model.fusion.width={fusion.width}: biased; increase config.data.batch_size or"
                " set config.model.fusion.ema",
                stacklevel=2,
            )
