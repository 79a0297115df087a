"""Answers as a table for people."""

import os
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(predictions: Sequence[dict], console: Console | None = None) -> None:
    """One row per window (`predictions.Prediction.to_json`); clips are named from their common folder on."""
    table = Table(box=None, header_style="bold")
    for name in ("clip", "seconds", "emotion", "probabilities", "found", "notes"):
        table.add_column(name, overflow="fold")
    root = os.path.commonpath(
        [os.path.dirname(os.path.abspath(prediction["path"])) for prediction in predictions]
    )
    for prediction in predictions:
        clip = os.path.relpath(prediction["path"], root)
        cells = (Text(cell) for cell in (clip, *_format_cells(prediction)))
        table.add_row(*cells, style="red" if "error" in prediction else None)
    (console or Console()).print(table)


def _format_cells(prediction: dict) -> tuple[str, ...]:
    time_range = f"{prediction['start']:.1f}-{prediction['end']:.1f}" if "start" in prediction else ""
    if "error" in prediction:
        return time_range, "", "", "", prediction["error"]
    ranked = sorted(prediction["probabilities"].items(), key=lambda item: -item[1])
    probabilities = "  ".join(f"{name} {p:.2f}" for name, p in ranked[:3])
    label = f"{prediction['label']} {100 * prediction['confidence']:.0f} %"
    return time_range, label, probabilities, _format_modalities(prediction), prediction.get("notes", "")


def _format_modalities(prediction: dict) -> str:
    """`voice 0.3, face 0.7`, or the one modality there is."""
    usable_modalities = [
        name for name, ok in (("voice", prediction["audio_ok"]), ("face", prediction["video_ok"])) if ok
    ]
    if len(usable_modalities) == 1 or prediction["voice_weight"] is None:
        return ", ".join(usable_modalities) + (" alone" if len(usable_modalities) == 1 else "")
    return ", ".join(f"{name} {prediction[f'{name}_weight']:.2f}" for name in usable_modalities)
