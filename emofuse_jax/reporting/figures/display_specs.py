"""What the report shows of `Outputs.aux`, by name: the place where a new attention map or gate is told."""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Shown:
    """How a name is drawn (`kind`) and what stands over it, in plain words."""

    kind: str
    """`example`: in the clip's own picture; a key of drawers.DRAWERS: in the second one; of matrices.DRAWERS:
    once, since it is the model's and not a clip's."""
    title: str
    colour: str = "both"
    """Stream whose colour it has."""
    rows: str = ""
    columns: str = ""


SHOWN = {
    "audio_attention": Shown("example", "attention over the sound", "voice"),
    "video_attention": Shown("example", "attention over the frames", "face"),
    "modality_weights": Shown("example", "how much voice and face count"),
    "trunk_weights": Shown("shares", "voice and face, in the whole clip and in its parts"),
    "joint_attention": Shown("course", "attention over both streams together", columns="part of the clip"),
    "bottleneck_audio_attention": Shown(
        "course", "from the sound to the shared tokens (thin: each)", "voice", columns="seconds"
    ),
    "bottleneck_video_attention": Shown(
        "course", "from the faces to the shared tokens (thin: each)", "face", columns="frame"
    ),
    "audio_time_attention": Shown("pairs", "sound: parts looking at parts", "voice", "part", "looks at part"),
    "video_time_attention": Shown("pairs", "face: parts looking at parts", "face", "part", "looks at part"),
    "cross_audio_weights": Shown(
        "pairs", "sound that the face picks", "voice", "part of the face", "part of the sound"
    ),
    "cross_video_weights": Shown(
        "pairs", "faces that the sound picks", "face", "part of the sound", "part of the face"
    ),
    "audio_correlation": Shown(
        "signed", "how the sound goes with both", rows="part of the sound", columns="part of both"
    ),
    "video_correlation": Shown(
        "signed", "how the face goes with both", rows="part of the face", columns="part of both"
    ),
    "video_space_attention": Shown("places", "where in the face it looked", "face"),
    "video_channel_attention": Shown(
        "ranked", "channels of the face, strongest first", "face", columns="channel"
    ),
    "audio_gate": Shown("ranked", "gates of the sound, widest open first", "voice", columns="channel"),
    "video_gate": Shown("ranked", "gates of the face, widest open first", "face", columns="channel"),
    "correlation": Shown("cosine", "how far sound and face say the same"),
    "margins": Shown("classes", "Margins between classes", rows="anchor", columns="other class"),
    "class_weights": Shown("streams", "How far each stream is trusted, by class"),
}
"""Names that are drawn where a model has them."""

INSIDE = {
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

OF_THE_MODEL = (
    "margins",
    "class_weights",
    "audio_covariance",
    "video_covariance",
    "label_features",
    "polarity",
)
"""Names that have no row for each clip (`class_weights` may have one all the same)."""

SMALL = 12
"""Most numbers of a clip that are listed as text, of a name that is in neither table."""


WITHOUT_MEDIA = {
    "spectrogram": (
        "audio_attention",
        Shown("course", "attention over the sound's features", "voice", columns="step"),
    ),
    "faces": ("video_attention", Shown("course", "attention over the frames", "face", columns="frame")),
}
"""Attention that goes to the second picture where the records hold features instead of the field."""


def to_draw(example: Mapping, kinds: Iterable[str]) -> list[tuple[Shown, np.ndarray]]:
    """What the second picture of a clip shows, in the order of the tables."""
    found = [
        (shown, example[name])
        for field, (name, shown) in WITHOUT_MEDIA.items()
        if example.get(field) is None and example.get(name) is not None
    ]
    return found + [(SHOWN[name], x) for name, x in of_kind(example.get("aux") or {}, kinds).items()]


def of_kind(aux: Mapping[str, np.ndarray], kinds: Iterable[str]) -> dict[str, np.ndarray]:
    """The entries of `aux` that are drawn as one of `kinds`, in the order of the table."""
    return {name: aux[name] for name, how in SHOWN.items() if name in aux and how.kind in kinds}


def listed(aux: Mapping[str, np.ndarray]) -> list[tuple[str, str]]:
    """Names that no table knows and that are small: name and numbers as text."""
    small = [(name, value) for name, value in aux.items() if _unknown(name) and np.size(value) <= SMALL]
    return [(name, _numbers(value)) for name, value in small]


def not_drawn(aux: Mapping[str, np.ndarray]) -> list[tuple[str, str]]:
    """What the model has beside that: name, and what it is or its shape."""
    large = {
        name: f"{list(np.shape(value))}, unknown to the report"
        for name, value in aux.items()
        if _unknown(name) and np.size(value) > SMALL
    }
    return [*((name, words) for name, words in INSIDE.items() if name in aux), *large.items()]


def _unknown(name: str) -> bool:
    return name not in SHOWN and name not in INSIDE


def _numbers(value: np.ndarray) -> str:
    return ", ".join(f"{number:.3g}" for number in np.asarray(value, float).ravel())
