"""The voice alone."""

import jax.numpy as jnp
from flax import nnx

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.head import Head
from emofuse_jax.types import PRNGKey


class AudioOnly(nnx.Module):
    """A classifier on the pooled audio vector; the video encoder is not built."""

    modalities = ("audio",)
    takes = "vectors"
    defaults = {"head_dropout": 0.3}

    def __init__(self, d_a: int, d_v: None, classes: int, config, dtype, *, rngs: nnx.Rngs):
        self.head = Head(d_a, classes, config.head_dropout, rngs=rngs)

    def __call__(self, pooled: PooledVectors, key: PRNGKey | None) -> FusionOutput:
        """Logits from the audio vector; the modality weights are (1, 0)."""
        vector = pooled.audio[:, 0]
        weights = jnp.broadcast_to(jnp.array([1.0, 0.0]), (vector.shape[0], 2))  # b 2
        return FusionOutput(self.head(vector, key), vector, {"modality_weights": weights})
