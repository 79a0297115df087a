"""G-FBP: factorised bilinear pooling of the two pooled vectors (Deep Fusion, arXiv 1901.04889)."""

import jax
from flax import nnx

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.fbp import FBP, FBP_DEFAULTS
from emofuse_jax.models.layers.head import Head
from emofuse_jax.models.layers.missing_modality import MissingModalityVectors
from emofuse_jax.types import PRNGKey


class GlobalFBP(nnx.Module):
    """`z = FBP(h_a, h_v)`, then the classifier; a learned vector stands in for an absent modality."""

    modalities = ("audio", "video")
    takes = "vectors"
    defaults = FBP_DEFAULTS

    def __init__(self, d_a: int, d_v: int, classes: int, config, dtype, *, rngs: nnx.Rngs):
        self.absent = MissingModalityVectors(d_a, d_v)
        self.fbp = FBP(d_a, d_v, config, bias=False, rngs=rngs)
        self.head = Head(config.width, classes, config.head_dropout, rngs=rngs)

    def __call__(self, pooled: PooledVectors, key: PRNGKey | None) -> FusionOutput:
        """Logits from the fused vector."""
        key_fbp, key_head = (None, None) if key is None else jax.random.split(key)
        z = self.fbp(*self.absent(pooled), key_fbp)  # b o
        return FusionOutput(self.head(z, key_head), z, {"trunks": z[:, None]})
