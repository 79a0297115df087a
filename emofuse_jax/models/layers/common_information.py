"""Heads whose features are correlated by soft-HGR, and the label network.

Reference: Common Information (Ma et al., 2020, Appl. Sci. 10(20), 7239).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from emofuse_jax.models.layers.linear import linear, scaled_uniform
from emofuse_jax.models.layers.measured_state import MeasuredState
from emofuse_jax.ops.hgr import correct_ema_bias, moving_covariance
from emofuse_jax.ops.masking import masked_mean
from emofuse_jax.ops.normalize import at_least_float32, l2_normalize

MEAN_MOMENTUM = 0.9
"""Momentum of the running mean, as in the batch norms of the encoders."""


class CommonHead(nnx.Module):
    """Linear layer that measures the running mean of its features and, if `ema` > 0, their covariance.

    Raises:
      ValueError: if `ema` is outside [0, 1).
    """

    def __init__(self, in_features: int, width: int, ema: float, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        if not 0.0 <= ema < 1.0:
            raise ValueError(f"config.model.fusion.ema: {ema}, expected a number in [0, 1)")
        self.linear = linear(in_features, width, dtype, rngs=rngs)
        self.mean = MeasuredState(jnp.zeros(width))
        self.ema = ema
        if ema:
            self.products = MeasuredState(jnp.zeros((width, width)))
            self.batches = MeasuredState(jnp.zeros(()))

    def __call__(
        self, x: Float[Array, "b l i"], mask: Bool[Array, "b l"], *, train: bool
    ) -> tuple[Float[Array, "b l d"], Float[Array, "d d"] | None]:
        """Computes the features, and updates the running statistics if `train`.

        `x` has l segments of width i for each clip; `mask` is True at valid segments.

        Returns:
          `(features, covariance)`: the features of width d in at least float32, zero at masked segments, and
          their covariance as a moving average over the batches with the decay `ema`, or None if `ema` is 0.
        """
        features = jnp.where(mask[..., None], at_least_float32(self.linear(x)), 0.0)
        rows, row_mask = features.reshape(-1, features.shape[-1]), mask.reshape(-1)  # b l d -> b*l d
        if train:
            updated_mean = MEAN_MOMENTUM * self.mean[...] + (1 - MEAN_MOMENTUM) * masked_mean(rows, row_mask)
            self.mean[...] = jax.lax.stop_gradient(jnp.where(jnp.any(row_mask), updated_mean, self.mean[...]))
        return features, self._running_covariance(rows, row_mask, train) if self.ema else None

    def _running_covariance(
        self, rows: Float[Array, "n d"], row_mask: Bool[Array, " n"], train: bool
    ) -> Float[Array, "d d"]:
        products, batches = self.products[...], self.batches[...]
        if not train:
            return correct_ema_bias(products, batches, decay=self.ema)
        covariance, self.products[...], self.batches[...] = moving_covariance(
            rows, row_mask.astype(rows.dtype), products, batches, decay=self.ema
        )
        return covariance

    def normalize_features(self, features: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        """Returns features minus their running mean, each scaled to length 1."""
        return l2_normalize(features - self.mean[...])


class CommonHeadPair(nnx.Module):
    """Common heads of audio and video, with the outputs that the objective `correlation` needs."""

    def __init__(self, d_a: int, d_v: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
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
        """Computes the common features of both modalities, and updates their running statistics if `train`.

        The inputs are the l segments of each clip, of widths d_a and d_v; the masks are True at segments with
        the modality.

        Returns:
          `(audio, video, aux)`: the features of both modalities for the l segments, of width d =
          `config.width`, zero where their mask is False, and a dict with `audio_common`, `video_common` (the
          features), `audio_common_mask`, `video_common_mask` (the masks), `audio_covariance` and
          `video_covariance` [d d] (only if `ema` > 0), and `correlation` [b]: the mean cosine of the two
          features over the segments of each clip that have both modalities, after their running means are
          subtracted; 0 if there is none.
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
            assert c_g is not None  # both have the same `ema`
            aux |= {"audio_covariance": c_f, "video_covariance": c_g}
        return f, g, aux


class LabelNetwork(nnx.Module):
    """Features of every class, `h(y) = W relu(e_y) + b`, as a table: the network does not read the labels."""

    def __init__(self, classes: int, hidden: int, width: int, *, rngs: nnx.Rngs) -> None:
        init = scaled_uniform(float(classes))  # gives each entry variance 1
        self.embedding = nnx.Param(init(rngs.params(), (classes, hidden)))
        self.linear = linear(hidden, width, jnp.float32, rngs=rngs)

    def __call__(self) -> Float[Array, "c d"]:
        """Returns the table of features: one row of width d for each class."""
        return self.linear(jax.nn.relu(self.embedding[...]))
