"""What a model says of the windows of a file, and how it reads as JSON and as a table's row."""

import dataclasses
from collections.abc import Sequence

import numpy as np

UNKNOWN_LABEL = "unknown"
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
        """Returns the fields of the JSON line; `notes` only where there are any."""
        fields = dataclasses.asdict(self)
        return fields if self.notes else {k: v for k, v in fields.items() if k != "notes"}


@dataclasses.dataclass(frozen=True)
class PreparedWindow:
    """A part of a file, prepared."""

    path: str
    start: float
    """Seconds from the beginning of the file."""
    end: float
    record_or_error: object
    """Its Record, or in a line why it has no answer."""


@dataclasses.dataclass(frozen=True)
class FailedWindow:
    """A window that has no answer, in a file whose other windows have."""

    path: str
    start: float
    end: float
    error: str

    def to_json(self) -> dict:
        """As a JSON line."""
        return dataclasses.asdict(self)


class FilePredictions(list[Prediction | FailedWindow]):
    """The answers for the windows of a file, in order: a list, and a table."""

    def to_pandas(self):
        """A pandas DataFrame of `to_table_row`, a row per window; ValueError where pandas is not
        installed."""
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise ValueError("to_pandas needs pandas: pip install 'emofuse[tables]'") from error
        return pandas.DataFrame([to_table_row(prediction.to_json()) for prediction in self])


def to_table_row(prediction: dict) -> dict:
    """The JSON of an answer as a row: a column `p_<class>` for each probability."""
    row = {}
    for name, value in prediction.items():
        row |= {f"p_{k}": p for k, p in value.items()} if name == "probabilities" else {name: value}
    return row


def is_probability(value: object) -> bool:
    """Whether it is a number from 0 to 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def apply_min_confidence(
    prediction: Prediction | FailedWindow, min_confidence: float
) -> Prediction | FailedWindow:
    """The answer, with the label `unknown` where its confidence is below `min_confidence`."""
    is_unsure = isinstance(prediction, Prediction) and prediction.confidence < min_confidence
    return dataclasses.replace(prediction, label=UNKNOWN_LABEL) if is_unsure else prediction


def make_window_prediction(
    classes: Sequence[str], window: PreparedWindow, output: dict[str, np.ndarray]
) -> Prediction | FailedWindow:
    """The answer for a window, from its row of the model's outputs, which a gap does not read."""
    start, end, record_or_error = round(window.start, 3), round(window.end, 3), window.record_or_error
    if isinstance(record_or_error, str):
        return FailedWindow(window.path, start, end, record_or_error)
    fields = {"path": window.path, "start": start, "end": end, "notes": record_or_error.notes}
    return make_prediction(
        classes,
        output,
        **fields,
        audio_ok=bool(record_or_error.audio_ok),
        video_ok=bool(record_or_error.video_ok),
    )


def make_prediction(
    classes: Sequence[str],
    outputs: dict[str, np.ndarray],
    *,
    path: str = "",
    start: float = 0.0,
    end: float = 0.0,
    audio_ok: bool,
    video_ok: bool,
    notes: str = "",
) -> Prediction:
    """The answer for a clip, from its row of the model's outputs."""
    probabilities = outputs["probabilities"]
    best_class = int(np.argmax(probabilities))
    modality_weights = outputs.get("modality_weights")
    voice_weight, face_weight = (None, None) if modality_weights is None else map(float, modality_weights)
    return Prediction(
        path=path,
        start=start,
        end=end,
        label=classes[best_class],
        confidence=float(probabilities[best_class]),
        probabilities={name: float(p) for name, p in zip(classes, probabilities, strict=True)},
        voice_weight=voice_weight,
        face_weight=face_weight,
        audio_ok=audio_ok,
        video_ok=video_ok,
        notes=notes,
    )
