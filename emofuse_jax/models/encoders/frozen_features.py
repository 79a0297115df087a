"""Encoders of vectors that a frozen network gave (data_prep/onnx_models/encoders.py): one learned layer on
each."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from emofuse_jax.models.interfaces import EncodedSequence, EncoderOutput
from emofuse_jax.models.layers.linear import linear
from emofuse_jax.types import Batch, InputSpec

ACTIVATIONS = {"tanh": jnp.tanh, "gelu": jax.nn.gelu}
FEATURE_ENCODER_DEFAULTS = {"embedding": 256, "activation": "tanh"}


class FeatureProjection(nnx.Module):
    """`g(W norm(x) + b)`, norm that of a layer (Ba et al., arXiv 1607.06450), g tanh or GELU."""

    def __init__(self, width: int, config, modality: str, dtype, *, rngs: nnx.Rngs):
        if not width:
            raise ValueError(
                f"{modality}.encoder: 'features', but the records hold none: prepare them with"
                f" --{'face' if modality == 'video' else 'audio'}_encoder=model.onnx"
            )
        if config.activation not in ACTIVATIONS:
            raise ValueError(
                f"{modality}.activation: {config.activation!r}, expected one of {', '.join(ACTIVATIONS)}"
            )
        self.norm = nnx.LayerNorm(width, dtype=jnp.float32, rngs=rngs)
        self.linear = linear(width, config.embedding, dtype, rngs=rngs)
        self.activate, self.dtype = ACTIVATIONS[config.activation], dtype

    def __call__(self, x: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b l e"]:
        """Each vector by itself; zero where masked."""
        x = jnp.where(mask[..., None], x.astype(jnp.float32), 0.0)
        y = self.activate(self.linear(self.norm(x).astype(self.dtype)))
        return jnp.where(mask[..., None], y, 0)


class AudioFeatureEncoder(nnx.Module):
    """A frozen audio encoder's vectors as a sequence; any number of steps."""

    defaults = FEATURE_ENCODER_DEFAULTS
    small = {"embedding": 64, "attention_width": 64}
    reads = ("audio_features", "audio_features_mask")

    def __init__(self, config, spec: InputSpec, dtype, *, rngs: nnx.Rngs):
        self.projection = FeatureProjection(spec.audio_features, config, "audio", dtype, rngs=rngs)
        self.width = config.embedding

    def __call__(self, batch: Batch, *, train: bool) -> EncoderOutput:
        """Positions count over the clip's valid steps."""
        mask = batch.audio_features_mask
        time_index, length = jnp.cumsum(mask, axis=1) - 1, jnp.sum(mask, axis=1)
        return EncoderOutput(
            EncodedSequence(self.projection(batch.audio_features, mask), mask, time_index, length), {}
        )


class VideoFeatureEncoder(nnx.Module):
    """A frozen face encoder's vectors as a sequence, one a frame."""

    defaults = FEATURE_ENCODER_DEFAULTS
    small = {"embedding": 64, "attention_width": 64}
    reads = ("face_features", "face_mask")

    def __init__(self, config, spec: InputSpec, dtype, *, rngs: nnx.Rngs):
        self.projection = FeatureProjection(spec.face_features, config, "video", dtype, rngs=rngs)
        self.width = config.embedding

    def __call__(self, batch: Batch, *, train: bool) -> EncoderOutput:
        """Positions are the frames, valid or not."""
        mask = batch.face_mask
        b, s = mask.shape
        time_index = jnp.broadcast_to(jnp.arange(s), (b, s))
        return EncoderOutput(
            EncodedSequence(self.projection(batch.face_features, mask), mask, time_index, jnp.full(b, s)), {}
        )
