"""G-FBP: factorised bilinear pooling of the two pooled vectors.

Reference: Deep Fusion (Zhang et al., 2019, arXiv 1901.04889).
"""

from flax import nnx
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.dropout_keys import split_dropout_key
from emofuse_jax.models.layers.fbp import FBP, FBP_DEFAULTS
from emofuse_jax.models.layers.head import Head
from emofuse_jax.models.layers.missing_modality import MissingModalityVectors
from emofuse_jax.types import PRNGKey


class GlobalFBP(nnx.Module):
    """Fusion `z = FBP(h_a, h_v)`, then the classifier; a learned vector replaces an absent modality."""

    modalities = ("audio", "video")
    takes = "vectors"
    defaults = FBP_DEFAULTS
    small = {"dropout": 0.1}

    def __init__(
        self, d_a: int, d_v: int, classes: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> None:
        self.absent = MissingModalityVectors(d_a, d_v)
        self.fbp = FBP(d_a, d_v, config, bias=False, rngs=rngs)
        self.head = Head(config.width, classes, config.head_dropout, rngs=rngs)

    def __call__(self, pooled: PooledVectors, *, train: bool, key: PRNGKey | None) -> FusionOutput:
        """Fuses both vectors of the entire clip, and computes the logits from the fused vector.

        A learned vector replaces an absent modality.

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
          ValueError: if `train` is True but `key` is None, a dropout rate is not in [0, 1), `dropout_place`
            is unknown, or the network has no encoder of one of the modalities.
        """
        key_fbp, key_head = split_dropout_key(key, 2, train=train)
        z = self.fbp(*self.absent(pooled), train=train, key=key_fbp)  # b o
        return FusionOutput(self.head(z, train=train, key=key_head), z, {"trunks": z[:, None]})
