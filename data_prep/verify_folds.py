"""Checks of splits and statistics: no speaker, take or copied file in two parts of a fold."""

import itertools
import json
import os

import numpy as np

PARTS = ("train", "validation", "test")


def check_folds(path: str, prep: dict, rows: list[dict]) -> list[str]:
    """One line for each problem of `splits/` and `stats/`."""
    by_clip = {row["clip_id"]: row for row in rows}
    problems = []
    for name in _files(os.path.join(path, "splits"), ".json"):
        shown = os.path.join("splits", name)
        try:
            with open(os.path.join(path, shown), encoding="utf-8") as file:
                parts = json.load(file)
            problems += [f"{shown}: {problem}" for problem in check_split(parts, by_clip)]
        except (ValueError, OSError, KeyError, TypeError) as error:
            problems.append(f"{shown}: {error}")
            continue
        stats = os.path.join("stats", name.removesuffix(".json") + ".npz")
        problems += [f"{stats}: {problem}" for problem in _check_stats(os.path.join(path, stats), prep)]
    return problems


def check_split(parts: dict[str, list[str]], by_clip: dict[str, dict]) -> list[str]:
    """What is wrong with one fold's lists of clip_ids, given the manifest's rows by clip_id."""
    problems = []
    for part in PARTS:
        absent = [c for c in parts[part] if c not in by_clip or by_clip[c]["status"] == "failed"]
        problems += [f"{part}: clip_id {clip!r} has no record" for clip in absent]
        if len(set(parts[part])) < len(parts[part]):
            problems.append(f"{part}: a clip_id stands twice")
        if part != "train" and any(int(by_clip[c]["label"]) < 0 for c in parts[part] if c in by_clip):
            problems.append(f"{part}: has unlabelled clips")
    for one, other in itertools.combinations(PARTS, 2):
        if parts[one] and sorted(parts[one]) == sorted(parts[other]):
            problems.append(f"{one} and {other} are the same clips")
        for what, key in (("take", _take), ("speaker", _speaker), ("file content", _content)):
            sides = [{key(by_clip[c]) for c in parts[part] if c in by_clip} for part in (one, other)]
            both = sorted(value for value in sides[0] & sides[1] if value)
            problems += [f"{what} {both[0]!r} is in {one} and {other} ({len(both)} of these)"] if both else []
    return problems


def _take(row: dict) -> str:
    return row.get("take") or row["clip_id"]


def _speaker(row: dict) -> str:
    return row["speaker"]


def _content(row: dict) -> str:
    """Copies of a file under two names; other parts of one file may belong to other speakers."""
    if "@" in row["clip_id"] and "start" not in row:  # a manifest of before these columns
        return ""
    part = "-".join(row.get(name, "") for name in ("start", "end"))
    return " of ".join(filter(None, (part.strip("-"), row["sha256"]))) if row["sha256"] else ""


def _check_stats(path: str, prep: dict) -> list[str]:
    try:
        with np.load(path, allow_pickle=False) as stats:
            values = {name: stats[name] for name in ("mean", "std")}
    except (OSError, ValueError, KeyError) as error:
        return [str(error)]
    problems = []
    for name, value in values.items():
        if value.shape != (prep["shape"]["f"],):
            problems.append(f"{name} has shape {list(value.shape)}, expected [{prep['shape']['f']}]")
        elif not np.isfinite(value).all() or (name == "std" and (value <= 0).any()):
            problems.append(f"{name} has values that are not finite{' and positive' * (name == 'std')}")
    return problems


def _files(folder: str, suffix: str) -> list[str]:
    """Paths of files below `folder`, relative to it."""
    if not os.path.isdir(folder):
        return []
    found = (os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
    return sorted(os.path.relpath(name, folder) for name in found if name.endswith(suffix))
