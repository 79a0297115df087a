"""What a model says of the windows of a file, and how it reads as JSON and as a table's row."""

import dataclasses
from collections.abc import Sequence

import numpy as np

UNKNOWN = "unknown"
"""The label of an answer that is less sure than asked for."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The answer for one window of a file."""

    path: str
    start: float
    """Seconds from the beginning of the file."""
    end: float
    label: str
    confidence: float
    """The highest probability, at the model's temperature: that of `label` unless it is `unknown`."""
    probabilities: dict[str, float]
    voice_weight: float | None
    """How much the fusion let the voice count, 0 to 1; None where the fusion has no such weight."""
    face_weight: float | None
    audio_ok: bool
    """False: no usable sound; the answer rests on the face alone."""
    video_ok: bool
    notes: str = ""
    """Remarks of the preparation, such as which of several faces was used."""

    def to_json(self) -> dict:
        """The JSON line of design.md; `notes` only where there are any."""
        fields = dataclasses.asdict(self)
        return fields if self.notes else {k: v for k, v in fields.items() if k != "notes"}


@dataclasses.dataclass(frozen=True)
class Window:
    """A part of a file, prepared."""

    path: str
    start: float
    """Seconds from the beginning of the file."""
    end: float
    found: object
    """Its Record, or in a line why it has no answer."""


@dataclasses.dataclass(frozen=True)
class Gap:
    """A window that has no answer, in a file whose other windows have."""

    path: str
    start: float
    end: float
    error: str

    def to_json(self) -> dict:
        """As a JSON line."""
        return dataclasses.asdict(self)


class Answers(list[Prediction | Gap]):
    """The answers for the windows of a file, in order: a list, and a table."""

    def to_pandas(self):
        """A pandas DataFrame of `row_of`, a row per window; ValueError where pandas is not installed."""
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise ValueError("to_pandas needs pandas: pip install 'emofuse[tables]'") from error
        return pandas.DataFrame([row_of(answer.to_json()) for answer in self])


def row_of(answer: dict) -> dict:
    """The JSON of an answer as a row: a column `p_<class>` for each probability."""
    flat = {}
    for name, value in answer.items():
        flat |= {f"p_{k}": p for k, p in value.items()} if name == "probabilities" else {name: value}
    return flat


def is_probability(value: object) -> bool:
    """Whether it is a number from 0 to 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def surer(answer: Prediction | Gap, least: float) -> Prediction | Gap:
    """The answer, with the label `unknown` where its confidence is below `least`."""
    unsure = isinstance(answer, Prediction) and answer.confidence < least
    return dataclasses.replace(answer, label=UNKNOWN) if unsure else answer


def answer_of(classes: Sequence[str], window: Window, output: dict[str, np.ndarray]) -> Prediction | Gap:
    """The answer for a window, from its row of the model's outputs, which a gap does not read."""
    start, end, found = round(window.start, 3), round(window.end, 3), window.found
    if isinstance(found, str):
        return Gap(window.path, start, end, found)
    where = {"path": window.path, "start": start, "end": end, "notes": found.notes}
    return prediction(classes, output, **where, audio_ok=bool(found.audio_ok), video_ok=bool(found.video_ok))


def prediction(
    classes: Sequence[str],
    answer: dict[str, np.ndarray],
    *,
    path: str = "",
    start: float = 0.0,
    end: float = 0.0,
    audio_ok: bool,
    video_ok: bool,
    notes: str = "",
) -> Prediction:
    """The answer for a clip, from its row of the model's outputs."""
    probabilities = answer["probabilities"]
    best = int(np.argmax(probabilities))
    weights = answer.get("modality_weights")
    voice, face = (None, None) if weights is None else map(float, weights)
    return Prediction(
        path=path,
        start=start,
        end=end,
        label=classes[best],
        confidence=float(probabilities[best]),
        probabilities={name: float(p) for name, p in zip(classes, probabilities, strict=True)},
        voice_weight=voice,
        face_weight=face,
        audio_ok=audio_ok,
        video_ok=video_ok,
        notes=notes,
    )
