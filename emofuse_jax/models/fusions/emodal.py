"""EMOdal: common and private features of both streams."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.common_information import CommonHeadPair
from emofuse_jax.models.layers.head import Head
from emofuse_jax.models.layers.linear import linear
from emofuse_jax.ops.normalize import at_least_float32
from emofuse_jax.types import PRNGKey


class CommonAndPrivate(nnx.Module):
    """Fusion `W_2 relu(W_1 [f_a; f_v; p_a; p_v])` of common features f and private features p.

    Both are linear in the pooled vectors. The objective `correlation` increases the soft-HGR of f_a and f_v;
    `orthogonality` makes p_m unrelated to f_m, and p_a unrelated to p_v. A batch has one row per clip here,
    usually fewer than 4 `width`, so covariances are averaged over many batches (`ema`). The features of an
    absent modality are zero.

    Raises:
      ValueError: if `config.ema` is outside [0, 1).
    """

    modalities = ("audio", "video")
    takes = "vectors"
    defaults = {"width": 64, "hidden": 128, "head_dropout": 0.5, "ema": 0.9}
    small = {"width": 16, "hidden": 64}

    def __init__(
        self, d_a: int, d_v: int, classes: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> None:
        self.common = CommonHeadPair(d_a, d_v, config, dtype, rngs=rngs)
        self.audio_private = linear(d_a, config.width, dtype, rngs=rngs)
        self.video_private = linear(d_v, config.width, dtype, rngs=rngs)
        self.hidden = linear(4 * config.width, config.hidden, dtype, rngs=rngs)
        self.head = Head(config.hidden, classes, config.head_dropout, rngs=rngs)
        self.dtype = dtype

    def __call__(self, pooled: PooledVectors, *, train: bool, key: PRNGKey | None) -> FusionOutput:
        """Computes the logits from the common and the private features of both modalities.

        Args:
          pooled: `audio` [b n d_a] and `video` [b n d_v], the vectors of the entire clip at index 0 (others
            are not used); and their masks `audio_mask` and `video_mask` [b n], False where the modality is
            absent (its vector is zero).
          train: whether dropout acts and running statistics are updated.
          key: random key of the dropout; may be None if `train` is False.

        Returns:
          A FusionOutput: `logits` [b c] of the c classes; `embedding` [b e], the hidden layer of width e =
          `config.hidden`; and the dict `aux` with the common features `audio_common` and `video_common`
          [b 1 d] of width d = `config.width`; their masks `audio_common_mask` and `video_common_mask` [b 1],
          False for an absent modality; their covariances `audio_covariance` and `video_covariance` [d d]
          (only if `ema` > 0); the cosine `correlation` [b] of the two common features after their running
          means are subtracted, 0 if a modality is absent; and the private features `audio_private` and
          `video_private` [b 1 d].

        Raises:
          ValueError: if `train` is True but `key` is None, a dropout rate is not in [0, 1), or the network
            has no encoder of one of the modalities.
        """
        # b 1 d_a, b 1, b 1 d_v, b 1
        audio, audio_mask, video, video_mask = (x[:, :1] for x in pooled.of_both_modalities())
        f_a, f_v, aux = self.common(audio, audio_mask, video, video_mask, train=train)
        p_a = jnp.where(audio_mask[..., None], at_least_float32(self.audio_private(audio)), 0.0)
        p_v = jnp.where(video_mask[..., None], at_least_float32(self.video_private(video)), 0.0)
        features = jnp.concatenate([f_a, f_v, p_a, p_v], axis=-1)[:, 0].astype(self.dtype)  # b 4d
        hidden = jax.nn.relu(self.hidden(features))
        aux |= {"audio_private": p_a, "video_private": p_v}
        return FusionOutput(self.head(hidden, train=train, key=key), hidden, aux)
