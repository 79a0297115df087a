"""Encoders, attention and fusion, put together."""

import jax.numpy as jnp
from flax import nnx

from emofuse_jax.models.audio import AudioEncoder
from emofuse_jax.models.fusions.registry import FUSIONS
from emofuse_jax.models.streams import Streams, trunk_masks
from emofuse_jax.models.temporal import AdditiveAttention, make_attention
from emofuse_jax.models.video import VideoEncoder
from emofuse_jax.ops.normalize import standardize
from emofuse_jax.types import Batch, InputSpec, Outputs, PRNGKey

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


class Statistic(nnx.Variable):
    """A number per bin that is measured, not trained."""


class InputStatistics(nnx.Module):
    """Mean and standard deviation of the training clips, per frequency bin."""

    def __init__(self, bins: int):
        self.mean = Statistic(jnp.zeros(bins))
        self.std = Statistic(jnp.ones(bins))


class Network(nnx.Module):
    """Batch to Outputs, for the fusion that `config.fusion.name` names; builds only the encoders it uses.

    Raises ValueError, naming the field, for a config that has no meaning.
    """

    def __init__(self, config, spec: InputSpec, *, rngs: nnx.Rngs):
        if config.fusion.name not in FUSIONS:
            raise ValueError(f"fusion.name: {config.fusion.name!r}, expected one of {', '.join(FUSIONS)}")
        if config.dtype not in DTYPES:
            raise ValueError(f"dtype: {config.dtype!r}, expected one of {', '.join(DTYPES)}")
        self.dtype = DTYPES[config.dtype]
        self.parts = config.fusion.get("parts", 0)
        fusion = FUSIONS[config.fusion.name]
        self.modalities = fusion.modalities
        self.input = InputStatistics(spec.f)
        widths = {"audio": None, "video": None}
        if "audio" in self.modalities:
            self.audio = AudioEncoder(config.audio, spec.f, self.dtype, rngs=rngs)
            self.audio_attention = AdditiveAttention(self.audio.width, config.audio, self.dtype, rngs=rngs)
            widths["audio"] = self.audio_attention.width
        if "video" in self.modalities:
            self.video = VideoEncoder(config.video, (spec.h, spec.w), self.dtype, rngs=rngs)
            self.video_attention = make_attention(self.video.width, config.video, self.dtype, rngs=rngs)
            widths["video"] = self.video_attention.width
        self.fusion = fusion(*widths.values(), spec.classes, config.fusion, self.dtype, rngs=rngs)

    def __call__(self, batch: Batch, *, train: bool, key: PRNGKey | None) -> Outputs:
        """The network's answer; `key` turns dropout on."""
        audio = audio_ok = video = video_ok = None
        aux = {}
        if "audio" in self.modalities:
            audio, audio_ok, aux["audio_attention"] = self._listen(batch, train)
        if "video" in self.modalities:
            video, video_ok, aux["video_attention"] = self._look(batch, train)
        fused = self.fusion(Streams(audio, audio_ok, video, video_ok), key)
        return Outputs(
            logits=fused.logits,
            embedding=fused.embedding,
            audio_vector=None if audio is None else audio[:, 0],
            video_vector=None if video is None else video[:, 0],
            aux=aux | fused.aux,
        )

    def _listen(self, batch, train):
        audio = standardize(batch.audio, self.input.mean[...], self.input.std[...])
        audio = jnp.where(batch.audio_mask[..., None], audio, 0.0).astype(self.dtype)
        sequence = self.audio(audio, batch.audio_mask, train=train)
        masks = trunk_masks(sequence, self.parts)
        vectors, weights = self.audio_attention(sequence.values, masks)  # b n d, b n l
        return vectors, masks.any(axis=-1), self.audio.attention_map(weights[:, 0])

    def _look(self, batch, train):
        sequence = self.video(batch.faces, batch.face_mask, train=train)
        masks = trunk_masks(sequence, self.parts)
        vectors, weights = self.video_attention(sequence.values, masks)  # b n d, b n s
        return vectors, masks.any(axis=-1), weights[:, 0]
