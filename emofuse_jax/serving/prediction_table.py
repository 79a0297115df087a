"""Answers as a table for people."""

import os
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(answers: Sequence[dict], console: Console | None = None) -> None:
    """One row per window (predictor.Prediction.to_json); clips are named from their common folder on."""
    table = Table(box=None, header_style="bold")
    for name in ("clip", "seconds", "emotion", "probabilities", "found", "notes"):
        table.add_column(name, overflow="fold")
    root = os.path.commonpath([os.path.dirname(os.path.abspath(answer["path"])) for answer in answers])
    for answer in answers:
        clip = os.path.relpath(answer["path"], root)
        cells = (Text(cell) for cell in (clip, *_cells(answer)))
        table.add_row(*cells, style="red" if "error" in answer else None)
    (console or Console()).print(table)


def _cells(answer: dict) -> tuple[str, ...]:
    seconds = f"{answer['start']:.1f}-{answer['end']:.1f}" if "start" in answer else ""
    if "error" in answer:
        return seconds, "", "", "", answer["error"]
    ranked = sorted(answer["probabilities"].items(), key=lambda item: -item[1])
    probabilities = "  ".join(f"{name} {p:.2f}" for name, p in ranked[:3])
    label = f"{answer['label']} {100 * answer['confidence']:.0f} %"
    return seconds, label, probabilities, _found(answer), answer.get("notes", "")


def _found(answer: dict) -> str:
    """`voice 0.3, face 0.7`, or the one modality there is."""
    used = [name for name, ok in (("voice", answer["audio_ok"]), ("face", answer["video_ok"])) if ok]
    if len(used) == 1 or answer["voice_weight"] is None:
        return ", ".join(used) + (" alone" if len(used) == 1 else "")
    return ", ".join(f"{name} {answer[f'{name}_weight']:.2f}" for name in used)
