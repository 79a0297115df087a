"""Encoders, attention and fusion, put together."""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from emofuse_jax.models.interfaces import EncodedSequences, PooledVectors, trunk_masks
from emofuse_jax.models.layers.attention_pooling import make_attention
from emofuse_jax.models.layers.margins import ClassRelations
from emofuse_jax.models.layers.measured_state import MeasuredState
from emofuse_jax.models.registry import (
    AUDIO_ENCODERS,
    FUSIONS,
    INPUT_FIELDS,
    VIDEO_ENCODERS,
    encoder_input_fields,
    get_encoder_class,
)
from emofuse_jax.ops.masking import masked_mean
from emofuse_jax.ops.normalize import standardize
from emofuse_jax.types import Batch, InputSpec, Outputs, PRNGKey

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
MODALITIES = ("audio", "video")
ENCODERS = {"audio": AUDIO_ENCODERS, "video": VIDEO_ENCODERS}


def network_input_fields(config, spec: InputSpec) -> tuple[str, ...]:
    """Fields of the batch that a network reads; of a modality that it leaves out, the tensors."""
    fields = []
    for modality, size in zip(MODALITIES, (spec.t, spec.h), strict=True):
        if modality in FUSIONS[config.fusion.name].modalities:
            encoder = get_encoder_class(ENCODERS[modality], config[modality].encoder, f"{modality}.encoder")
            fields += encoder_input_fields(encoder, modality, spec)
        elif size:
            fields += INPUT_FIELDS[modality]
    return tuple(fields)


class InputStatistics(nnx.Module):
    """Mean and standard deviation of the training clips, per frequency bin."""

    def __init__(self, bins: int):
        self.mean = MeasuredState(jnp.zeros(bins))
        self.std = MeasuredState(jnp.ones(bins))


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
        self.trunk_count = config.fusion.get("parts", 0)
        fusion = FUSIONS[config.fusion.name]
        self.modalities, self.should_pool = fusion.modalities, fusion.takes == "vectors"
        self.input = InputStatistics(spec.f)
        widths = {"audio": None, "video": None}
        for modality in self.modalities:
            encoder_config = config[modality]
            encoder = get_encoder_class(ENCODERS[modality], encoder_config.encoder, f"{modality}.encoder")
            encoder_input_fields(encoder, modality, spec)
            setattr(self, modality, encoder(encoder_config, spec, self.dtype, rngs=rngs))
            widths[modality] = getattr(self, modality).width
            if self.should_pool:
                attention = make_attention(modality, widths[modality], encoder_config, self.dtype, rngs=rngs)
                setattr(self, f"{modality}_attention", attention)
                widths[modality] = attention.width
        self.fusion = fusion(*widths.values(), spec.classes, config.fusion, self.dtype, rngs=rngs)
        self.relations = ClassRelations(config, spec.classes)

    def __call__(self, batch: Batch, *, train: bool, key: PRNGKey | None) -> Outputs:
        """The network's answer; `key` turns dropout on."""
        audio = standardize(batch.audio, self.input.mean[...], self.input.std[...])
        audio = jnp.where(batch.audio_mask[..., None], audio, 0.0).astype(self.dtype)
        batch = dataclasses.replace(batch, audio=audio)
        sequences, aux = dict.fromkeys(MODALITIES), self.relations()
        for modality in self.modalities:
            sequences[modality], encoder_aux = getattr(self, modality)(batch, train=train)
            aux |= {f"{modality}_{key}": value for key, value in encoder_aux.items()}
        fuse = self._fuse_vectors if self.should_pool else self._fuse_sequences
        return fuse(sequences, aux, key)

    def _fuse_vectors(self, sequences, aux, key):
        vectors, vector_masks = dict.fromkeys(MODALITIES), dict.fromkeys(MODALITIES)
        for modality in self.modalities:
            encoder, attention = getattr(self, modality), getattr(self, f"{modality}_attention")
            masks = trunk_masks(sequences[modality], self.trunk_count)
            vectors[modality], weights = attention(sequences[modality].values, masks)  # b n d, b n l
            vector_masks[modality] = masks.any(axis=-1)
            aux[f"{modality}_attention"] = _reshape_attention(encoder, weights[:, 0])
        pooled_vectors = PooledVectors(
            vectors["audio"], vector_masks["audio"], vectors["video"], vector_masks["video"]
        )
        clip_vectors = {modality: v if v is None else v[:, 0] for modality, v in vectors.items()}
        return _make_outputs(self.fusion(pooled_vectors, key), clip_vectors, aux)

    def _fuse_sequences(self, sequences, aux, key):
        clip_vectors = {
            modality_name: sequence if sequence is None else masked_mean(sequence.values, sequence.mask)
            for modality_name, sequence in sequences.items()
        }
        fusion_output = self.fusion(EncodedSequences(**sequences), key)
        for modality in self.modalities:  # positions of an encoder, as in `_fuse_vectors`
            for key in (key for key in fusion_output.aux if key.endswith(f"{modality}_attention")):
                fusion_output.aux[key] = _reshape_attention(getattr(self, modality), fusion_output.aux[key])
        return _make_outputs(fusion_output, clip_vectors, aux)


def _reshape_attention(encoder, weights: Float[Array, "... l"]) -> Float[Array, "..."]:
    """Attention over an encoder's positions in the shape that a picture needs."""
    return getattr(encoder, "attention_map", lambda unchanged: unchanged)(weights)


def _make_outputs(fusion_output, clip_vectors: dict, aux: dict) -> Outputs:
    return Outputs(
        logits=fusion_output.logits,
        embedding=fusion_output.embedding,
        audio_vector=clip_vectors["audio"],
        video_vector=clip_vectors["video"],
        aux=aux | fusion_output.aux,
    )
