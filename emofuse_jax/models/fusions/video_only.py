"""The face alone."""

import jax.numpy as jnp
from flax import nnx

from emofuse_jax.models.interfaces import Fused, Streams
from emofuse_jax.models.layers.head import Head
from emofuse_jax.types import PRNGKey


class VideoOnly(nnx.Module):
    """A classifier on the pooled video vector; the audio encoder is not built."""

    modalities = ("video",)
    takes = "vectors"
    defaults = {"head_dropout": 0.3}

    def __init__(self, d_a: None, d_v: int, classes: int, config, dtype, *, rngs: nnx.Rngs):
        self.head = Head(d_v, classes, config.head_dropout, rngs=rngs)

    def __call__(self, streams: Streams, key: PRNGKey | None) -> Fused:
        """Logits from the video vector; the modality weights are (0, 1)."""
        vector = streams.video[:, 0]
        weights = jnp.broadcast_to(jnp.array([0.0, 1.0]), (vector.shape[0], 2))  # b 2
        return Fused(self.head(vector, key), vector, {"modality_weights": weights})
