"""Data types that all parts of emofuse share, and the legend of shape letters.

Shape letters: ``b`` batch, ``t`` audio steps, ``s`` video frames, ``f`` frequency bins, ``h w`` face height
and width in pixels, ``d`` feature width, ``k`` factor rank, ``o`` fused width, ``c`` classes, ``n`` trunks.
"""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array, Bool, Float, Int, Key

Params = dict[str, Any]
"""Nested plain dicts of arrays."""
ConfigFields = dict[str, Any]
"""Nested plain dicts of config values, as `ConfigDict.to_dict()` returns them."""
PRNGKey = Key[Array, ""]
"""Typed random key, as made by `jax.random.key`."""
WeightedSum = tuple[Float[Array, ""], Float[Array, ""]]
"""A masked sum, and the weight to divide it by."""


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """Static shape of one clip as the input of a model."""

    t: int
    """Number of audio steps (spectrogram frames)."""
    f: int
    """Number of frequency bins."""
    s: int
    """Number of video frames."""
    h: int
    """Face height in pixels."""
    w: int
    """Face width in pixels."""
    classes: int
    """Number of classes."""
    feature_steps: int = 0
    """Number of steps of the frozen audio encoder's features; 0 if the records contain none."""
    audio_features: int = 0
    """Width of the frozen audio encoder's features; 0 if the records contain none."""
    face_features: int = 0
    """Width of the frozen face encoder's features, one vector per frame; 0 if the records contain none."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """One batch of clips. All padding is masked; a padded row has weight 0."""

    audio: Float[Array, "b t f"]
    """Log magnitudes as stored in the records, not standardised."""
    audio_mask: Bool[Array, "b t"]
    """True at audio steps inside the clip."""
    faces: Any  # uint8 [b s h w 3]
    """Aligned face crops, uint8; converted to floats inside the jitted step."""
    face_mask: Bool[Array, "b s"]
    """True at frames with a face."""
    label: Int[Array, " b"]
    """Index of the class; -1 if there is no label, and on a padded row."""
    label_mask: Bool[Array, " b"]
    """False if the label is hidden (semi-supervised training) or unknown."""
    weight: Float[Array, " b"]
    """Weight of the row in losses and scores; 0 on a padded row."""
    speaker: Int[Array, " b"]
    """Index of the speaker in the dataset; -1 on a padded row."""
    clip: Int[Array, " b"]
    """Index of the clip in the dataset; -1 on a padded row."""
    audio_features: Float[Array, "b u d"] | None = None
    """Features of the frozen audio encoder; None if the records contain none."""
    audio_features_mask: Bool[Array, "b u"] | None = None
    """True at steps of `audio_features` inside the clip; None if the records contain none."""
    face_features: Float[Array, "b s d"] | None = None
    """Features of the frozen face encoder, one vector per frame, with `face_mask`; None if there are none."""
    mixed_label: Int[Array, " b"] | None = None
    """Label of the clip that was mixed into each row (data/augment/mixup.py); None without mixup."""
    mixed_share: Float[Array, " b"] | None = None
    """Share of the mixed-in clip, in [0, 1/2]; None without mixup."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outputs:
    """Outputs of a network; jit removes the computation of fields that are not used."""

    logits: Float[Array, "b c"]
    """Unnormalised log probabilities of the classes."""
    embedding: Float[Array, "b d"]
    """Input of the classifier."""
    audio_vector: Float[Array, "b d_a"] | None
    """Pooled audio vector of the clip; None if the network has no audio encoder."""
    video_vector: Float[Array, "b d_v"] | None
    """Pooled video vector of the clip; None if the network has no video encoder."""
    aux: dict[str, Array]
    """Named intermediate results: attention weights, gates, vectors of trunks, inputs of the objectives."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Complete state of training: everything that a training step changes."""

    step: Int[Array, ""]
    """Number of completed training steps."""
    params: Params
    """Trained parameters."""
    model_state: Params
    """Measured values that are not trained: running statistics of norms, and the input statistics."""
    opt_state: Any
    """State of the optimizer (optax)."""
