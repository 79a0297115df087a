"""AG-FBP: adaptive weights of the modalities before FBP with biases (Zhou et al., 2021, arXiv 2111.08910)."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.dropout_keys import split_dropout_key
from emofuse_jax.models.layers.fbp import ADAPTIVE_DEFAULTS, AdaptiveFBP
from emofuse_jax.models.layers.head import Head
from emofuse_jax.types import PRNGKey


class AdaptiveGlobalFBP(nnx.Module):
    """Fusion `z = FBP(beta_a h_a, beta_v h_v)` with biased projections, then the classifier.

    Raises:
      ValueError: if `config.gates` is unknown.
    """

    modalities = ("audio", "video")
    takes = "vectors"
    defaults = ADAPTIVE_DEFAULTS
    small = {"dropout": 0.1}

    def __init__(
        self, d_a: int, d_v: int, classes: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> None:
        self.trunk = AdaptiveFBP(d_a, d_v, config, dtype, rngs=rngs)
        self.head = Head(config.width, classes, config.head_dropout, rngs=rngs)

    def __call__(self, pooled: PooledVectors, *, train: bool, key: PRNGKey | None) -> FusionOutput:
        """Fuses the weighted vectors of both modalities, and computes the logits from the fused vector.

        Args:
          pooled: `audio` [b n d_a] and `video` [b n d_v], the vectors of the entire clip at index 0 (others
            are not used); and their masks `audio_mask` and `video_mask` [b n], False where the modality is
            absent (its vector is zero).
          train: whether dropout acts.
          key: random key of the dropout; may be None if `train` is False.

        Returns:
          A FusionOutput: `logits` [b c] of the c classes; `embedding` [b o], the fused vector of width o =
          `config.width`; and the dict `aux` with `trunks` [b 1 o], the same vector; `modality_weights` [b 2]
          of (audio, video), with sum 1, or 0 for an absent one; and, if `config.gates` is "vector", the gates
          `audio_gate` [b d_a] and `video_gate` [b d_v], between 0 and 1.

        Raises:
          ValueError: if `train` is True but `key` is None, a dropout rate is not in [0, 1), `dropout_place`
            is unknown, or the network has no encoder of one of the modalities.
        """
        key_fbp, key_head = split_dropout_key(key, 2, train=train)
        audio, audio_mask, video, video_mask = (x[:, 0] for x in pooled.of_both_modalities())
        modality_mask = jnp.stack([audio_mask, video_mask], axis=-1)  # b 2
        z, weights, gates = self.trunk(audio, video, modality_mask, train=train, key=key_fbp)
        aux = {"trunks": z[:, None], "modality_weights": weights, **gates}
        return FusionOutput(self.head(z, train=train, key=key_head), z, aux)
