"""The face alone."""

import jax.numpy as jnp
from flax import nnx

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.head import Head
from emofuse_jax.types import PRNGKey


class VideoOnly(nnx.Module):
    """A classifier on the pooled video vector; the audio encoder is not built."""

    modalities = ("video",)
    takes = "vectors"
    defaults = {"head_dropout": 0.3}

    def __init__(self, d_a: None, d_v: int, classes: int, config, dtype, *, rngs: nnx.Rngs):
        self.head = Head(d_v, classes, config.head_dropout, rngs=rngs)

    def __call__(self, pooled: PooledVectors, key: PRNGKey | None) -> FusionOutput:
        """Logits from the video vector; the modality weights are (0, 1)."""
        vector = pooled.video[:, 0]
        weights = jnp.broadcast_to(jnp.array([0.0, 1.0]), (vector.shape[0], 2))  # b 2
        return FusionOutput(self.head(vector, key), vector, {"modality_weights": weights})
