"""Encoders, attention and fusion, put together."""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from emofuse_jax.models.interfaces import Sequences, Streams, trunk_masks
from emofuse_jax.models.layers.attention_pooling import make_attention
from emofuse_jax.models.layers.margins import Relations
from emofuse_jax.models.layers.measured_state import Statistic
from emofuse_jax.models.registry import AUDIO_ENCODERS, FUSIONS, TENSORS, VIDEO_ENCODERS, encoder_class, reads
from emofuse_jax.ops.masking import masked_mean
from emofuse_jax.ops.normalize import standardize
from emofuse_jax.types import Batch, InputSpec, Outputs, PRNGKey

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
MODALITIES = ("audio", "video")
ENCODERS = {"audio": AUDIO_ENCODERS, "video": VIDEO_ENCODERS}


def input_names(config, spec: InputSpec) -> tuple[str, ...]:
    """Fields of the batch that a network reads; of a modality that it leaves out, the tensors."""
    names = []
    for modality, held in zip(MODALITIES, (spec.t, spec.h), strict=True):
        if modality in FUSIONS[config.fusion.name].modalities:
            encoder = encoder_class(ENCODERS[modality], config[modality].encoder, f"{modality}.encoder")
            names += reads(encoder, modality, spec)
        elif held:
            names += TENSORS[modality]
    return tuple(names)


class InputStatistics(nnx.Module):
    """Mean and standard deviation of the training clips, per frequency bin."""

    def __init__(self, bins: int):
        self.mean = Statistic(jnp.zeros(bins))
        self.std = Statistic(jnp.ones(bins))


class Network(nnx.Module):
    """Batch to Outputs, for the fusion that `config.fusion.name` names; builds only the encoders it uses.

    A fusion that takes `sequences` gets the encoders' positions; one that takes `vectors` gets them pooled by
    attention. Raises ValueError, naming the field, for a config that has no meaning.
    """

    def __init__(self, config, spec: InputSpec, *, rngs: nnx.Rngs):
        if config.fusion.name not in FUSIONS:
            raise ValueError(f"fusion.name: {config.fusion.name!r}, expected one of {', '.join(FUSIONS)}")
        if config.dtype not in DTYPES:
            raise ValueError(f"dtype: {config.dtype!r}, expected one of {', '.join(DTYPES)}")
        self.dtype = DTYPES[config.dtype]
        self.parts = config.fusion.get("parts", 0)
        fusion = FUSIONS[config.fusion.name]
        self.modalities, self.pools = fusion.modalities, fusion.takes == "vectors"
        self.input = InputStatistics(spec.f)
        widths = {"audio": None, "video": None}
        for name in self.modalities:
            part = config[name]
            encoder = encoder_class(ENCODERS[name], part.encoder, f"{name}.encoder")
            reads(encoder, name, spec)
            setattr(self, name, encoder(part, spec, self.dtype, rngs=rngs))
            widths[name] = getattr(self, name).width
            if self.pools:
                attention = make_attention(name, widths[name], part, self.dtype, rngs=rngs)
                setattr(self, f"{name}_attention", attention)
                widths[name] = attention.width
        self.fusion = fusion(*widths.values(), spec.classes, config.fusion, self.dtype, rngs=rngs)
        self.relations = Relations(config, spec.classes)

    def __call__(self, batch: Batch, *, train: bool, key: PRNGKey | None) -> Outputs:
        """The network's answer; `key` turns dropout on."""
        audio = standardize(batch.audio, self.input.mean[...], self.input.std[...])
        audio = jnp.where(batch.audio_mask[..., None], audio, 0.0).astype(self.dtype)
        batch = dataclasses.replace(batch, audio=audio)
        sequences, aux = dict.fromkeys(MODALITIES), self.relations()
        for name in self.modalities:
            sequences[name], own = getattr(self, name)(batch, train=train)
            aux |= {f"{name}_{key}": value for key, value in own.items()}
        fuse = self._fuse_vectors if self.pools else self._fuse_sequences
        return fuse(sequences, aux, key)

    def _fuse_vectors(self, sequences, aux, key):
        vectors, ok = dict.fromkeys(MODALITIES), dict.fromkeys(MODALITIES)
        for name in self.modalities:
            encoder, attention = getattr(self, name), getattr(self, f"{name}_attention")
            masks = trunk_masks(sequences[name], self.parts)
            vectors[name], weights = attention(sequences[name].values, masks)  # b n d, b n l
            ok[name] = masks.any(axis=-1)
            aux[f"{name}_attention"] = _picture(encoder, weights[:, 0])
        streams = Streams(vectors["audio"], ok["audio"], vectors["video"], ok["video"])
        pooled = {name: v if v is None else v[:, 0] for name, v in vectors.items()}
        return _outputs(self.fusion(streams, key), pooled, aux)

    def _fuse_sequences(self, sequences, aux, key):
        pooled = {k: q if q is None else masked_mean(q.values, q.mask) for k, q in sequences.items()}
        fused = self.fusion(Sequences(**sequences), key)
        for name in self.modalities:  # positions of an encoder, as in `_fuse_vectors`
            for key in (key for key in fused.aux if key.endswith(f"{name}_attention")):
                fused.aux[key] = _picture(getattr(self, name), fused.aux[key])
        return _outputs(fused, pooled, aux)


def _picture(encoder, weights: Float[Array, "... l"]) -> Float[Array, "..."]:
    """Attention over an encoder's positions in the shape that a picture needs."""
    return getattr(encoder, "attention_map", lambda whole: whole)(weights)


def _outputs(fused, pooled: dict, aux: dict) -> Outputs:
    return Outputs(
        logits=fused.logits,
        embedding=fused.embedding,
        audio_vector=pooled["audio"],
        video_vector=pooled["video"],
        aux=aux | fused.aux,
    )
