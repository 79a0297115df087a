"""LMF: low-rank fusion of the two vectors with a 1 appended (Liu et al., 2018, arXiv 1806.00064)."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.head import Head
from emofuse_jax.models.layers.linear import scaled_uniform
from emofuse_jax.ops.lmf import low_rank_fusion
from emofuse_jax.types import PRNGKey


class LMF(nnx.Module):
    """Fusion `z = sum_k w_k (A_k^T [h_a; 1]) o (V_k^T [h_v; 1]) + b`, then the classifier.

    The rows that are multiplied by the 1 start at 1, so that the initial products are `(1 + a)(1 + v)`;
    otherwise small vectors would give products close to 0. An absent modality is a zero vector; because of
    the 1, the projection of the other one remains.
    """

    modalities = ("audio", "video")
    takes = "vectors"
    defaults = {"width": 128, "rank": 4, "head_dropout": 0.3}

    def __init__(
        self, d_a: int, d_v: int, classes: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> None:
        init = scaled_uniform(float(config.rank))  # gives each of the `rank` kernels variance 1 / d
        ones = jnp.ones((config.rank, 1, config.width))
        audio_kernels = init(rngs.params(), (config.rank, d_a, config.width))
        video_kernels = init(rngs.params(), (config.rank, d_v, config.width))
        self.audio_factors = nnx.Param(jnp.concatenate([audio_kernels, ones], axis=1))
        self.video_factors = nnx.Param(jnp.concatenate([video_kernels, ones], axis=1))
        self.weights = nnx.Param(jnp.full(config.rank, 1 / config.rank))
        self.bias = nnx.Param(jnp.zeros(config.width))
        self.head = Head(config.width, classes, config.head_dropout, rngs=rngs)

    def __call__(self, pooled: PooledVectors, *, train: bool, key: PRNGKey | None) -> FusionOutput:
        """Fuses both vectors of the entire clip, and computes the logits from the fused vector.

        Args:
          pooled: `audio` [b n d_a] and `video` [b n d_v], the vectors of the entire clip at index 0 (others
            are not used); and their masks `audio_mask` and `video_mask` [b n], False where the modality is
            absent (its vector is zero).
          train: whether dropout acts.
          key: random key of the dropout; may be None if `train` is False.

        Returns:
          A FusionOutput: `logits` [b c] of the c classes; `embedding` [b o], the fused vector of width o =
          `config.width`; and the dict `aux` with `trunks` [b 1 o], the same vector.

        Raises:
          ValueError: if `train` is True but `key` is None, a dropout rate is not in [0, 1), or the network
            has no encoder of one of the modalities.
        """
        audio, _, video, _ = pooled.of_both_modalities()
        vectors = audio[:, 0], video[:, 0]
        factors = self.audio_factors[...], self.video_factors[...]
        z = low_rank_fusion(vectors, factors, self.weights[...], self.bias[...])  # b o
        return FusionOutput(self.head(z, train=train, key=key), z, {"trunks": z[:, None]})
