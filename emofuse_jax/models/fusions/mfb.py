"""MFB: factorised bilinear pooling with the signed square root (Yu et al., arXiv 1708.01471)."""

import jax
from flax import nnx

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.fbp import FBP_DEFAULTS, make_factors
from emofuse_jax.models.layers.head import Head
from emofuse_jax.models.layers.missing_modality import MissingModalityVectors
from emofuse_jax.ops.mfb import mfb
from emofuse_jax.types import PRNGKey

FIXED_FIELDS = ("power_norm", "dropout_place")
MFB_DEFAULTS = {name: value for name, value in FBP_DEFAULTS.items() if name not in FIXED_FIELDS}


class MFB(nnx.Module):
    """`z = scale MFB(h_a, h_v)`, then the classifier; a learned vector stands in for an absent modality."""

    modalities = ("audio", "video")
    takes = "vectors"
    defaults = MFB_DEFAULTS

    def __init__(self, d_a: int, d_v: int, classes: int, config, dtype, *, rngs: nnx.Rngs):
        self.absent = MissingModalityVectors(d_a, d_v)
        self.u, self.v = make_factors(d_a, d_v, config.width * config.factors, rngs=rngs)
        self.head = Head(config.width, classes, config.head_dropout, rngs=rngs)
        self.factors, self.dropout, self.scale = config.factors, config.dropout, config.scale

    def __call__(self, pooled: PooledVectors, key: PRNGKey | None) -> FusionOutput:
        """Logits from the fused vector."""
        key_fuse, key_head = (None, None) if key is None else jax.random.split(key)
        u, v = self.u[...], self.v[...]
        options = {"factors": self.factors, "dropout_rate": self.dropout, "key": key_fuse}
        z = self.scale * mfb(*self.absent(pooled), u, v, **options)  # b o
        return FusionOutput(self.head(z, key_head), z, {"trunks": z[:, None]})
