"""Concatenation of both vectors, the plain baseline: the logits are a sum of one term per stream."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.head import Head
from emofuse_jax.types import PRNGKey


class Concat(nnx.Module):
    """Linear classifier on `[h_a; h_v]`."""

    modalities = ("audio", "video")
    takes = "vectors"
    defaults = {"head_dropout": 0.3}

    def __init__(
        self, d_a: int, d_v: int, classes: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> None:
        self.head = Head(d_a + d_v, classes, config.head_dropout, rngs=rngs)

    def __call__(self, pooled: PooledVectors, *, train: bool, key: PRNGKey | None) -> FusionOutput:
        """Computes the logits from both vectors of the entire clip, side by side.

        Args:
          pooled: `audio` [b n d_a] and `video` [b n d_v], the vectors of the entire clip at index 0 (others
            are not used); and their masks `audio_mask` and `video_mask` [b n], False where the modality is
            absent (its vector is zero).
          train: whether dropout acts.
          key: random key of the dropout; may be None if `train` is False.

        Returns:
          A FusionOutput: `logits` [b c] of the c classes; `embedding` [b d_a+d_v], both vectors side by side;
          and an empty dict `aux`.

        Raises:
          ValueError: if `train` is True but `key` is None, a dropout rate is not in [0, 1), or the network
            has no encoder of one of the modalities.
        """
        audio, _, video, _ = pooled.of_both_modalities()
        concatenated = jnp.concatenate([audio[:, 0], video[:, 0]], axis=-1)
        return FusionOutput(self.head(concatenated, train=train, key=key), concatenated, {})
