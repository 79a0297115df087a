"""Late fusion: the mean of the two streams' posteriors."""

import jax
import jax.numpy as jnp
from flax import nnx

from emofuse_jax.models.interfaces import Fused, Streams
from emofuse_jax.models.layers.head import Head
from emofuse_jax.ops.masking import present_weights
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

    def __call__(self, streams: Streams, key: PRNGKey | None) -> Fused:
        """Log of the mean posterior."""
        key_a, key_v = (None, None) if key is None else jax.random.split(key)
        audio, video = streams.audio[:, 0], streams.video[:, 0]
        levels = jnp.stack([self.audio_head(audio, key_a), self.video_head(video, key_v)], axis=1)  # b 2 c
        ok = jnp.stack([streams.audio_ok[:, 0], streams.video_ok[:, 0]], axis=1)  # b 2
        weights = present_weights(ok)
        aux = {"modality_weights": jnp.where(ok, weights, 0.0)}
        if self.auxiliary:
            aux |= {"level_logits": levels, "level_mask": ok}
        log_p = jax.nn.logsumexp(jax.nn.log_softmax(levels), axis=1, b=weights[..., None])  # b c
        return Fused(log_p, jnp.concatenate([audio, video], axis=-1), aux)
