"""MFH: a cascade of MFB blocks, each on the products of the last one (Yu et al., 2017, arXiv 1708.03619)."""

from flax import nnx
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from emofuse_jax.models.fusions.mfb import MFB_DEFAULTS
from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.dropout_keys import split_dropout_key
from emofuse_jax.models.layers.fbp import make_factors
from emofuse_jax.models.layers.head import Head
from emofuse_jax.models.layers.missing_modality import MissingModalityVectors
from emofuse_jax.ops.mfb import mfh
from emofuse_jax.types import PRNGKey


class MFH(nnx.Module):
    """Fusion `z = scale [z_1; ..; z_l]`, then the classifier; a learned vector replaces an absent modality.

    Raises:
      ValueError: if `config.blocks` is below 1.
    """

    modalities = ("audio", "video")
    takes = "vectors"
    defaults = MFB_DEFAULTS | {"blocks": 2}
    small = {"dropout": 0.1}

    def __init__(
        self, d_a: int, d_v: int, classes: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> None:
        if config.blocks < 1:
            raise ValueError(f"config.model.fusion.blocks: {config.blocks}, expected at least 1")
        self.absent = MissingModalityVectors(d_a, d_v)
        for i in range(config.blocks):
            u, v = make_factors(d_a, d_v, config.width * config.factors, rngs=rngs)
            setattr(self, f"u{i + 1}", u)
            setattr(self, f"v{i + 1}", v)
        self.head = Head(config.blocks * config.width, classes, config.head_dropout, rngs=rngs)
        self.factors, self.dropout, self.scale = config.factors, config.dropout, config.scale
        self.blocks = config.blocks

    def __call__(self, pooled: PooledVectors, *, train: bool, key: PRNGKey | None) -> FusionOutput:
        """Fuses both vectors of the entire clip in l blocks, and computes the logits from the fused vectors.

        A learned vector replaces an absent modality.

        Args:
          pooled: `audio` [b n d_a] and `video` [b n d_v], the vectors of the entire clip at index 0 (others
            are not used); and their masks `audio_mask` and `video_mask` [b n], False where the modality is
            absent (its vector is zero).
          train: whether dropout acts.
          key: random key of the dropout; may be None if `train` is False.

        Returns:
          A FusionOutput: `logits` [b c] of the c classes; `embedding` [b l*o], the fused vectors of the l =
          `config.blocks` blocks, of width o = `config.width`, side by side; and the dict `aux` with `trunks`
          [b l o], the same vectors one by one.

        Raises:
          ValueError: if `train` is True but `key` is None, a dropout rate is not in [0, 1), or the network
            has no encoder of one of the modalities.
        """
        key_fuse, key_head = split_dropout_key(key, 2, train=train)
        us, vs = ([getattr(self, f"{name}{i + 1}")[...] for i in range(self.blocks)] for name in "uv")
        options = {"factors": self.factors, "dropout_rate": self.dropout, "key": key_fuse}
        z = self.scale * mfh(*self.absent(pooled), us, vs, **options)  # b l*o
        trunks = z.reshape(z.shape[0], self.blocks, -1)  # b l*o -> b l o
        return FusionOutput(self.head(z, train=train, key=key_head), z, {"trunks": trunks})
