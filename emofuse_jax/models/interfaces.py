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

        Raises:
          ValueError: if one of them is None because its modality has no encoder.
        """
        if self.audio is None or self.video is None:
            raise ValueError("the sequences of a modality are missing: it has no encoder")
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

        Raises:
          ValueError: if a field is None because its modality has no encoder.
        """
        if self.audio is None or self.audio_mask is None or self.video is None or self.video_mask is None:
            raise ValueError("the vectors of a modality are missing: it has no encoder")
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
        """Width of its positions."""

    def __call__(self, batch: Batch, *, train: bool) -> EncoderOutput:
        """Returns the encoded positions of the clips of a batch, and intermediate results by name."""


@runtime_checkable
class EncoderClass(Protocol):
    """Class of an encoder, as models/registry.py describes it."""

    @property
    def defaults(self) -> Mapping[str, object]:
        """Config fields with their defaults."""

    def __call__(self, config: ConfigDict, spec: InputSpec, dtype: DTypeLike, *, rngs: nnx.Rngs) -> Encoder:
        """Builds the encoder for its part of the config and clips of shape `spec`."""


@runtime_checkable
class Fusion(Protocol):
    """Fusion with its classifier."""

    def __call__(self, inputs: Any, /, *, train: bool, key: PRNGKey | None) -> FusionOutput:  # noqa: ANN401
        """Returns the logits and the embedding of PooledVectors or EncodedSequences (see `takes`)."""


@runtime_checkable
class FusionClass(Protocol):
    """Class of a fusion, as models/registry.py describes it."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Encoders that the network builds."""

    @property
    def takes(self) -> str:
        """Kind of its inputs, "vectors" or "sequences"."""

    @property
    def defaults(self) -> Mapping[str, object]:
        """Config fields with their defaults."""

    def __call__(
        self, d_a: int, d_v: int, classes: int, config: ConfigDict, dtype: DTypeLike, *, rngs: nnx.Rngs
    ) -> Fusion:
        """Builds the fusion for audio of width `d_a` and video of width `d_v`; 0 if there is no encoder."""


def trunk_masks(sequence: EncodedSequence, num_trunks: int) -> Bool[Array, "b n l"]:
    """Returns the masks of the valid positions of the entire clip and of each of its equal parts in time.

    `num_trunks` is the number of parts. The result [b n l] has n = 1 + `num_trunks` masks over the l
    positions of a clip: that of the entire clip at index 0, then those of the parts.
    """
    if not num_trunks:
        return sequence.mask[:, None]
    trunk_index = sequence.time_index * num_trunks // jnp.maximum(sequence.length, 1)[:, None]  # b l
    in_trunk = trunk_index[:, None] == jnp.arange(num_trunks)[:, None]  # b parts l
    return sequence.mask[:, None] & jnp.concatenate([jnp.ones_like(in_trunk[:, :1]), in_trunk], axis=1)
