"""Common and specific features of both streams (EMOdal)."""

import jax
import jax.numpy as jnp
from flax import nnx

from emofuse_jax.models.interfaces import FusionOutput, PooledVectors
from emofuse_jax.models.layers.common_information import CommonHeadPair
from emofuse_jax.models.layers.head import Head
from emofuse_jax.models.layers.linear import linear
from emofuse_jax.ops.normalize import at_least_float32
from emofuse_jax.types import PRNGKey


class CommonAndPrivate(nnx.Module):
    """`W_2 relu(W_1 [f_a; f_v; p_a; p_v])`: common features f and private p, linear in the pooled vectors.

    The objective `correlation` pulls f_a and f_v together by soft-HGR, `orthogonality` pushes p_m away from
    f_m, and p_a from p_v. A batch has one row a clip here, mostly fewer than 4 `width`, so the covariances
    are those of many batches (`ema`). An absent modality is zero.
    """

    modalities = ("audio", "video")
    takes = "vectors"
    defaults = {"width": 64, "hidden": 128, "head_dropout": 0.5, "ema": 0.9}
    small = {"width": 16, "hidden": 64}

    def __init__(self, d_a: int, d_v: int, classes: int, config, dtype, *, rngs: nnx.Rngs):
        self.common = CommonHeadPair(d_a, d_v, config, dtype, rngs=rngs)
        self.audio_private = linear(d_a, config.width, dtype, rngs=rngs)
        self.video_private = linear(d_v, config.width, dtype, rngs=rngs)
        self.hidden = linear(4 * config.width, config.hidden, dtype, rngs=rngs)
        self.head = Head(config.hidden, classes, config.head_dropout, rngs=rngs)
        self.dtype = dtype

    def __call__(self, pooled: PooledVectors, key: PRNGKey | None) -> FusionOutput:
        """Logits from all four features; a clip is one segment in `aux`."""
        audio, audio_mask = pooled.audio[:, :1], pooled.audio_ok[:, :1]  # b 1 d_a, b 1
        video, video_mask = pooled.video[:, :1], pooled.video_ok[:, :1]
        f_a, f_v, aux = self.common(audio, audio_mask, video, video_mask, train=key is not None)
        p_a = jnp.where(audio_mask[..., None], at_least_float32(self.audio_private(audio)), 0.0)
        p_v = jnp.where(video_mask[..., None], at_least_float32(self.video_private(video)), 0.0)
        features = jnp.concatenate([f_a, f_v, p_a, p_v], axis=-1)[:, 0].astype(self.dtype)  # b 4d
        hidden = jax.nn.relu(self.hidden(features))
        aux |= {"audio_private": p_a, "video_private": p_v}
        return FusionOutput(self.head(hidden, key), hidden, aux)
