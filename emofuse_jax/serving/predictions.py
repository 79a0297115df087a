"""Predictions for the windows of a file, and their form as JSON and as table rows."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NotRequired, TypedDict, TypeVar, cast, final

import numpy as np

from emofuse_jax.data.records import Failure, Record
from emofuse_jax.utils.optional import require_package

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN_LABEL = "unknown"
"""Label of a prediction whose confidence is below the requested minimum."""


@final
class PredictionFields(TypedDict):
    """JSON object of a `Prediction`."""

    path: str
    start: float
    end: float
    label: str
    confidence: float
    probabilities: dict[str, float]
    voice_weight: float | None
    face_weight: float | None
    audio_ok: bool
    video_ok: bool
    notes: NotRequired[str]
    """Absent if there are no notes."""


@final
class FailedFields(TypedDict):
    """JSON object of a `FailedWindow`, or of a file without any prediction (no `start` and `end`)."""

    path: str
    start: NotRequired[float]
    end: NotRequired[float]
    error: str


WindowFields = PredictionFields | FailedFields
"""JSON object of one window."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Prediction for one window of a file."""

    path: str
    """Path of the media file."""
    start: float
    """Start of the window in the file, in seconds."""
    end: float
    """End of the window in the file, in seconds."""
    label: str
    """Name of the most probable class, or `unknown`."""
    confidence: float
    """Highest probability, after temperature scaling; the probability of `label` unless that is `unknown`."""
    probabilities: dict[str, float]
    """Probability of each class, by class name."""
    voice_weight: float | None
    """Weight that the fusion gives to the voice, 0 to 1; None if the fusion has no such weight."""
    face_weight: float | None
    """Weight that the fusion gives to the face, 0 to 1; None if the fusion has no such weight."""
    audio_ok: bool
    """False if the window has no usable audio; the prediction is then based on the face alone."""
    video_ok: bool
    """False if the window has no usable face; the prediction is then based on the voice alone."""
    notes: str = ""
    """Notes of the preparation, for example which of several faces was used."""

    def to_json(self) -> PredictionFields:
        """Returns a dict with all fields of the prediction by name, without `notes` if that is empty.

        The keys are `path`, `start` and `end` (seconds), `label`, `confidence`, `probabilities` (a dict by
        class name), `voice_weight` and `face_weight` (None if the model has none), `audio_ok` and `video_ok`
        (False if voice or face is not usable) and `notes` (text).
        """
        fields = dataclasses.asdict(self)
        return cast(PredictionFields, {k: v for k, v in fields.items() if k != "notes" or v})


@dataclasses.dataclass(frozen=True)
class PreparedWindow:
    """Prepared part of a media file."""

    path: str
    """Path of the media file."""
    start: float
    """Start of the window in the file, in seconds."""
    end: float
    """End of the window in the file, in seconds."""
    result: Record | Failure
    """Record of the window, or the reason why it could not be prepared."""


@dataclasses.dataclass(frozen=True)
class FailedWindow:
    """Window without a prediction, and the reason."""

    path: str
    """Path of the media file."""
    start: float
    """Start of the window in the file, in seconds."""
    end: float
    """End of the window in the file, in seconds."""
    error: str
    """Reason, in one line."""

    def to_json(self) -> FailedFields:
        """Returns the dict {"path", "start", "end", "error"} for a JSON line, with times in seconds."""
        return cast(FailedFields, dataclasses.asdict(self))


PredictionT = TypeVar("PredictionT", Prediction, Prediction | FailedWindow)
"""A Prediction, or a FailedWindow too if the argument can be one."""


class FilePredictions(list[Prediction | FailedWindow]):
    """Predictions for the windows of a file, in order; a list that converts to a table."""

    def to_pandas(self) -> "pd.DataFrame":
        """Returns a pandas DataFrame with one row per window, in the order of this list.

        The columns are `path`, `start`, `end` (seconds), `label`, `confidence`, `p_<class>` with the
        probability of each class, `voice_weight`, `face_weight`, `audio_ok` and `video_ok`, and `notes` and
        `error` if a window has them. A field that a window does not have is NaN.

        Raises:
          ValueError: pandas is not installed.
          ImportError: pandas is installed, but cannot be imported.
        """
        pandas = require_package("pandas", "tables", "to_pandas")
        return pandas.DataFrame([to_table_row(prediction.to_json()) for prediction in self])


def to_table_row(prediction: WindowFields) -> dict[str, object]:
    """Returns the JSON dict of a prediction with `probabilities` replaced by one key `p_<class>` per class.

    The dict of a window without a prediction is returned as an equal copy.
    """
    row: dict[str, object] = {}
    for name, value in prediction.items():
        if name == "probabilities":
            row |= {f"p_{class_name}": p for class_name, p in cast(dict[str, float], value).items()}
        else:
            row[name] = value
    return row


def is_probability(value: object) -> bool:
    """Returns True if `value` is a number from 0 to 1 and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def check_min_confidence(value: object) -> None:
    """Raises ValueError if `value` is a bool, or not a number from 0 to 1 (both included)."""
    if not is_probability(value):
        raise ValueError(f"min_confidence={value}: expected a number from 0 to 1")


def apply_min_confidence(prediction: PredictionT, min_confidence: float) -> PredictionT:
    """Returns a copy with the label `unknown` if the confidence of a prediction is below `min_confidence`.

    Its other fields stay. Any other prediction, or a FailedWindow, is returned unchanged.
    """
    if isinstance(prediction, Prediction) and prediction.confidence < min_confidence:
        return dataclasses.replace(prediction, label=UNKNOWN_LABEL)
    return prediction


def make_window_prediction(
    classes: Sequence[str], window: PreparedWindow, output: Mapping[str, np.ndarray]
) -> Prediction | FailedWindow:
    """Returns the Prediction for a prepared window, or a FailedWindow if its preparation failed.

    A Prediction has `path`, `start`, `end`, `label` (the most probable class), `confidence` (its
    probability), `probabilities` (dict by class name), `voice_weight` and `face_weight` (None if `output` has
    none), and the `audio_ok`, `video_ok` and `notes` of the window's Record. A FailedWindow has `path`,
    `start`, `end` and `error`. Times are seconds, rounded to milliseconds.

    Args:
      classes: class names in the order of the probabilities.
      window: has `path`, `start`, `end` and `result`, a Record or a Failure, whose `reason` becomes `error`.
      output: row of the model's outputs for this window, by name: `probabilities` [c] and optionally
        `modality_weights` [2] (voice, face); not read if the preparation failed.

    Raises:
      ValueError: the number of probabilities is not that of the classes, or `modality_weights` does not have
        two values.
    """
    start, end, result = round(window.start, 3), round(window.end, 3), window.result
    if isinstance(result, Failure):
        return FailedWindow(window.path, start, end, result.reason)
    return make_prediction(
        classes,
        output,
        path=window.path,
        start=start,
        end=end,
        audio_ok=bool(result.audio_ok),
        video_ok=bool(result.video_ok),
        notes=result.notes,
    )


def make_prediction(
    classes: Sequence[str],
    outputs: Mapping[str, np.ndarray],
    *,
    path: str = "",
    start: float = 0.0,
    end: float = 0.0,
    audio_ok: bool,
    video_ok: bool,
    notes: str = "",
) -> Prediction:
    """Returns the Prediction for one clip from its row of the model's outputs.

    The label is the most probable class, `confidence` is its probability, and `probabilities` is a dict by
    class name. `voice_weight` and `face_weight` are None if `outputs` has no `modality_weights`. The other
    fields are the arguments of the same name.

    Args:
      classes: class names in the order of the probabilities.
      outputs: row of the model's outputs by name: `probabilities` [c] and optionally `modality_weights` [2]
        (voice, face).
      path: path of the media file.
      start: start of the window in the file, in seconds.
      end: end of the window in the file, in seconds.
      audio_ok: False if the clip has no usable audio.
      video_ok: False if the clip has no usable face.
      notes: notes of the preparation.

    Raises:
      ValueError: the number of probabilities is not that of the classes, or `modality_weights` does not have
        two values.
    """
    probabilities = outputs["probabilities"]
    probabilities_by_class = {name: float(p) for name, p in zip(classes, probabilities, strict=True)}
    best_class = int(np.argmax(probabilities))
    modality_weights = outputs.get("modality_weights")
    voice_weight, face_weight = (None, None) if modality_weights is None else map(float, modality_weights)
    return Prediction(
        path=path,
        start=start,
        end=end,
        label=classes[best_class],
        confidence=float(probabilities[best_class]),
        probabilities=probabilities_by_class,
        voice_weight=voice_weight,
        face_weight=face_weight,
        audio_ok=audio_ok,
        video_ok=video_ok,
        notes=notes,
    )
