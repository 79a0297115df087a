"""What encoders hand to fusions: sequences in time, their equal parts, and the pooled vectors."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class EncodedSequence(NamedTuple):
    """Encoded positions of one modality; part n of N holds those with `time_index * N // length == n`."""

    values: Float[Array, "b l d"]
    mask: Bool[Array, "b l"]
    time_index: Int[Array, "b l"]
    """Place in time, counted from the clip's start."""
    length: Int[Array, " b"]
    """Number of places that the clip has, padding left out."""


class EncoderOutput(NamedTuple):
    """What an encoder answers: its sequence, and named intermediates (its own attention maps)."""

    sequence: EncodedSequence
    aux: dict[str, Array]


class EncodedSequences(NamedTuple):
    """Both encoded sequences, for fusions that work on positions; None for an encoder that is not built."""

    audio: EncodedSequence | None
    video: EncodedSequence | None


class PooledVectors(NamedTuple):
    """Pooled vectors of both modalities: the whole clip at index 0, then its equal parts in time.

    A vector without one valid position is zero and its `ok` is False. An encoder that is not built
    gives None.
    """

    audio: Float[Array, "b n d_a"] | None
    audio_ok: Bool[Array, "b n"] | None
    video: Float[Array, "b n d_v"] | None
    video_ok: Bool[Array, "b n"] | None


class FusionOutput(NamedTuple):
    """What a fusion answers."""

    logits: Float[Array, "b c"]
    embedding: Float[Array, "b d"]
    """What the classifier sees."""
    aux: dict[str, Array]


def trunk_masks(sequence: EncodedSequence, num_trunks: int) -> Bool[Array, "b n l"]:
    """The valid positions of the whole clip, then of each of `num_trunks` equal parts in time; n = 1 +
    parts."""
    if not num_trunks:
        return sequence.mask[:, None]
    trunk_index = sequence.time_index * num_trunks // jnp.maximum(sequence.length, 1)[:, None]  # b l
    in_trunk = trunk_index[:, None] == jnp.arange(num_trunks)[:, None]  # b parts l
    return sequence.mask[:, None] & jnp.concatenate([jnp.ones_like(in_trunk[:, :1]), in_trunk], axis=1)
