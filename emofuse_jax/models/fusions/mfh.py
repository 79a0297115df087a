"""MFH: cascaded MFB blocks, each on top of the products of the one before (Yu et al., arXiv 1708.03619)."""

import jax
from flax import nnx

from emofuse_jax.models.fusions.mfb import MFB_DEFAULTS
from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.fbp import make_factors
from emofuse_jax.models.layers.head import Head
from emofuse_jax.models.layers.missing_modality import MissingModalityVectors
from emofuse_jax.ops.mfb import mfh
from emofuse_jax.types import PRNGKey


class MFH(nnx.Module):
    """`z = scale [z_1; ..; z_l]`, then the classifier; a learned vector stands in for an absent modality."""

    modalities = ("audio", "video")
    takes = "vectors"
    defaults = MFB_DEFAULTS | {"blocks": 2}

    def __init__(self, d_a: int, d_v: int, classes: int, config, dtype, *, rngs: nnx.Rngs):
        if config.blocks < 1:
            raise ValueError(f"fusion.blocks: {config.blocks}, expected at least 1")
        self.absent = MissingModalityVectors(d_a, d_v)
        for i in range(config.blocks):
            u, v = make_factors(d_a, d_v, config.width * config.factors, rngs=rngs)
            setattr(self, f"u{i + 1}", u)
            setattr(self, f"v{i + 1}", v)
        self.head = Head(config.blocks * config.width, classes, config.head_dropout, rngs=rngs)
        self.factors, self.dropout, self.scale = config.factors, config.dropout, config.scale
        self.blocks = config.blocks

    def __call__(self, pooled: PooledVectors, key: PRNGKey | None) -> FusionOutput:
        """Logits from the blocks' fused vectors, which are also `trunks` in `aux`."""
        key_fuse, key_head = (None, None) if key is None else jax.random.split(key)
        us, vs = ([getattr(self, f"{name}{i + 1}")[...] for i in range(self.blocks)] for name in "uv")
        options = {"factors": self.factors, "dropout_rate": self.dropout, "key": key_fuse}
        z = self.scale * mfh(*self.absent(pooled), us, vs, **options)  # b l*o
        trunks = z.reshape(z.shape[0], self.blocks, -1)  # b l*o -> b l o
        return FusionOutput(self.head(z, key_head), z, {"trunks": trunks})
