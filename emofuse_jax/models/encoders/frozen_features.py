"""Encoders of features that a frozen network computed (data_prep/onnx_models/encoders.py).

Each feature vector passes one learned layer.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float
from ml_collections import ConfigDict

from emofuse_jax.models.interfaces import EncodedSequence, EncoderOutput
from emofuse_jax.models.layers.linear import linear
from emofuse_jax.types import Batch, InputSpec

ACTIVATIONS = {"tanh": jnp.tanh, "gelu": jax.nn.gelu}
FEATURE_ENCODER_DEFAULTS = {"embedding": 256, "activation": "tanh"}


class FeatureProjection(nnx.Module):
    """Learned layer `g(W norm(x) + b)`: layer norm (Ba et al., 2016, arXiv 1607.06450), g is tanh or GELU.

    Raises:
      ValueError: if `width` is 0, because the records contain no features, or `config.activation` is unknown.
    """

    def __init__(
        self, width: int, config: ConfigDict, modality: str, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> None:
        if not width:
            kind = "face" if modality == "video" else "audio"
            raise ValueError(
                f"config.model.{modality}.encoder: 'features', but the records contain no {kind} features;"
                f" prepare them again (emofuse prepare) with --{kind}_encoder and the path of an ONNX model,"
                " or set another encoder"
            )
        if config.activation not in ACTIVATIONS:
            raise ValueError(
                f"config.model.{modality}.activation: {config.activation!r}, expected one of"
                f" {', '.join(ACTIVATIONS)}"
            )
        self.norm = nnx.LayerNorm(width, dtype=jnp.float32, rngs=rngs)
        self.linear = linear(width, config.embedding, dtype, rngs=rngs)
        self.activate, self.dtype = ACTIVATIONS[config.activation], dtype

    def __call__(self, x: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b l e"]:
        """Returns `g(W norm(x) + b)`, of width e = `config.embedding`, for the l vectors of each clip.

        norm is layer norm, and g is `config.activation`. The result is zero where `mask` is False.
        """
        x = jnp.where(mask[..., None], x.astype(jnp.float32), 0.0)
        y = self.activate(self.linear(self.norm(x).astype(self.dtype)))
        return jnp.where(mask[..., None], y, 0)


class AudioFeatureEncoder(nnx.Module):
    """Sequence of the frozen audio encoder's features, with any number of steps.

    Raises:
      ValueError: if the records contain no audio features, or `config.activation` is unknown.
    """

    defaults = FEATURE_ENCODER_DEFAULTS
    small = {"embedding": 64, "attention_width": 64}
    reads = ("audio_features", "audio_features_mask")

    def __init__(self, config: ConfigDict, spec: InputSpec, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        self.projection = FeatureProjection(spec.audio_features, config, "audio", dtype, rngs=rngs)
        self.width = config.embedding

    def __call__(self, batch: Batch, *, train: bool) -> EncoderOutput:
        """Encodes `batch.audio_features` [b u d], u steps of features for each clip; `train` has no effect.

        Neither this field nor `batch.audio_features_mask` [b u] may be None.

        Returns:
          `sequence` and an empty dict `aux`. The sequence has `values` [b u e], one vector of width e =
          `config.embedding` per step, zero at masked steps; `mask` [b u], which is
          `batch.audio_features_mask`, True at valid steps; `time_index` [b u], the number of the step among
          the valid ones, from 0 (no meaning at masked steps); and `length` [b], the number of valid steps.
        """
        features, mask = batch.audio_features, batch.audio_features_mask
        assert features is not None  # the records contain what `reads` names
        assert mask is not None
        time_index, length = jnp.cumsum(mask, axis=1) - 1, jnp.sum(mask, axis=1)
        return EncoderOutput(EncodedSequence(self.projection(features, mask), mask, time_index, length), {})


class VideoFeatureEncoder(nnx.Module):
    """Sequence of the frozen face encoder's features, one position per frame.

    Raises:
      ValueError: if the records contain no face features, or `config.activation` is unknown.
    """

    defaults = FEATURE_ENCODER_DEFAULTS
    small = {"embedding": 64, "attention_width": 64}
    reads = ("face_features", "face_mask")

    def __init__(self, config: ConfigDict, spec: InputSpec, dtype: DTypeLike, *, rngs: nnx.Rngs) -> None:
        self.projection = FeatureProjection(spec.face_features, config, "video", dtype, rngs=rngs)
        self.width = config.embedding

    def __call__(self, batch: Batch, *, train: bool) -> EncoderOutput:
        """Encodes `batch.face_features` [b s d], one vector per frame, not None; `train` has no effect.

        Returns:
          `sequence` and an empty dict `aux`. The sequence has `values` [b s e], one vector of width e =
          `config.embedding` for each of the s frames, zero at frames without a face; `mask` [b s], which is
          `batch.face_mask`, True at frames with a face; `time_index` [b s], the number of the frame, from 0;
          and `length` [b], always s.
        """
        features, mask = batch.face_features, batch.face_mask
        assert features is not None  # the records contain what `reads` names
        b, s = mask.shape
        time_index = jnp.broadcast_to(jnp.arange(s), (b, s))
        return EncoderOutput(
            EncodedSequence(self.projection(features, mask), mask, time_index, jnp.full(b, s)), {}
        )
