"""Common information: segments whose streams and labels soft-HGR pulls together (Ma et al., 2020)."""

import jax
import jax.numpy as jnp
from flax import nnx

from emofuse_jax.models.interfaces import EncodedSequence, EncodedSequences, FusionOutput
from emofuse_jax.models.layers.common_information import CommonHeadPair, LabelNetwork
from emofuse_jax.models.layers.head import Head
from emofuse_jax.models.layers.linear import linear
from emofuse_jax.ops.masking import equal_weights, masked_mean
from emofuse_jax.ops.segments import resample_sequence
from emofuse_jax.types import PRNGKey


class CommonInformation(nnx.Module):
    """`p = mean_i softmax(W_2 relu(W_1 [f_i; g_i]))` over the segments i of a clip; logits are `log p`.

    f and g are linear in the encoders' positions, brought to `segments` equal parts of time; a modality that
    is not there is zero. A segment counts when it has a modality. The objective `correlation` maximises
    `H(f, g) + H(f, h) + H(g, h)` with h of the label network, the objective `levels` is the segments' own
    cross-entropy. `ema` > 0 takes the covariances of many batches, for batches of fewer than 4 `width`
    segments. Reference: Ma et al., Appl. Sci. 2020, 10(20), 7239.
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

    def __init__(self, d_a: int, d_v: int, classes: int, config, dtype, *, rngs: nnx.Rngs):
        if config.segments < 1:
            raise ValueError(f"fusion.segments: {config.segments}, expected at least 1")
        self.common = CommonHeadPair(d_a, d_v, config, dtype, rngs=rngs)
        self.labels = LabelNetwork(classes, config.label_hidden, config.width, rngs=rngs)
        self.hidden = linear(2 * config.width, config.hidden, dtype, rngs=rngs)
        self.head = Head(config.hidden, classes, config.head_dropout, rngs=rngs)
        self.segments, self.dtype = config.segments, dtype

    def __call__(self, sequences: EncodedSequences, key: PRNGKey | None) -> FusionOutput:
        """Log of the mean posterior of the clip's segments."""
        (audio, audio_mask), (video, video_mask) = map(self._to_segments, sequences)
        f, g, aux = self.common(audio, audio_mask, video, video_mask, train=key is not None)
        concatenated = jnp.concatenate([f, g], axis=-1).astype(self.dtype)
        hidden = jax.nn.relu(self.hidden(concatenated))  # b l e
        flat_hidden = hidden.reshape(-1, hidden.shape[-1])  # b l e -> b*l e
        segment_logits = self.head(flat_hidden, key).reshape(*hidden.shape[:2], -1)  # b*l c -> b l c
        segment_mask = audio_mask | video_mask
        weights = equal_weights(segment_mask)
        log_p = jax.nn.logsumexp(jax.nn.log_softmax(segment_logits), axis=1, b=weights[..., None])  # b c
        aux |= {"label_features": self.labels(), "level_logits": segment_logits, "level_mask": segment_mask}
        return FusionOutput(log_p, masked_mean(hidden, segment_mask), aux)

    def _to_segments(self, sequence: EncodedSequence):
        return resample_sequence(*sequence, num_segments=self.segments)
