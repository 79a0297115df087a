"""Interfaces of encoders and fusions, and the data between them.

These are sequences in time, masks of their equal parts, and pooled vectors.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict

from emofuse_jax.types import Batch, InputSpec, PRNGKey


class EncodedSequence(NamedTuple):
    """Encoded positions of one modality: l positions of width d for each clip.

    Part n of N equal parts of the clip consists of the positions with `time_index * N // length == n`.
    """

    values: Float[Array, "b l d"]
    """One vector per position."""
    mask: Bool[Array, "b l"]
    """True at valid positions."""
    time_index: Int[Array, "b l"]
    """Time step of each position, counted from the start of the clip."""
    length: Int[Array, " b"]
    """Number of time steps of each clip, without padding."""


class EncoderOutput(NamedTuple):
    """Output of an encoder: its sequence, and intermediate results by name, such as attention maps."""

    sequence: EncodedSequence
    aux: dict[str, Array]


class EncodedSequences(NamedTuple):
    """Encoded sequences of both modalities, for fusions of positions; None for a modality without encoder."""

    audio: EncodedSequence | None
    video: EncodedSequence | None

    def of_both_modalities(self) -> tuple[EncodedSequence, EncodedSequence]:
        """Returns the sequences `(audio, video)`.

        Each has `values` [b l d], one vector for each of l positions; `mask` [b l], True at valid positions;
        `time_index` [b l], the time step of each position from the start of the clip; and `length` [b], the
        number of time steps of each clip without padding.

        Raises:
          ValueError: if one of them is None because the network has no encoder of this modality.
        """
        if self.audio is None or self.video is None:
            raise ValueError(
                "the fusion needs the sequences of audio and video, but the network has only one encoder; set"
                ' modalities = ("audio", "video") in the class of the fusion'
            )
        return self.audio, self.video


class PooledVectors(NamedTuple):
    """Pooled vectors of both modalities: the entire clip at index 0, then its equal parts in time.

    A vector without a valid position is zero, and its mask is False. The fields of a modality without encoder
    are None.
    """

    audio: Float[Array, "b n d_a"] | None
    audio_mask: Bool[Array, "b n"] | None
    video: Float[Array, "b n d_v"] | None
    video_mask: Bool[Array, "b n"] | None

    def of_both_modalities(
        self,
    ) -> tuple[Float[Array, "b n d_a"], Bool[Array, "b n"], Float[Array, "b n d_v"], Bool[Array, "b n"]]:
        """Returns the fields `(audio, audio_mask, video, video_mask)`: n vectors per clip, and their masks.

        Index 0 of the n vectors is the entire clip, the others are its equal parts in time. A mask is True
        where the modality is present; otherwise the vector is zero.

        Raises:
          ValueError: if a field is None because the network has no encoder of this modality.
        """
        if self.audio is None or self.audio_mask is None or self.video is None or self.video_mask is None:
            raise ValueError(
                "the fusion needs the vectors of audio and video, but the network has only one encoder; set"
                ' modalities = ("audio", "video") in the class of the fusion'
            )
        return self.audio, self.audio_mask, self.video, self.video_mask


class FusionOutput(NamedTuple):
    """Output of a fusion."""

    logits: Float[Array, "b c"]
    embedding: Float[Array, "b d"]
    """Input of the classifier."""
    aux: dict[str, Array]
    """Intermediate results by name."""


@runtime_checkable
class Encoder(Protocol):
    """Encoder of one modality."""

    @property
    def width(self) -> int:
        """Width d of the vectors that it gives, one for each position."""

    def __call__(self, batch: Batch, *, train: bool) -> EncoderOutput:
        """Encodes the clips of a batch.

        The encoder reads the fields of the batch that its class names in `reads`; by default these are
        `audio` [b t f], standardised and zero at padding, and `audio_mask` [b t], or `faces` [b s h w 3] in
        uint8 and `face_mask` [b s]. If `train` is True, batch norms use, and update, the statistics of the
        batch.

        Returns:
          `sequence` and `aux`. The sequence has `values` [b l d], one vector for each of l positions; `mask`
          [b l], True at valid positions; `time_index` [b l], the time step of each position from the start of
          the clip; and `length` [b], the number of time steps of each clip. `aux` is a dict of intermediate
          results by name (any names), such as attention maps.

        Raises:
          ValueError: if the batch has too few steps or a wrong number of frames for the encoder.
        """


@runtime_checkable
class EncoderClass(Protocol):
    """Class of an encoder, as models/registry.py describes it."""

    @property
    def defaults(self) -> Mapping[str, object]:
        """Default value of each of its fields in `config.model.audio` or `config.model.video`, by name."""

    def __call__(self, config: ConfigDict, spec: InputSpec, dtype: DTypeLike, *, rngs: nnx.Rngs) -> Encoder:
        """Builds the encoder.

        Args:
          config: `config.model.audio` or `config.model.video`.
          spec: shape of one clip: `t` audio steps of `f` frequency bins, `s` frames of `h` x `w` pixels, and
            the widths `audio_features` and `face_features` of frozen features, 0 if there are none.
          dtype: dtype of the activations.
          rngs: random keys of the initial parameters.

        Raises:
          ValueError: if a field of `config` has a value that the encoder does not support, or that does not
            suit the shape of the clips.
        """


@runtime_checkable
class Fusion(Protocol):
    """Fusion with its classifier."""

    def __call__(self, inputs: Any, /, *, train: bool, key: PRNGKey | None) -> FusionOutput:  # noqa: ANN401
        """Computes the logits of the classes.

        Args:
          inputs: with `takes = "vectors"` of the class a PooledVectors: `audio` [b n d_a] and `video`
            [b n d_v], the vectors of the entire clip (index 0) and of its n - 1 parts, and their masks
            `audio_mask` and `video_mask` [b n]. With `takes = "sequences"` an EncodedSequences: `audio` and
            `video`, each with `values` [b l d], `mask` and `time_index` [b l], and `length` [b]. Masks are
            True where there is input; fields of a modality without encoder are None.
          train: whether dropout acts.
          key: random key of the dropout; None if `train` is False.

        Returns:
          `logits` [b c] of the c classes, `embedding` [b d] (the input of the classifier), and `aux`, a dict
          of intermediate results.

        Raises:
          ValueError: if `train` is True but `key` is None, or the inputs lack a modality that the fusion
            needs.
        """


@runtime_checkable
class FusionClass(Protocol):
    """Class of a fusion, as models/registry.py describes it."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities of the encoders that the network builds: a tuple of "audio" and/or "video"."""

    @property
    def takes(self) -> str:
        """Kind of its inputs: "vectors" for PooledVectors, or "sequences" for EncodedSequences.

        PooledVectors has one vector for each clip (and for each of its parts) and modality; EncodedSequences
        has the encoder's sequence of positions for each modality.
        """

    @property
    def defaults(self) -> Mapping[str, object]:
        """Default value of each field of `config.model.fusion`, except `name`, by name."""

    def __call__(
        self, d_a: int, d_v: int, classes: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> Fusion:
        """Builds the fusion with random initial parameters.

        Args:
          d_a: width of the audio vectors or positions; 0 if the network has no audio encoder.
          d_v: width of the video vectors or positions; 0 if the network has no video encoder.
          classes: number of classes, the width of its logits.
          config: `config.model.fusion`.
          dtype: dtype of the activations.
          rngs: random keys of the initial parameters.

        Raises:
          ValueError: if a field of `config` has a value that the fusion does not support.
        """


def trunk_masks(sequence: EncodedSequence, num_trunks: int) -> Bool[Array, "b n l"]:
    """Returns the masks of the valid positions of the entire clip and of each of its equal parts in time.

    `sequence` has `mask` [b l], True at valid positions, their `time_index` [b l] and the number of time
    steps `length` [b] of each clip; `num_trunks` is the number of parts. The result [b n l] has n = 1 +
    `num_trunks` masks over the l positions of a clip: that of the entire clip at index 0, then those of the
    parts. A position is in part `time_index * num_trunks // length`, counted from 0.
    """
    if not num_trunks:
        return sequence.mask[:, None]
    trunk_index = sequence.time_index * num_trunks // jnp.maximum(sequence.length, 1)[:, None]  # b l
    in_trunk = trunk_index[:, None] == jnp.arange(num_trunks)[:, None]  # b parts l
    return sequence.mask[:, None] & jnp.concatenate([jnp.ones_like(in_trunk[:, :1]), in_trunk], axis=1)
