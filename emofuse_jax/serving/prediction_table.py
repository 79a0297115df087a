"""Prints predictions as a table on the terminal."""

import os
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from emofuse_jax.serving.predictions import PredictionFields, WindowFields


def print_table(predictions: Sequence[WindowFields], console: Console | None = None) -> None:
    """Prints a table of predictions with one row per window.

    The columns are the clip, the seconds of the window, the emotion with its confidence in per cent, the
    three largest probabilities, the usable modalities, and notes. A window without a prediction is a red row
    with the error in the column of notes.

    Args:
      predictions: JSON dicts of windows, at least one: {"path", "start", "end", "label", "confidence",
        "probabilities", "voice_weight", "face_weight", "audio_ok", "video_ok"}, with "notes" if there are
        any; or {"path", "error"}, with or without "start" and "end". Paths are shown relative to the folder
        that they have in common.
      console: where to print; by default stdout.

    Raises:
      ValueError: `predictions` is empty.
    """
    table = Table(box=None, header_style="bold")
    for name in ("clip", "seconds", "emotion", "probabilities", "modalities", "notes"):
        table.add_column(name, overflow="fold")
    root = os.path.commonpath(
        [os.path.dirname(os.path.abspath(prediction["path"])) for prediction in predictions]
    )
    for prediction in predictions:
        clip = os.path.relpath(prediction["path"], root)
        cells = (Text(cell) for cell in (clip, *_format_cells(prediction)))
        table.add_row(*cells, style="red" if "error" in prediction else None)
    (console or Console()).print(table)


def _format_cells(prediction: WindowFields) -> tuple[str, ...]:
    """Returns the five cells of a row as texts: seconds, emotion, probabilities, modalities, and notes.

    Examples are `0.0-3.2`, `happy 83 %`, `happy 0.83  sad 0.17` (at most three classes, largest first) and
    `voice 0.30, face 0.70`; the notes may be "". For a window without a prediction, the notes are the error
    and the other cells are "", except for the seconds if `prediction` has them.
    """
    time_range = f"{prediction['start']:.1f}-{prediction['end']:.1f}" if "start" in prediction else ""
    if "error" in prediction:
        return time_range, "", "", "", prediction["error"]
    ranked = sorted(prediction["probabilities"].items(), key=lambda item: -item[1])
    probabilities = "  ".join(f"{name} {p:.2f}" for name, p in ranked[:3])
    label = f"{prediction['label']} {100 * prediction['confidence']:.0f} %"
    return time_range, label, probabilities, _format_modalities(prediction), prediction.get("notes", "")


def _format_modalities(prediction: PredictionFields) -> str:
    """Returns the usable modalities as text, such as `voice 0.30, face 0.70` or `face only`.

    A modality without a weight is only named. Returns "" if no modality is usable.
    """
    modalities = (
        ("voice", prediction["audio_ok"], prediction["voice_weight"]),
        ("face", prediction["video_ok"], prediction["face_weight"]),
    )
    usable_weights = {name: weight for name, is_usable, weight in modalities if is_usable}
    if len(usable_weights) == 1:
        return f"{next(iter(usable_weights))} only"
    return ", ".join(
        name if weight is None else f"{name} {weight:.2f}" for name, weight in usable_weights.items()
    )
