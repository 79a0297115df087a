"""Heads whose features soft-HGR pulls together, and the label network (P3)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from emofuse_jax.models.layers.linear import linear, scaled_uniform
from emofuse_jax.models.layers.measured_state import Statistic
from emofuse_jax.ops.hgr import corrected, moving_covariance
from emofuse_jax.ops.masking import masked_mean
from emofuse_jax.ops.normalize import l2_normalize, promote

MOMENTUM = 0.9
"""Of the running mean, as in the encoders' batch norms."""


class CommonHead(nnx.Module):
    """A linear layer, the running mean of its features, and with `ema` > 0 their running covariance."""

    def __init__(self, inputs: int, width: int, ema: float, dtype, *, rngs: nnx.Rngs):
        if not 0.0 <= ema < 1.0:
            raise ValueError(f"fusion.ema: {ema}, expected a number in [0, 1)")
        self.linear = linear(inputs, width, dtype, rngs=rngs)
        self.mean = Statistic(jnp.zeros(width))
        self.ema = ema
        if ema:
            self.products = Statistic(jnp.zeros((width, width)))
            self.batches = Statistic(jnp.zeros(()))

    def __call__(
        self, x: Float[Array, "b l i"], ok: Bool[Array, "b l"], *, train: bool
    ) -> tuple[Float[Array, "b l d"], Float[Array, "d d"] | None]:
        """Features in float32, zero where not `ok`, and with `ema` the covariance of many batches."""
        features = jnp.where(ok[..., None], promote(self.linear(x)), 0.0)
        rows, counted = features.reshape(-1, features.shape[-1]), ok.reshape(-1)  # b l d -> b*l d
        if train:
            moved = MOMENTUM * self.mean[...] + (1 - MOMENTUM) * masked_mean(rows, counted)
            self.mean[...] = jax.lax.stop_gradient(jnp.where(jnp.any(counted), moved, self.mean[...]))
        return features, self._covariance(rows, counted, train) if self.ema else None

    def _covariance(self, rows, counted, train):
        state = self.products[...], self.batches[...]
        if not train:
            return corrected(*state, decay=self.ema)
        value, *state = moving_covariance(rows, counted.astype(rows.dtype), *state, decay=self.ema)
        self.products[...], self.batches[...] = state
        return value

    def directions(self, features: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        """Features less their running mean, at length 1."""
        return l2_normalize(features - self.mean[...])


class CommonPair(nnx.Module):
    """Common heads of sound and faces, and what the objective `correlation` needs of them."""

    def __init__(self, d_a: int, d_v: int, config, dtype, *, rngs: nnx.Rngs):
        self.audio = CommonHead(d_a, config.width, config.ema, dtype, rngs=rngs)
        self.video = CommonHead(d_v, config.width, config.ema, dtype, rngs=rngs)

    def __call__(
        self,
        audio: Float[Array, "b l d_a"],
        audio_ok: Bool[Array, "b l"],
        video: Float[Array, "b l d_v"],
        video_ok: Bool[Array, "b l"],
        *,
        train: bool,
    ) -> tuple[Float[Array, "b l d"], Float[Array, "b l d"], dict[str, Array]]:
        """Both features, and `aux`: they, their masks, covariances with `ema`, and `correlation` [b].

        `correlation` is the clip's mean cosine of the two features, each less its running mean.
        """
        f, c_f = self.audio(audio, audio_ok, train=train)
        g, c_g = self.video(video, video_ok, train=train)
        cosine = jnp.sum(self.audio.directions(f) * self.video.directions(g), axis=-1, keepdims=True)
        aux = {
            "audio_common": f,
            "audio_common_mask": audio_ok,
            "video_common": g,
            "video_common_mask": video_ok,
            "correlation": masked_mean(cosine, audio_ok & video_ok)[:, 0],
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
