"""Reads your own clips from a CSV file.

The columns are `path,label,speaker` and optionally `start,end,take,half`.
Paths are relative to the folder of the CSV file. A clip with an empty label is unlabelled. `start` and `end`
are seconds of the media file. Clips with the same `take` show the same event, for example from two cameras.
`half` is left or right if two people share the picture, and empty otherwise.
"""

import csv
import math
import os

from emofuse_jax.data.writing.corpus import Corpus, MediaClip
from emofuse_jax.utils.files import open_csv

REQUIRED_COLUMNS = ("path", "label", "speaker")
TIME_COLUMNS = ("start", "end")
OPTIONAL_COLUMNS = (*TIME_COLUMNS, "take", "half")


def read_corpus(source: str) -> Corpus:
    """Returns a `Corpus` with the clips of a CSV file; the classes are the labels in alphabetical order.

    The columns are path (relative to the folder of the CSV file), label (a class name; empty: unlabelled) and
    speaker, and optionally start and end (seconds of the media file; empty: its beginning and end), take (a
    name that clips of one event share) and half (`left` or `right`, if two people share the picture).

    Clips have the order of the rows; media files are not opened and need not exist. A clip has as clip_id its
    path in the file, with `@<start>-<end>` if one of them is set (an empty start gives 0, an empty end
    nothing, as in `a.mp4@1.5-`), and the half if it is set, such as `a.mp4@1.5-3left`. It also has an
    absolute path, a label (index into the classes; -1: unlabelled), the speaker, start and end (None if
    empty), half and take. `root` is the absolute path of the folder of the file; `sex`, `notes` and
    `protocols` are empty.

    Args:
      source: a CSV file, or a folder with exactly one CSV file.

    Raises:
      ValueError: a folder does not have exactly one CSV file, the file is not CSV in UTF-8, or a column or
        value is missing, unknown or wrong; the message names the file, row and column.
      FileNotFoundError: the file does not exist.
      OSError: the file or folder can't be read.
    """
    csv_path = _find_csv(source)
    rows = _read_rows(csv_path)
    classes = tuple(sorted({row["label"] for _, row in rows} - {""}))
    clips = tuple(_parse_clip(csv_path, line_number, row, classes) for line_number, row in rows)
    return Corpus("folder", classes, clips, {}, (), root=os.path.dirname(os.path.abspath(csv_path)))


def _find_csv(source: str) -> str:
    if not os.path.isdir(source):
        return source
    csv_names = sorted(name for name in os.listdir(source) if name.lower().endswith(".csv"))
    if len(csv_names) != 1:
        raise ValueError(
            f"{source}: {len(csv_names)} CSV files, expected one; or set the CSV file itself as the source"
        )
    return os.path.join(source, csv_names[0])


def _read_rows(csv_path: str) -> list[tuple[int, dict[str, str]]]:
    with open_csv(csv_path, "save it again") as file:
        reader = csv.DictReader(file, strict=True)
        columns = reader.fieldnames or []
        rows = [(reader.line_num, row) for row in reader]
    missing = [name for name in REQUIRED_COLUMNS if name not in columns]
    unknown = [name for name in columns if name not in REQUIRED_COLUMNS + OPTIONAL_COLUMNS]
    if missing or unknown or len(set(columns)) < len(columns):
        raise ValueError(
            f"{csv_path}: row 1: columns {','.join(columns)}; expected"
            f" path,label,speaker[,start,end,take,half]"
        )
    for line_number, row in rows:
        if None in row or None in row.values():
            raise ValueError(f"{csv_path}: row {line_number}: expected {len(columns)} columns, as in row 1")
    return [(line_number, {name: value.strip() for name, value in row.items()}) for line_number, row in rows]


def _parse_clip(csv_path: str, line_number: int, row: dict[str, str], classes: tuple[str, ...]) -> MediaClip:
    for name in ("path", "speaker"):
        if not row[name]:
            raise ValueError(f"{csv_path}: row {line_number}: column {name} is empty, expected a {name}")
    start, end = (_parse_seconds(csv_path, line_number, name, row.get(name, "")) for name in TIME_COLUMNS)
    if end is not None and end <= (start or 0.0):
        raise ValueError(
            f"{csv_path}: row {line_number}: column end is {end:g}, expected more than start {start or 0:g};"
            " correct one of them"
        )
    path = row["path"].replace("\\", "/")
    time_suffix = "" if start is None and end is None else f"@{row.get('start') or 0}-{row.get('end', '')}"
    label = classes.index(row["label"]) if row["label"] else -1
    media_path = os.path.join(os.path.dirname(os.path.abspath(csv_path)), path)
    half, take = row.get("half", ""), row.get("take", "")
    if half not in ("", "left", "right"):
        raise ValueError(
            f"{csv_path}: row {line_number}: column half is {half!r}, expected left, right or nothing"
        )
    return MediaClip(
        os.path.normpath(path) + time_suffix + half, media_path, label, row["speaker"], start, end, half, take
    )


def _parse_seconds(csv_path: str, line_number: int, column: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(
            f"{csv_path}: row {line_number}: column {column} is {text!r}, expected seconds, 0 or more"
        )
    return value
