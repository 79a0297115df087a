"""Defines how the report shows each entry of `Outputs.aux`; register a new attention map or gate here."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from emofuse_jax.reporting.gallery_clip import GalleryClip


@dataclasses.dataclass(frozen=True)
class DisplaySpec:
    """Describes how an intermediate output of a model is drawn."""

    kind: str
    """Where and how it is drawn.

    `example`: in the main picture of the clip. A key of aux_figures.PANEL_DRAWERS: as a panel of the second
    picture of the clip. A key of class_matrices.ROW_LABEL_FUNCTIONS: once per report, because it belongs to
    the model and not to a clip.
    """
    title: str
    """Heading of the panel or matrix."""
    modality: str = "both"
    """Modality whose colour is used: `voice`, `face` or `both`."""
    row_label: str = ""
    column_label: str = ""


DISPLAY_SPECS = {
    "audio_attention": DisplaySpec("example", "attention over the audio", "voice"),
    "video_attention": DisplaySpec("example", "attention over the frames", "face"),
    "modality_weights": DisplaySpec("example", "weights of audio and video"),
    "trunk_weights": DisplaySpec("shares", "weights of audio and video, complete clip and parts"),
    "joint_attention": DisplaySpec(
        "course", "joint attention over audio and video", column_label="part of the clip"
    ),
    "bottleneck_audio_attention": DisplaySpec(
        "course",
        "shared tokens: attention over the audio (thin: each)",
        "voice",
        column_label="seconds",
    ),
    "bottleneck_video_attention": DisplaySpec(
        "course",
        "shared tokens: attention over the faces (thin: each)",
        "face",
        column_label="frame",
    ),
    "audio_time_attention": DisplaySpec(
        "pairs", "audio: attention of parts", "voice", "part", "attends to part"
    ),
    "video_time_attention": DisplaySpec(
        "pairs", "video: attention of parts", "face", "part", "attends to part"
    ),
    "cross_audio_weights": DisplaySpec(
        "pairs", "attention, video to audio", "voice", "part of the video", "part of the audio"
    ),
    "cross_video_weights": DisplaySpec(
        "pairs", "attention, audio to video", "face", "part of the audio", "part of the video"
    ),
    "audio_correlation": DisplaySpec(
        "signed",
        "audio: correlation to both",
        row_label="part of the audio",
        column_label="part of both",
    ),
    "video_correlation": DisplaySpec(
        "signed",
        "video: correlation to both",
        row_label="part of the video",
        column_label="part of both",
    ),
    "video_space_attention": DisplaySpec("places", "attention within the face crop", "face"),
    "video_channel_attention": DisplaySpec(
        "ranked", "attention over video channels, sorted", "face", column_label="channel"
    ),
    "audio_gate": DisplaySpec(
        "ranked", "gates of the audio channels, sorted", "voice", column_label="channel"
    ),
    "video_gate": DisplaySpec(
        "ranked", "gates of the video channels, sorted", "face", column_label="channel"
    ),
    "correlation": DisplaySpec("cosine", "correlation of audio and video features"),
    "margins": DisplaySpec(
        "classes", "Margins between classes", row_label="anchor", column_label="other class"
    ),
    "class_weights": DisplaySpec("streams", "Weight of each modality, by class"),
}
"""Maps the name of an output to its display; outputs that a model does not have are skipped."""

INTERNAL_NAMES = {
    "trunks": "fused vector of each level",
    "level_logits": "logits of each level, for its auxiliary loss",
    "level_mask": "mask of the levels that the clip has",
    "audio_common": "audio features for the correlation loss",
    "video_common": "video features for the correlation loss",
    "audio_common_mask": "mask of segments with audio",
    "video_common_mask": "mask of segments with a face",
    "audio_private": "features specific to the audio",
    "video_private": "features specific to the video",
    "audio_covariance": "running covariance of the audio features",
    "video_covariance": "running covariance of the video features",
    "label_features": "label features of each class for the correlation loss",
    "polarity": "polarity of each class, from the config",
}
"""Maps internal outputs, which are not drawn because they explain nothing, to their descriptions."""

MODEL_LEVEL_NAMES = (
    "margins",
    "class_weights",
    "audio_covariance",
    "video_covariance",
    "label_features",
    "polarity",
)
"""Outputs of the model that do not have one row per clip (`class_weights` may have one)."""

MAX_LISTED_NUMBERS = 12
"""Largest size of an output without an entry in DISPLAY_SPECS or INTERNAL_NAMES that is listed as text."""


FEATURE_DISPLAY_SPECS: dict[
    Literal["spectrogram", "faces"], tuple[Literal["audio_attention", "video_attention"], DisplaySpec]
] = {
    "spectrogram": (
        "audio_attention",
        DisplaySpec("course", "attention over the audio features", "voice", column_label="step"),
    ),
    "faces": (
        "video_attention",
        DisplaySpec("course", "attention over the frames", "face", column_label="frame"),
    ),
}
"""Maps an input to the attention over it and its display in the second picture.

It is used if the records store features instead of that input.
"""


def select_panels(example: GalleryClip, kinds: Iterable[str]) -> list[tuple[DisplaySpec, np.ndarray]]:
    """Returns pairs (display, values) for the second picture of a clip; an empty list if there are none.

    A display has the `kind` of the drawing, the `title`, the `modality` that determines the colour, and the
    labels `row_label` and `column_label`; the values are the unchanged array of the clip. First comes
    `audio_attention` if the clip has no spectrogram, and `video_attention` if it has no faces; then the
    outputs in `example["aux"]`, in the order of DISPLAY_SPECS.

    Args:
      example: data of the clip; `spectrogram`, `faces`, `audio_attention`, `video_attention` and `aux` are
        used, if present.
      kinds: kinds of display to select from `example["aux"]`: of `shares`, `course`, `pairs`, `signed`,
        `places`, `ranked` and `cosine`.
    """
    displays = [
        (display, value)
        for field, (name, display) in FEATURE_DISPLAY_SPECS.items()
        if example.get(field) is None and (value := example.get(name)) is not None
    ]
    return displays + [
        (DISPLAY_SPECS[name], value) for name, value in select_kinds(example.get("aux") or {}, kinds).items()
    ]


def select_kinds(aux: Mapping[str, np.ndarray], kinds: Iterable[str]) -> dict[str, np.ndarray]:
    """Returns the outputs in `aux`, by name, that are drawn in one of the ways `kinds`, such as `pairs`.

    DISPLAY_SPECS names the kind of each output that can be drawn, and determines the order of the result. Its
    kinds are `example`, `shares`, `course`, `pairs`, `signed`, `places`, `ranked`, `cosine`, `classes` and
    `streams`.
    """
    return {
        name: aux[name] for name, display in DISPLAY_SPECS.items() if name in aux and display.kind in kinds
    }


def list_small_values(aux: Mapping[str, np.ndarray]) -> list[tuple[str, str]]:
    """Returns pairs (name, numbers as text) for small outputs without a display or a description.

    The pairs are in the order of `aux`. Their names are not in DISPLAY_SPECS or INTERNAL_NAMES. An output is
    small if it has at most MAX_LISTED_NUMBERS (12) values. The text has three significant digits of each:
    `0.25, 1.5`.
    """
    small = [
        (name, value)
        for name, value in aux.items()
        if _is_unknown(name) and np.size(value) <= MAX_LISTED_NUMBERS
    ]
    return [(name, _format_numbers(value)) for name, value in small]


def list_undrawn(aux: Mapping[str, np.ndarray]) -> list[tuple[str, str]]:
    """Returns pairs (name, description) for the outputs that are not drawn and not listed as numbers.

    First come the outputs in INTERNAL_NAMES, with their descriptions there. Then follow those that are in
    neither INTERNAL_NAMES nor DISPLAY_SPECS and have more than MAX_LISTED_NUMBERS values; their description
    is their shape and the text "no display is defined".
    """
    large = {
        name: f"{list(np.shape(value))}, no display is defined"
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
