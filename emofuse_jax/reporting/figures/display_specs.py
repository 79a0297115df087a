"""What the report shows of `Outputs.aux`, by name: the place where a new attention map or gate is told."""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class DisplaySpec:
    """How a name is drawn (`kind`) and what stands over it, in plain words."""

    kind: str
    """`example`: in the clip's own picture; a key of aux_figures.PANEL_DRAWERS: in the second one; of
    class_matrices.ROW_LABEL_FUNCTIONS: once, since it is the model's and not a clip's."""
    title: str
    modality: str = "both"
    """Stream whose colour it has."""
    row_label: str = ""
    column_label: str = ""


DISPLAY_SPECS = {
    "audio_attention": DisplaySpec("example", "attention over the sound", "voice"),
    "video_attention": DisplaySpec("example", "attention over the frames", "face"),
    "modality_weights": DisplaySpec("example", "how much voice and face count"),
    "trunk_weights": DisplaySpec("shares", "voice and face, in the whole clip and in its parts"),
    "joint_attention": DisplaySpec(
        "course", "attention over both streams together", column_label="part of the clip"
    ),
    "bottleneck_audio_attention": DisplaySpec(
        "course", "from the sound to the shared tokens (thin: each)", "voice", column_label="seconds"
    ),
    "bottleneck_video_attention": DisplaySpec(
        "course", "from the faces to the shared tokens (thin: each)", "face", column_label="frame"
    ),
    "audio_time_attention": DisplaySpec(
        "pairs", "sound: parts looking at parts", "voice", "part", "looks at part"
    ),
    "video_time_attention": DisplaySpec(
        "pairs", "face: parts looking at parts", "face", "part", "looks at part"
    ),
    "cross_audio_weights": DisplaySpec(
        "pairs", "sound that the face picks", "voice", "part of the face", "part of the sound"
    ),
    "cross_video_weights": DisplaySpec(
        "pairs", "faces that the sound picks", "face", "part of the sound", "part of the face"
    ),
    "audio_correlation": DisplaySpec(
        "signed", "how the sound goes with both", row_label="part of the sound", column_label="part of both"
    ),
    "video_correlation": DisplaySpec(
        "signed", "how the face goes with both", row_label="part of the face", column_label="part of both"
    ),
    "video_space_attention": DisplaySpec("places", "where in the face it looked", "face"),
    "video_channel_attention": DisplaySpec(
        "ranked", "channels of the face, strongest first", "face", column_label="channel"
    ),
    "audio_gate": DisplaySpec(
        "ranked", "gates of the sound, widest open first", "voice", column_label="channel"
    ),
    "video_gate": DisplaySpec(
        "ranked", "gates of the face, widest open first", "face", column_label="channel"
    ),
    "correlation": DisplaySpec("cosine", "how far sound and face say the same"),
    "margins": DisplaySpec(
        "classes", "Margins between classes", row_label="anchor", column_label="other class"
    ),
    "class_weights": DisplaySpec("streams", "How far each stream is trusted, by class"),
}
"""Names that are drawn where a model has them."""

INTERNAL_NAMES = {
    "trunks": "fused vectors of each level",
    "level_logits": "answers of each level, for its own loss",
    "level_mask": "levels that the clip has",
    "audio_common": "features of the sound for the correlation loss",
    "video_common": "features of the face for the correlation loss",
    "audio_common_mask": "segments with sound",
    "video_common_mask": "segments with a face",
    "audio_private": "features of the sound alone",
    "video_private": "features of the face alone",
    "audio_covariance": "running covariance of the sound's features",
    "video_covariance": "running covariance of the face's features",
    "label_features": "features of each class for the correlation loss",
    "polarity": "polarity of each class, as the config has it",
}
"""Names that are no explanation; the report says that they are there."""

MODEL_LEVEL_NAMES = (
    "margins",
    "class_weights",
    "audio_covariance",
    "video_covariance",
    "label_features",
    "polarity",
)
"""Names that have no row for each clip (`class_weights` may have one all the same)."""

MAX_LISTED_NUMBERS = 12
"""Most numbers of a clip that are listed as text, of a name that is in neither table."""


FEATURE_DISPLAY_SPECS = {
    "spectrogram": (
        "audio_attention",
        DisplaySpec("course", "attention over the sound's features", "voice", column_label="step"),
    ),
    "faces": (
        "video_attention",
        DisplaySpec("course", "attention over the frames", "face", column_label="frame"),
    ),
}
"""Attention that goes to the second picture where the records hold features instead of the field."""


def select_panels(example: Mapping, kinds: Iterable[str]) -> list[tuple[DisplaySpec, np.ndarray]]:
    """What the second picture of a clip shows, in the order of the tables."""
    displays = [
        (display, example[name])
        for field, (name, display) in FEATURE_DISPLAY_SPECS.items()
        if example.get(field) is None and example.get(name) is not None
    ]
    return displays + [
        (DISPLAY_SPECS[name], value) for name, value in select_kinds(example.get("aux") or {}, kinds).items()
    ]


def select_kinds(aux: Mapping[str, np.ndarray], kinds: Iterable[str]) -> dict[str, np.ndarray]:
    """The entries of `aux` that are drawn as one of `kinds`, in the order of the table."""
    return {
        name: aux[name] for name, display in DISPLAY_SPECS.items() if name in aux and display.kind in kinds
    }


def list_small_values(aux: Mapping[str, np.ndarray]) -> list[tuple[str, str]]:
    """Names that no table knows and that are small: name and numbers as text."""
    small = [
        (name, value)
        for name, value in aux.items()
        if _is_unknown(name) and np.size(value) <= MAX_LISTED_NUMBERS
    ]
    return [(name, _format_numbers(value)) for name, value in small]


def list_undrawn(aux: Mapping[str, np.ndarray]) -> list[tuple[str, str]]:
    """What the model has beside that: name, and what it is or its shape."""
    large = {
        name: f"{list(np.shape(value))}, unknown to the report"
        for name, value in aux.items()
        if _is_unknown(name) and np.size(value) > MAX_LISTED_NUMBERS
    }
    return [
        *((name, description) for name, description in INTERNAL_NAMES.items() if name in aux),
        *large.items(),
    ]


def _is_unknown(name: str) -> bool:
    return name not in DISPLAY_SPECS and name not in INTERNAL_NAMES


def _format_numbers(value: np.ndarray) -> str:
    return ", ".join(f"{number:.3g}" for number in np.asarray(value, float).ravel())
