"""Checks splits and statistics: no speaker, take or copied file may be in two parts of a fold."""

import itertools
import json
import os
from collections.abc import Mapping, Sequence

import numpy as np

from emofuse_jax.data.metadata import SPLITS, FoldParts, ManifestStrings
from emofuse_jax.data.writing.statistics import FoldStatistics
from emofuse_jax.utils.safe_npz import read_npz

STATS_TOLERANCE = 1e-6
"""Tolerance for statistics, which may differ by rounding because sums have another order."""


def read_folds(path: str) -> tuple[dict[str, FoldParts], list[str]]:
    """Reads all JSON files below the folder `splits` in the directory `path`.

    Returns:
      A dict and a list. The dict has the lists `train`, `validation`, `test` (clip_ids) and `leaks` (lines)
      of each file, by the name of the file without extension, such as `demo_5fold/fold_0`, in the order of
      these names. The list has one line for each file that can't be read or lacks a list. Both are empty if
      there is no folder `splits`.

    Raises:
      RecursionError: a file is nested too deeply.
    """
    folds: dict[str, FoldParts] = {}
    problems = []
    for name in _list_files(os.path.join(path, "splits"), ".json"):
        try:
            with open(os.path.join(path, "splits", name), encoding="utf-8") as file:
                content = json.load(file)
            folds[name.removesuffix(".json")] = {
                "train": list(map(str, content["train"])),
                "validation": list(map(str, content["validation"])),
                "test": list(map(str, content["test"])),
                "leaks": list(content.get("leaks", ())),
            }
        except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"splits/{name}: {type(error).__name__}: {error}")
    return folds, problems


def check_folds(
    path: str,
    folds: Mapping[str, FoldParts],
    rows: Sequence[ManifestStrings],
    expected_statistics: Mapping[str, FoldStatistics] | None,
) -> list[str]:
    """Checks the splits and statistics of a directory.

    Args:
      path: directory of records.
      folds: for each fold, by its name, such as `demo_5fold/fold_0`, the lists of clip_ids `train`,
        `validation` and `test`, and `leaks`, the texts of the leaks that its split file accepts (empty if
        there are none).
      rows: rows of the manifest, a dict from column name to text for each clip.
      expected_statistics: the arrays `mean` and `std` of each fold, by its name, computed from the records;
        None: a shard is damaged, so the statistics are not checked.

    Returns:
      One line for each problem of `splits/` and `stats/`, also for statistics that can't be read; empty if
      there is none. Leaks that a split file lists itself (data_prep/custom_split.py) are not reported.

    Raises:
      ValueError: a label in `rows` is not an integer.
      KeyError: a row lacks a column, such as `sha256`, or a fold has no expected statistics.
      MemoryError: an array of a file in `stats/` does not fit in memory.
    """
    rows_by_clip = {row["clip_id"]: row for row in rows}
    problems = []
    for name, parts in folds.items():
        leaks = [leak for leak in find_leaks(parts, rows_by_clip) if leak not in parts["leaks"]]
        problems += [
            f"splits/{name}.json: {problem}" for problem in check_clip_lists(parts, rows_by_clip) + leaks
        ]
        stats_path = os.path.join(path, "stats", f"{name}.npz")
        expected = None if expected_statistics is None else expected_statistics[name]
        problems += [f"stats/{name}.npz: {problem}" for problem in _check_stats(stats_path, expected)]
    return problems


def check_clip_lists(parts: FoldParts, rows_by_clip: Mapping[str, ManifestStrings]) -> list[str]:
    """Checks the lists of clip_ids of one fold, `train`, `validation` and `test`.

    `rows_by_clip` has the row of the manifest of each clip_id. Returns one line for each problem: a clip
    without a record, a repeated clip_id, or unlabelled clips (label below 0) in validation or test; an empty
    list if there is none. Raises ValueError if a label is not an integer.
    """
    problems = []
    for part in SPLITS:
        missing_clips = [
            c for c in parts[part] if c not in rows_by_clip or rows_by_clip[c]["status"] == "failed"
        ]
        problems += [f"{part}: clip_id {clip!r} has no record" for clip in missing_clips]
        if len(set(parts[part])) < len(parts[part]):
            problems.append(f"{part}: a clip_id is listed twice")
        if part != "train" and any(
            int(rows_by_clip[c]["label"]) < 0 for c in parts[part] if c in rows_by_clip
        ):
            problems.append(f"{part}: contains unlabelled clips")
    return problems


def find_leaks(parts: FoldParts, rows_by_clip: Mapping[str, ManifestStrings]) -> list[str]:
    """Finds clips, takes, speakers and file contents that two parts of a fold share.

    `parts` has the lists `train`, `validation` and `test` of clip_ids, `rows_by_clip` the row of the manifest
    of each clip_id; other clip_ids are ignored. A take is a recording that several clips show, in the column
    `take` (if empty, the clip_id); equal file contents are equal `sha256`, `start` and `end`. Returns one
    line for each two parts and each kind, with the first shared value and the number of shared values, and
    one for two parts with the same clips; an empty list if nothing is shared. Raises KeyError if a row lacks
    `clip_id`, `speaker` or `sha256`.
    """
    leaks = []
    for first_part, second_part in itertools.combinations(SPLITS, 2):
        if parts[first_part] and sorted(parts[first_part]) == sorted(parts[second_part]):
            leaks.append(f"{first_part} and {second_part} contain the same clips")
        for kind, key in (("take", _get_take), ("speaker", _get_speaker), ("file content", _get_content)):
            part_values = [
                {key(rows_by_clip[c]) for c in parts[part] if c in rows_by_clip}
                for part in (first_part, second_part)
            ]
            shared_values = sorted(value for value in part_values[0] & part_values[1] if value)
            leaks += (
                [
                    f"{kind} {shared_values[0]!r} is in {first_part} and {second_part}"
                    f" ({len(shared_values)} shared)"
                ]
                if shared_values
                else []
            )
    return leaks


def _get_take(row: ManifestStrings) -> str:
    return row.get("take") or row["clip_id"]


def _get_speaker(row: ManifestStrings) -> str:
    return row["speaker"]


def _get_content(row: ManifestStrings) -> str:
    """Returns a key that is equal for copies of a file: its SHA-256 with start and end of the clip.

    Different parts of a file may belong to different speakers, so they have different keys. Returns an empty
    string if the hash, or the start and end, are unknown. Raises KeyError if the row lacks `clip_id` or
    `sha256`.
    """
    if "@" in row["clip_id"] and "start" not in row:  # an old manifest without these columns
        return ""
    part = "-".join(row.get(name, "") for name in ("start", "end"))
    return " of ".join(filter(None, (part.strip("-"), row["sha256"]))) if row["sha256"] else ""


def _check_stats(path: str, expected: FoldStatistics | None) -> list[str]:
    """Returns a line for each array (`mean`, `std`) of an .npz file that differs from `expected`.

    `expected` are the statistics of the training clips; those of other clips would leak information about
    them. The list is empty if both arrays are equal up to rounding (1e-6, absolute plus relative) or
    `expected` is None. If the file can't be read, it has one line. Raises MemoryError if an array does not
    fit in memory.
    """
    if expected is None:
        return []
    expected_arrays = {"mean": expected["mean"], "std": expected["std"]}
    try:
        values = read_npz(path, {name: array.shape for name, array in expected_arrays.items()})
    except (OSError, ValueError) as error:
        return [str(error)]
    wrong_names = [
        name
        for name, array in expected_arrays.items()
        if not np.allclose(values[name], array, rtol=STATS_TOLERANCE, atol=STATS_TOLERANCE)
    ]
    return [f"{name} differs from that of the training clips" for name in wrong_names]


def _list_files(folder: str, suffix: str) -> list[str]:
    """Returns the sorted paths, relative to `folder`, of the files below it whose names end with `suffix`.

    The list is empty if the folder does not exist.
    """
    if not os.path.isdir(folder):
        return []
    paths = (os.path.join(directory, name) for directory, _, names in os.walk(folder) for name in names)
    return sorted(os.path.relpath(name, folder) for name in paths if name.endswith(suffix))
