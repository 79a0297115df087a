"""Video alone."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.head import Head
from emofuse_jax.types import PRNGKey


class VideoOnly(nnx.Module):
    """Classifier on the pooled video vector; the network has no audio encoder."""

    modalities = ("video",)
    takes = "vectors"
    defaults = {"head_dropout": 0.3}
    small_epochs = 10

    def __init__(
        self, d_a: int, d_v: int, classes: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> None:
        self.head = Head(d_v, classes, config.head_dropout, rngs=rngs)

    def __call__(self, pooled: PooledVectors, *, train: bool, key: PRNGKey | None) -> FusionOutput:
        """Computes the logits from the video vector of the entire clip.

        Args:
          pooled: `video` [b n d_v], not None: the video vectors, of which that of the entire clip (index 0)
            is used; it is zero for a clip without video.
          train: whether dropout acts.
          key: random key of the dropout; may be None if `train` is False.

        Returns:
          A FusionOutput: `logits` [b c] of the c classes; `embedding` [b d_v], the video vector; and the dict
          `aux` with `modality_weights` [b 2] of (audio, video), always (0, 1).

        Raises:
          ValueError: if `train` is True but `key` is None, or a dropout rate is not in [0, 1).
        """
        assert pooled.video is not None  # the network has this encoder
        vector = pooled.video[:, 0]
        weights = jnp.broadcast_to(jnp.array([0.0, 1.0]), (vector.shape[0], 2))  # b 2
        return FusionOutput(self.head(vector, train=train, key=key), vector, {"modality_weights": weights})
