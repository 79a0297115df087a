"""LMF: low-rank fusion of the two vectors with a 1 appended (Liu et al., arXiv 1806.00064)."""

import jax.numpy as jnp
from flax import nnx

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.head import Head
from emofuse_jax.models.layers.linear import scaled_uniform
from emofuse_jax.ops.lmf import low_rank_fusion
from emofuse_jax.types import PRNGKey


class LMF(nnx.Module):
    """`z = sum_k w_k (A_k^T [h_a; 1]) o (V_k^T [h_v; 1]) + b`, then the classifier.

    The rows that meet the 1 start at 1, so that the products start as `(1 + a)(1 + v)`: small vectors would
    otherwise give products of nothing with nothing. An absent modality is a zero vector, and the 1 then
    leaves the other's answer.
    """

    modalities = ("audio", "video")
    takes = "vectors"
    defaults = {"width": 128, "rank": 4, "head_dropout": 0.3}

    def __init__(self, d_a: int, d_v: int, classes: int, config, dtype, *, rngs: nnx.Rngs):
        init = scaled_uniform(float(config.rank))  # of a stack of `rank` kernels: variance 1 / d each
        for name, d in (("audio", d_a), ("video", d_v)):
            kernels = init(rngs.params(), (config.rank, d, config.width))
            ones = jnp.ones((config.rank, 1, config.width))
            setattr(self, f"{name}_factors", nnx.Param(jnp.concatenate([kernels, ones], axis=1)))
        self.weights = nnx.Param(jnp.full(config.rank, 1 / config.rank))
        self.bias = nnx.Param(jnp.zeros(config.width))
        self.head = Head(config.width, classes, config.head_dropout, rngs=rngs)

    def __call__(self, pooled: PooledVectors, key: PRNGKey | None) -> FusionOutput:
        """Logits from the fused vector."""
        vectors = pooled.audio[:, 0], pooled.video[:, 0]
        factors = self.audio_factors[...], self.video_factors[...]
        z = low_rank_fusion(vectors, factors, self.weights[...], self.bias[...])  # b o
        return FusionOutput(self.head(z, key), z, {"trunks": z[:, None]})
