"""The complete network: encoders, attention pooling and fusion."""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from emofuse_jax.models.batch_checks import check_fusion_output
from emofuse_jax.models.interfaces import (
    EncodedSequence,
    EncodedSequences,
    Encoder,
    FusionOutput,
    PooledVectors,
    trunk_masks,
)
from emofuse_jax.models.layers.attention_pooling import make_attention
from emofuse_jax.models.layers.margins import ClassRelations
from emofuse_jax.models.layers.measured_state import MeasuredState
from emofuse_jax.models.registry import (
    ENCODERS,
    FUSIONS,
    INPUT_FIELDS,
    MODALITIES,
    count_trunks,
    encoder_input_fields,
)
from emofuse_jax.ops.masking import masked_mean
from emofuse_jax.ops.normalize import standardize
from emofuse_jax.types import Batch, InputSpec, Outputs, PRNGKey

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def network_input_fields(config: ConfigDict, spec: InputSpec) -> tuple[str, ...]:
    """Returns the names of the Batch fields that scoring passes to a network: those of audio, then of video.

    For a modality that the fusion uses, these are the fields that its encoder reads. For the other one, they
    are its tensors (`audio`, `audio_mask` or `faces`, `face_mask`) if the records contain them.

    Args:
      config: `config.model` of an experiment.
      spec: shape of one clip of the records; `t` and `h` are 0 if they contain no spectrograms or faces.

    Raises:
      KeyError: if there is no fusion with the name `config.fusion.name`.
      ValueError: if an encoder is unknown or reads spectrograms or faces that the records do not contain, or
        an installed package provides it or the fusion, but it can't be imported or is not a valid class.
    """
    fields: list[str] = []
    for modality, size in zip(MODALITIES, (spec.t, spec.h), strict=True):
        if modality in FUSIONS[config.fusion.name].modalities:
            encoder = ENCODERS[modality].require(config[modality].encoder, f"config.model.{modality}.encoder")
            fields += encoder_input_fields(encoder, modality, spec)
        elif size:
            fields += INPUT_FIELDS[modality]
    return tuple(fields)


class InputStatistics(nnx.Module):
    """Mean and standard deviation of the training clips for each frequency bin."""

    def __init__(self, bins: int) -> None:
        self.mean = MeasuredState(jnp.zeros(bins))
        self.std = MeasuredState(jnp.ones(bins))


class Network(nnx.Module):
    """Network from a Batch to Outputs, with the fusion `config.fusion.name` and only the encoders it uses.

    A fusion that takes `sequences` gets the positions of the encoders; one that takes `vectors` gets vectors
    that attention has pooled from them.

    Raises:
      ValueError: if a field of `config` (config.model) has a value that is not possible, or the records do
        not contain the fields that an encoder needs; the message names the field.
    """

    def __init__(self, config: ConfigDict, spec: InputSpec, *, rngs: nnx.Rngs) -> None:
        fusion = FUSIONS.require(config.fusion.name, "config.model.fusion.name")
        if config.dtype not in DTYPES:
            raise ValueError(f"config.model.dtype: {config.dtype!r}, expected one of {', '.join(DTYPES)}")
        self.dtype = DTYPES[config.dtype]
        self.trunk_count = count_trunks(config.fusion)
        self.modalities, self.should_pool = fusion.modalities, fusion.takes == "vectors"
        self.input = InputStatistics(spec.f)
        widths = {"audio": 0, "video": 0}
        for modality in self.modalities:
            encoder_config = config[modality]
            encoder = ENCODERS[modality].require(encoder_config.encoder, f"config.model.{modality}.encoder")
            encoder_input_fields(encoder, modality, spec)
            setattr(self, modality, encoder(encoder_config, spec, self.dtype, rngs=rngs))
            widths[modality] = getattr(self, modality).width
            if self.should_pool:
                attention = make_attention(modality, widths[modality], encoder_config, self.dtype, rngs=rngs)
                setattr(self, f"{modality}_attention", attention)
                widths[modality] = attention.width
        self.fusion = fusion(
            widths["audio"], widths["video"], spec.classes, config.fusion, self.dtype, rngs=rngs
        )
        self.relations = ClassRelations(config, spec.classes)
        self.classes = spec.classes

    def __call__(self, batch: Batch, *, train: bool, key: PRNGKey | None) -> Outputs:
        """Computes the outputs for a batch.

        Args:
          batch: clips with `audio` [b t f], which the network standardises, `audio_mask` [b t] and the fields
            that the encoders read (`network_input_fields`); faces are uint8.
          train: whether dropout acts, and batch norms use the statistics of the batch; running statistics are
            only updated if it is True.
          key: random key of the dropout; only used if `train`.

        Returns:
          `logits` [b c] of the c classes; `embedding` [b d], the input of the classifier; `audio_vector`
          [b d_a] and `video_vector` [b d_v], the pooled vectors of each clip (None if the fusion does not use
          the modality); and `aux`, a dict with the attention weights of the pooling (`audio_attention`,
          `video_attention`), the `margins` and `polarity` of the classes if the config has them, the `aux` of
          the fusion, and that of each encoder with the prefix `audio_` or `video_`.

        Raises:
          ValueError: if `train` is True but `key` is None, the batch has too few steps or a wrong number of
            frames for an encoder, a dropout rate of the config is not in [0, 1),
            `config.fusion.dropout_place` is unknown, or the fusion does not return a FusionOutput with
            `logits` [b c] and `embedding` [b d].
        """
        audio = standardize(batch.audio, self.input.mean[...], self.input.std[...])
        audio = jnp.where(batch.audio_mask[..., None], audio, 0.0).astype(self.dtype)
        batch = dataclasses.replace(batch, audio=audio)
        sequences, aux = {}, self.relations()
        for modality in self.modalities:
            sequences[modality], encoder_aux = getattr(self, modality)(batch, train=train)
            aux |= {f"{modality}_{name}": value for name, value in encoder_aux.items()}
        fuse = self._fuse_vectors if self.should_pool else self._fuse_sequences
        return fuse(sequences, aux, train=train, key=key)

    def _fuse_vectors(
        self,
        sequences: dict[str, EncodedSequence],
        aux: dict[str, Array],
        *,
        train: bool,
        key: PRNGKey | None,
    ) -> Outputs:
        vectors, vector_masks = {}, {}
        for modality, sequence in sequences.items():
            encoder, attention = getattr(self, modality), getattr(self, f"{modality}_attention")
            masks = trunk_masks(sequence, self.trunk_count)
            vectors[modality], weights = attention(sequence.values, masks)  # b n d, b n l
            vector_masks[modality] = masks.any(axis=-1)
            aux[f"{modality}_attention"] = _reshape_attention(encoder, weights[:, 0])
        pooled_vectors = PooledVectors(
            vectors.get("audio"), vector_masks.get("audio"), vectors.get("video"), vector_masks.get("video")
        )
        clip_vectors = {modality: v[:, 0] for modality, v in vectors.items()}
        return self._make_outputs(self.fusion(pooled_vectors, train=train, key=key), clip_vectors, aux)

    def _fuse_sequences(
        self,
        sequences: dict[str, EncodedSequence],
        aux: dict[str, Array],
        *,
        train: bool,
        key: PRNGKey | None,
    ) -> Outputs:
        clip_vectors = {
            modality: masked_mean(sequence.values, sequence.mask) for modality, sequence in sequences.items()
        }
        encoded = EncodedSequences(sequences.get("audio"), sequences.get("video"))
        fusion_output = self.fusion(encoded, train=train, key=key)
        for modality in self.modalities:  # reshaped as in `_fuse_vectors`
            for name in (name for name in fusion_output.aux if name.endswith(f"{modality}_attention")):
                fusion_output.aux[name] = _reshape_attention(getattr(self, modality), fusion_output.aux[name])
        return self._make_outputs(fusion_output, clip_vectors, aux)

    def _make_outputs(
        self, fusion_output: FusionOutput, clip_vectors: dict[str, Array], aux: dict[str, Array]
    ) -> Outputs:
        batch_size = next(iter(clip_vectors.values())).shape[0]
        check_fusion_output(fusion_output, {"b": batch_size, "classes": self.classes})
        return Outputs(
            logits=fusion_output.logits,
            embedding=fusion_output.embedding,
            audio_vector=clip_vectors.get("audio"),
            video_vector=clip_vectors.get("video"),
            aux=aux | fusion_output.aux,
        )


def _reshape_attention(encoder: Encoder, weights: Float[Array, "... l"]) -> Float[Array, "..."]:
    """Returns weights over the l positions in the shape of the encoder's feature map, [.. u] or [.. u g].

    u is time, g frequency. Encoders without a method `attention_map` have no such shape; their weights are
    returned unchanged.
    """
    return getattr(encoder, "attention_map", lambda unchanged: unchanged)(weights)
