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
        """Computes the logits [b c] from the fused vector [b o], which is also the embedding.

        `aux` has `trunks` [b 1 o], the fused vector. Dropout, with `key`, acts only if `train`.

        Raises ValueError if `train` is True but `key` is None, a dropout rate is not in [0, 1),
        `dropout_place` is unknown, or the network has no encoder of one of the modalities.
        """
        key_fbp, key_head = split_dropout_key(key, 2, train=train)
        z = self.fbp(*self.absent(pooled), train=train, key=key_fbp)  # b o
        return FusionOutput(self.head(z, train=train, key=key_head), z, {"trunks": z[:, None]})
