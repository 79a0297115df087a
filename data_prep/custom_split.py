"""A published split beside the protocols of a prepared directory, with its statistics."""

import csv
import json
import os

from data_prep.verify.folds import PARTS, check_lists, find_leaks
from emofuse_jax.data import records
from emofuse_jax.data.writing.shards import PROGRESS
from emofuse_jax.data.writing.splits import held_out
from emofuse_jax.data.writing.statistics import write_stats
from emofuse_jax.utils.files import write_json
from emofuse_jax.utils.locks import lock_directory

COLUMNS = ("clip_id", "part")


def add_split(path: str, name: str, table: str, *, allow_leak: bool = False) -> list[str]:
    """Writes splits/<name>/fold_0.json and stats/<name>/fold_0.npz from a CSV of clip_ids and parts.

    Without validation clips in the table, a seeded fifth of the training speakers validates. Clips that gave
    no record are left out.

    Args:
      path: directory of records.
      name: of the split; a protocol that is there already is refused.
      table: CSV with the columns clip_id and part (train, validation or test).
      allow_leak: takes a split whose parts share speakers, takes or files; its results are marked LEAKY.

    Returns:
      What the parts share; the split's file keeps it.

    Raises:
      ValueError: a table that can't be read, an unknown clip, or a leak without `allow_leak`.
    """
    with open(os.path.join(path, "prep.json"), encoding="utf-8") as file:
        prep = json.load(file)
    by_clip = {row["clip_id"]: row for row in records.read_manifest(path)}
    if not name.isidentifier():
        raise ValueError(f"name {name!r}: expected letters, digits and underscores")
    if os.path.exists(os.path.join(path, "splits", name)):
        raise ValueError(f"{path}: has a protocol {name} already")
    parts = _read(table, by_clip)
    if not parts["validation"]:
        parts = _with_validation(parts, by_clip, prep["sex"], name)
    problems, leaks = check_lists(parts, by_clip), find_leaks(parts, by_clip)
    if problems:
        raise ValueError(f"{table}: {problems[0]}")
    if leaks and not allow_leak:
        raise ValueError(f"{table}: {leaks[0]}; --allow_leak takes it, and marks every result LEAKY")
    with lock_directory(os.path.join(path, PROGRESS)):
        shards = [shard["name"] for shard in prep["shards"]]
        write_stats(path, shards, {(name, 0): parts}, records.RecordShape(**prep["shape"]))
        fold = parts | ({"leaks": leaks} if leaks else {})
        write_json(os.path.join(path, "splits", name, "fold_0.json"), fold)
    return leaks


def _read(table: str, by_clip: dict[str, dict]) -> dict[str, list[str]]:
    with open(table, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        rows = [(reader.line_num, row) for row in reader]
        if not set(COLUMNS) <= set(reader.fieldnames or ()):
            raise ValueError(f"{table}: row 1: expected the columns {', '.join(COLUMNS)}")
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    for line, row in rows:
        if row["part"] not in PARTS:
            raise ValueError(f"{table}: row {line}: part {row['part']!r}, expected {', '.join(PARTS)}")
        if row["clip_id"] not in by_clip:
            raise ValueError(f"{table}: row {line}: clip_id {row['clip_id']!r} is not in manifest.csv")
        if by_clip[row["clip_id"]]["status"] != "failed":
            parts[row["part"]].append(row["clip_id"])
    empty = [part for part in ("train", "test") if not parts[part]]
    if empty:
        raise ValueError(f"{table}: no clip of part {empty[0]}")
    return parts


def _with_validation(parts: dict, by_clip: dict[str, dict], sex: dict[str, str], name: str) -> dict:
    speakers = {by_clip[clip]["speaker"] for clip in parts["train"]}
    held = set(held_out(speakers, sex, f"{name}/0"))
    if not held:
        raise ValueError(f"split {name}: one training speaker alone, none can validate")
    chosen = [clip for clip in parts["train"] if by_clip[clip]["speaker"] in held]
    validation = [clip for clip in chosen if int(by_clip[clip]["label"]) >= 0]
    train = [clip for clip in parts["train"] if clip not in set(chosen)]
    return parts | {"train": train, "validation": validation}
