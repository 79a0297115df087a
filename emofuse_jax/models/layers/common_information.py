"""Heads whose features soft-HGR pulls together, and the label network.

Reference: Ma et al., Appl. Sci. 2020, 10(20), 7239.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from emofuse_jax.models.layers.linear import linear, scaled_uniform
from emofuse_jax.models.layers.measured_state import MeasuredState
from emofuse_jax.ops.hgr import correct_ema_bias, moving_covariance
from emofuse_jax.ops.masking import masked_mean
from emofuse_jax.ops.normalize import at_least_float32, l2_normalize

MEAN_MOMENTUM = 0.9
"""Of the running mean, as in the encoders' batch norms."""


class CommonHead(nnx.Module):
    """A linear layer, the running mean of its features, and with `ema` > 0 their running covariance."""

    def __init__(self, in_features: int, width: int, ema: float, dtype, *, rngs: nnx.Rngs):
        if not 0.0 <= ema < 1.0:
            raise ValueError(f"fusion.ema: {ema}, expected a number in [0, 1)")
        self.linear = linear(in_features, width, dtype, rngs=rngs)
        self.mean = MeasuredState(jnp.zeros(width))
        self.ema = ema
        if ema:
            self.products = MeasuredState(jnp.zeros((width, width)))
            self.batches = MeasuredState(jnp.zeros(()))

    def __call__(
        self, x: Float[Array, "b l i"], mask: Bool[Array, "b l"], *, train: bool
    ) -> tuple[Float[Array, "b l d"], Float[Array, "d d"] | None]:
        """Features in float32, zero where not `mask`, and with `ema` the covariance of many batches."""
        features = jnp.where(mask[..., None], at_least_float32(self.linear(x)), 0.0)
        rows, row_mask = features.reshape(-1, features.shape[-1]), mask.reshape(-1)  # b l d -> b*l d
        if train:
            updated_mean = MEAN_MOMENTUM * self.mean[...] + (1 - MEAN_MOMENTUM) * masked_mean(rows, row_mask)
            self.mean[...] = jax.lax.stop_gradient(jnp.where(jnp.any(row_mask), updated_mean, self.mean[...]))
        return features, self._running_covariance(rows, row_mask, train) if self.ema else None

    def _running_covariance(self, rows, row_mask, train):
        state = self.products[...], self.batches[...]
        if not train:
            return correct_ema_bias(*state, decay=self.ema)
        covariance, *state = moving_covariance(rows, row_mask.astype(rows.dtype), *state, decay=self.ema)
        self.products[...], self.batches[...] = state
        return covariance

    def normalize_features(self, features: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        """Features less their running mean, at length 1."""
        return l2_normalize(features - self.mean[...])


class CommonHeadPair(nnx.Module):
    """Common heads of sound and faces, and what the objective `correlation` needs of them."""

    def __init__(self, d_a: int, d_v: int, config, dtype, *, rngs: nnx.Rngs):
        self.audio = CommonHead(d_a, config.width, config.ema, dtype, rngs=rngs)
        self.video = CommonHead(d_v, config.width, config.ema, dtype, rngs=rngs)

    def __call__(
        self,
        audio: Float[Array, "b l d_a"],
        audio_mask: Bool[Array, "b l"],
        video: Float[Array, "b l d_v"],
        video_mask: Bool[Array, "b l"],
        *,
        train: bool,
    ) -> tuple[Float[Array, "b l d"], Float[Array, "b l d"], dict[str, Array]]:
        """Both features, and `aux`: they, their masks, covariances with `ema`, and `correlation` [b].

        `correlation` is the clip's mean cosine of the two features, each less its running mean.
        """
        f, c_f = self.audio(audio, audio_mask, train=train)
        g, c_g = self.video(video, video_mask, train=train)
        cosine = jnp.sum(
            self.audio.normalize_features(f) * self.video.normalize_features(g), axis=-1, keepdims=True
        )
        aux = {
            "audio_common": f,
            "audio_common_mask": audio_mask,
            "video_common": g,
            "video_common_mask": video_mask,
            "correlation": masked_mean(cosine, audio_mask & video_mask)[:, 0],
        }
        if c_f is not None:
            aux |= {"audio_covariance": c_f, "video_covariance": c_g}
        return f, g, aux


class LabelNetwork(nnx.Module):
    """`h(y) = W relu(e_y) + b` for every class: a table, so that no label enters the network."""

    def __init__(self, classes: int, hidden: int, width: int, *, rngs: nnx.Rngs):
        init = scaled_uniform(float(classes))  # each entry of variance 1
        self.embedding = nnx.Param(init(rngs.params(), (classes, hidden)))
        self.linear = linear(hidden, width, jnp.float32, rngs=rngs)

    def __call__(self) -> Float[Array, "c d"]:
        """The features of every class."""
        return self.linear(jax.nn.relu(self.embedding[...]))
