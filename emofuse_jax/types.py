"""The pytrees that every part of emofuse passes on, and the one legend of shape letters.

Letters: ``b`` batch, ``t`` audio steps, ``s`` video frames, ``f`` frequency bins, ``h w`` face pixels,
``d`` feature width, ``k`` factor rank, ``o`` fused width, ``c`` classes, ``n`` trunks.
"""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array, Bool, Float, Int, Key

Params = dict[str, Any]
"""Nested plain dicts of arrays."""
PRNGKey = Key[Array, ""]
WeightedSum = tuple[Float[Array, ""], Float[Array, ""]]
"""A masked sum and the weight to divide it by."""


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """Static shape of one clip as a model sees it."""

    t: int
    """Audio steps (spectrogram frames)."""
    f: int
    """Frequency bins."""
    s: int
    """Video frames."""
    h: int
    """Face height in pixels."""
    w: int
    """Face width in pixels."""
    classes: int
    """Number of classes."""
    feature_steps: int = 0
    """Steps of the frozen audio encoder's features; 0 where the records hold none."""
    audio_features: int = 0
    """Their width."""
    face_features: int = 0
    """Width of the frozen face encoder's features, one vector a frame; 0 where the records hold none."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """One batch of clips; padding is masked everywhere, and a padded row has weight 0."""

    audio: Float[Array, "b t f"]
    """Log magnitudes as stored, not standardised."""
    audio_mask: Bool[Array, "b t"]
    faces: Any  # uint8 [b s h w 3]
    """Aligned face crops, uint8 until inside the jitted step."""
    face_mask: Bool[Array, "b s"]
    label: Int[Array, " b"]
    label_mask: Bool[Array, " b"]
    """False where the label is hidden or unknown (semi-supervised)."""
    weight: Float[Array, " b"]
    speaker: Int[Array, " b"]
    clip: Int[Array, " b"]
    """Index of the clip in the dataset; -1 on a padded row."""
    audio_features: Float[Array, "b u d"] | None = None
    """A frozen encoder's features; None where the records hold none."""
    audio_features_mask: Bool[Array, "b u"] | None = None
    face_features: Float[Array, "b s d"] | None = None
    """One vector a frame, valid where `face_mask` is."""
    mixed_label: Int[Array, " b"] | None = None
    """Label of the clip that was mixed in (data/augment/mixup.py); None where nothing was."""
    mixed_share: Float[Array, " b"] | None = None
    """Its share, at most one half."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outputs:
    """What a network answers; jit prunes what is unused."""

    logits: Float[Array, "b c"]
    embedding: Float[Array, "b d"]
    """What the classifier sees."""
    audio_vector: Float[Array, "b d_a"] | None
    video_vector: Float[Array, "b d_v"] | None
    aux: dict[str, Array]
    """Named intermediates, flat: attention weights, gates, per-trunk vectors."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a training step changes."""

    step: Int[Array, ""]
    params: Params
    model_state: Params
    """Running statistics of norms, and the input statistics."""
    opt_state: Any
