"""AVEF: a deep network on the pooled vectors of a 2-D CNN for audio and a 3-D CNN for faces."""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.dropout_keys import split_dropout_key
from emofuse_jax.models.layers.head import Head
from emofuse_jax.models.layers.linear import linear
from emofuse_jax.ops.dropout import dropout
from emofuse_jax.types import PRNGKey


class DeepFusion(nnx.Module):
    """Fusion `z_i = relu(W_i z_{i-1} + b_i)` from `z_0 = [h_a; h_v]`, with dropout, then the classifier.

    The `layer_norm` of each vector is a design choice: without it, only the stream with the larger values is
    learned. Reference: Ma et al., 2019, Audio-visual emotion fusion (AVEF), Information Fusion 46; its deep
    belief network is replaced by a perceptron with the widths `hidden`, trained by back-propagation alone.
    """

    modalities = ("audio", "video")
    takes = "vectors"
    defaults = {"hidden": (512, 256), "layer_norm": True, "dropout": 0.3, "head_dropout": 0.3}
    small = {"hidden": (64, 64), "dropout": 0.1}
    small_epochs = 18

    def __init__(
        self, d_a: int, d_v: int, classes: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> None:
        self.has_layer_norm = config.layer_norm
        if self.has_layer_norm:
            self.audio_norm = nnx.LayerNorm(d_a, dtype=dtype, rngs=rngs)
            self.video_norm = nnx.LayerNorm(d_v, dtype=dtype, rngs=rngs)
        widths = (d_a + d_v, *config.hidden)
        for i, (in_features, out_features) in enumerate(itertools.pairwise(widths), 1):
            setattr(self, f"hidden{i}", linear(in_features, out_features, dtype, rngs=rngs))
        self.depth, self.dropout = len(config.hidden), config.dropout
        self.head = Head(widths[-1], classes, config.head_dropout, rngs=rngs)

    def __call__(self, pooled: PooledVectors, *, train: bool, key: PRNGKey | None) -> FusionOutput:
        """Computes the logits from the last of the hidden layers on both vectors of the entire clip.

        Args:
          pooled: `audio` [b n d_a] and `video` [b n d_v], the vectors of the entire clip at index 0 (others
            are not used); and their masks `audio_mask` and `video_mask` [b n], False where the modality is
            absent (its vector is zero).
          train: whether dropout acts.
          key: random key of the dropout; may be None if `train` is False.

        Returns:
          A FusionOutput: `logits` [b c] of the c classes; `embedding` [b d], the last hidden layer, whose
          width d is the last of `config.hidden`; and an empty dict `aux`.

        Raises:
          ValueError: if `train` is True but `key` is None, or a dropout rate is not in [0, 1).
          TypeError: if the network has no encoder of one of the modalities.
        """
        keys = split_dropout_key(key, self.depth + 1, train=train)
        z = jnp.concatenate(
            [self._normalize_vector(pooled, modality) for modality in self.modalities], axis=-1
        )
        for i in range(1, self.depth + 1):
            z = dropout(jax.nn.relu(getattr(self, f"hidden{i}")(z)), self.dropout, keys[i])
        return FusionOutput(self.head(z, train=train, key=keys[0]), z, {})

    def _normalize_vector(self, pooled: PooledVectors, modality: str) -> Float[Array, "b d"]:
        """Returns the vector [b d] of the entire clip, with layer norm if `config.layer_norm` is True.

        `modality` is "audio" or "video"; `pooled` has the vectors of this modality [b n d], the entire clip
        at index 0, and their mask [b n]. The result is zero for clips without this modality. Raises TypeError
        if these fields are None because the network has no encoder of the modality.
        """
        vector, is_present = getattr(pooled, modality)[:, 0], getattr(pooled, f"{modality}_mask")[:, :1]
        return (
            jnp.where(is_present, getattr(self, f"{modality}_norm")(vector), 0.0)
            if self.has_layer_norm
            else vector
        )
