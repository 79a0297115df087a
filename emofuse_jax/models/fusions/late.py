"""Late fusion: the mean of the two streams' posteriors."""

import jax
import jax.numpy as jnp
from flax import nnx

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.head import Head
from emofuse_jax.ops.masking import equal_weights
from emofuse_jax.types import PRNGKey


class Late(nnx.Module):
    """`p = sum_m w_m softmax(head_m(h_m))`, w = 1/2 each, or 1 for the only modality of a clip.

    The logits are `log p`. With `auxiliary`, the two heads' own logits are given for a loss on each.
    """

    modalities = ("audio", "video")
    takes = "vectors"
    defaults = {"head_dropout": 0.3, "auxiliary": False}

    def __init__(self, d_a: int, d_v: int, classes: int, config, dtype, *, rngs: nnx.Rngs):
        self.audio_head = Head(d_a, classes, config.head_dropout, rngs=rngs)
        self.video_head = Head(d_v, classes, config.head_dropout, rngs=rngs)
        self.auxiliary = config.auxiliary

    def __call__(self, pooled: PooledVectors, key: PRNGKey | None) -> FusionOutput:
        """Log of the mean posterior."""
        key_a, key_v = (None, None) if key is None else jax.random.split(key)
        audio, video = pooled.audio[:, 0], pooled.video[:, 0]
        stream_logits = jnp.stack(
            [self.audio_head(audio, key_a), self.video_head(video, key_v)], axis=1
        )  # b 2 c
        modality_mask = jnp.stack([pooled.audio_ok[:, 0], pooled.video_ok[:, 0]], axis=1)  # b 2
        weights = equal_weights(modality_mask)
        aux = {"modality_weights": jnp.where(modality_mask, weights, 0.0)}
        if self.auxiliary:
            aux |= {"level_logits": stream_logits, "level_mask": modality_mask}
        log_p = jax.nn.logsumexp(jax.nn.log_softmax(stream_logits), axis=1, b=weights[..., None])  # b c
        return FusionOutput(log_p, jnp.concatenate([audio, video], axis=-1), aux)
