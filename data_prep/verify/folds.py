"""Checks of splits and statistics: no speaker, take or copied file in two parts of a fold."""

import itertools
import json
import os

import numpy as np

from emofuse_jax.utils.safe_npz import read_npz

PARTS = ("train", "validation", "test")
STATS_TOLERANCE = 1e-6
"""Statistics may differ so much from those of the records: sums in another order."""


def read_folds(path: str) -> tuple[dict[str, dict], list[str]]:
    """The lists of each file below `splits/` by its name without ending, and what is wrong with files."""
    folds, problems = {}, []
    for name in _list_files(os.path.join(path, "splits"), ".json"):
        try:
            with open(os.path.join(path, "splits", name), encoding="utf-8") as file:
                parts = json.load(file)
            folds[name.removesuffix(".json")] = {part: list(map(str, parts[part])) for part in PARTS} | {
                "leaks": list(parts.get("leaks", ()))
            }
        except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"splits/{name}: {type(error).__name__}: {error}")
    return folds, problems


def check_folds(
    path: str, folds: dict[str, dict], rows: list[dict], expected_statistics: dict | None
) -> list[str]:
    """One line for each problem of `splits/` and `stats/`.

    `rows`: of the manifest; `expected_statistics`: mean and std of each fold as the records have them, None
    where a shard is damaged. Leaks that a split names itself (data_prep/custom_split.py) are no problem here.
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


def check_clip_lists(parts: dict[str, list[str]], rows_by_clip: dict[str, dict]) -> list[str]:
    """What is wrong with one fold's lists of clip_ids themselves, given the manifest's rows by clip_id."""
    problems = []
    for part in PARTS:
        missing_clips = [
            c for c in parts[part] if c not in rows_by_clip or rows_by_clip[c]["status"] == "failed"
        ]
        problems += [f"{part}: clip_id {clip!r} has no record" for clip in missing_clips]
        if len(set(parts[part])) < len(parts[part]):
            problems.append(f"{part}: a clip_id stands twice")
        if part != "train" and any(
            int(rows_by_clip[c]["label"]) < 0 for c in parts[part] if c in rows_by_clip
        ):
            problems.append(f"{part}: has unlabelled clips")
    return problems


def find_leaks(parts: dict[str, list[str]], rows_by_clip: dict[str, dict]) -> list[str]:
    """What two parts of one fold share: clips, takes, speakers, file contents."""
    leaks = []
    for first_part, second_part in itertools.combinations(PARTS, 2):
        if parts[first_part] and sorted(parts[first_part]) == sorted(parts[second_part]):
            leaks.append(f"{first_part} and {second_part} are the same clips")
        for kind, key in (("take", _get_take), ("speaker", _get_speaker), ("file content", _get_content)):
            part_values = [
                {key(rows_by_clip[c]) for c in parts[part] if c in rows_by_clip}
                for part in (first_part, second_part)
            ]
            shared_values = sorted(value for value in part_values[0] & part_values[1] if value)
            leaks += (
                [
                    f"{kind} {shared_values[0]!r} is in {first_part} and {second_part}"
                    f" ({len(shared_values)} of these)"
                ]
                if shared_values
                else []
            )
    return leaks


def _get_take(row: dict) -> str:
    return row.get("take") or row["clip_id"]


def _get_speaker(row: dict) -> str:
    return row["speaker"]


def _get_content(row: dict) -> str:
    """Copies of a file under two names; other parts of one file may belong to other speakers."""
    if "@" in row["clip_id"] and "start" not in row:  # a manifest of before these columns
        return ""
    part = "-".join(row.get(name, "") for name in ("start", "end"))
    return " of ".join(filter(None, (part.strip("-"), row["sha256"]))) if row["sha256"] else ""


def _check_stats(path: str, expected: dict | None) -> list[str]:
    """Statistics must be those of the training clips' records: others have seen other clips."""
    if expected is None:
        return []
    try:
        values = read_npz(path, {name: expected_array.shape for name, expected_array in expected.items()})
    except (OSError, ValueError) as error:
        return [str(error)]
    tolerances = {"rtol": STATS_TOLERANCE, "atol": STATS_TOLERANCE}
    wrong_names = [
        name
        for name, expected_array in expected.items()
        if not np.allclose(values[name], expected_array, **tolerances)
    ]
    return [f"{name} is not that of the training clips" for name in wrong_names]


def _list_files(folder: str, suffix: str) -> list[str]:
    """Paths of files below `folder`, relative to it."""
    if not os.path.isdir(folder):
        return []
    paths = (os.path.join(directory, name) for directory, _, names in os.walk(folder) for name in names)
    return sorted(os.path.relpath(name, folder) for name in paths if name.endswith(suffix))
