"""Audio alone."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.head import Head
from emofuse_jax.types import PRNGKey


class AudioOnly(nnx.Module):
    """Classifier on the pooled audio vector; the network has no video encoder."""

    modalities = ("audio",)
    takes = "vectors"
    defaults = {"head_dropout": 0.3}
    small_epochs = 10

    def __init__(
        self, d_a: int, d_v: int, classes: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> None:
        self.head = Head(d_a, classes, config.head_dropout, rngs=rngs)

    def __call__(self, pooled: PooledVectors, *, train: bool, key: PRNGKey | None) -> FusionOutput:
        """Computes the logits from the audio vector of the entire clip.

        Args:
          pooled: `audio` [b n d_a], not None: the audio vectors, of which that of the entire clip (index 0)
            is used; it is zero for a clip without audio.
          train: whether dropout acts.
          key: random key of the dropout; may be None if `train` is False.

        Returns:
          A FusionOutput: `logits` [b c] of the c classes; `embedding` [b d_a], the audio vector; and the dict
          `aux` with `modality_weights` [b 2] of (audio, video), always (1, 0).

        Raises:
          ValueError: if `train` is True but `key` is None, or a dropout rate is not in [0, 1).
        """
        assert pooled.audio is not None  # the network has this encoder
        vector = pooled.audio[:, 0]
        weights = jnp.broadcast_to(jnp.array([1.0, 0.0]), (vector.shape[0], 2))  # b 2
        return FusionOutput(self.head(vector, train=train, key=key), vector, {"modality_weights": weights})
