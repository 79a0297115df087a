"""Concatenation: additive in the two streams."""

import jax.numpy as jnp
from flax import nnx

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.head import Head
from emofuse_jax.types import PRNGKey


class Concat(nnx.Module):
    """A linear classifier on `[h_a; h_v]`."""

    modalities = ("audio", "video")
    takes = "vectors"
    defaults = {"head_dropout": 0.3}

    def __init__(self, d_a: int, d_v: int, classes: int, config, dtype, *, rngs: nnx.Rngs):
        self.head = Head(d_a + d_v, classes, config.head_dropout, rngs=rngs)

    def __call__(self, pooled: PooledVectors, key: PRNGKey | None) -> FusionOutput:
        """Logits from both vectors; an absent one is zero."""
        concatenated = jnp.concatenate([pooled.audio[:, 0], pooled.video[:, 0]], axis=-1)
        return FusionOutput(self.head(concatenated, key), concatenated, {})
