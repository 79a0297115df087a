"""A published split beside the protocols of a prepared directory, with its statistics."""

import csv
import json
import os

from data_prep.verify.folds import PARTS, check_clip_lists, find_leaks
from emofuse_jax.data import records
from emofuse_jax.data.writing.shards import PROGRESS_FOLDER
from emofuse_jax.data.writing.splits import choose_validation_speakers
from emofuse_jax.data.writing.statistics import write_fold_statistics
from emofuse_jax.utils.files import write_json
from emofuse_jax.utils.locks import lock_directory

SPLIT_TABLE_COLUMNS = ("clip_id", "part")


def add_split(path: str, split_name: str, table_path: str, *, allow_leak: bool = False) -> list[str]:
    """Writes splits/<name>/fold_0.json and stats/<name>/fold_0.npz from a CSV of clip_ids and parts.

    Without validation clips in the table, a seeded fifth of the training speakers validates. Clips that gave
    no record are left out.

    Args:
      path: directory of records.
      split_name: of the split; a protocol that is there already is refused.
      table_path: CSV with the columns clip_id and part (train, validation or test).
      allow_leak: takes a split whose parts share speakers, takes or files; its results are marked LEAKY.

    Returns:
      What the parts share; the split's file keeps it.

    Raises:
      ValueError: a table that can't be read, an unknown clip, or a leak without `allow_leak`.
    """
    with open(os.path.join(path, "prep.json"), encoding="utf-8") as file:
        prep = json.load(file)
    rows_by_clip = {row["clip_id"]: row for row in records.read_manifest(path)}
    if not split_name.isidentifier():
        raise ValueError(f"name {split_name!r}: expected letters, digits and underscores")
    if os.path.exists(os.path.join(path, "splits", split_name)):
        raise ValueError(f"{path}: has a protocol {split_name} already")
    parts = _read_split_table(table_path, rows_by_clip)
    if not parts["validation"]:
        parts = _add_validation_part(parts, rows_by_clip, prep["sex"], split_name)
    problems, leaks = check_clip_lists(parts, rows_by_clip), find_leaks(parts, rows_by_clip)
    if problems:
        raise ValueError(f"{table_path}: {problems[0]}")
    if leaks and not allow_leak:
        raise ValueError(f"{table_path}: {leaks[0]}; --allow_leak takes it, and marks every result LEAKY")
    with lock_directory(os.path.join(path, PROGRESS_FOLDER)):
        shard_names = [shard["name"] for shard in prep["shards"]]
        write_fold_statistics(
            path, shard_names, {(split_name, 0): parts}, records.RecordShape(**prep["shape"])
        )
        fold = parts | ({"leaks": leaks} if leaks else {})
        write_json(os.path.join(path, "splits", split_name, "fold_0.json"), fold)
    return leaks


def _read_split_table(table_path: str, rows_by_clip: dict[str, dict]) -> dict[str, list[str]]:
    with open(table_path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        rows = [(reader.line_num, row) for row in reader]
        if not set(SPLIT_TABLE_COLUMNS) <= set(reader.fieldnames or ()):
            raise ValueError(f"{table_path}: row 1: expected the columns {', '.join(SPLIT_TABLE_COLUMNS)}")
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    for line_number, row in rows:
        if row["part"] not in PARTS:
            raise ValueError(
                f"{table_path}: row {line_number}: part {row['part']!r}, expected {', '.join(PARTS)}"
            )
        if row["clip_id"] not in rows_by_clip:
            raise ValueError(
                f"{table_path}: row {line_number}: clip_id {row['clip_id']!r} is not in manifest.csv"
            )
        if rows_by_clip[row["clip_id"]]["status"] != "failed":
            parts[row["part"]].append(row["clip_id"])
    empty_parts = [part for part in ("train", "test") if not parts[part]]
    if empty_parts:
        raise ValueError(f"{table_path}: no clip of part {empty_parts[0]}")
    return parts


def _add_validation_part(
    parts: dict, rows_by_clip: dict[str, dict], sex: dict[str, str], split_name: str
) -> dict:
    speakers = {rows_by_clip[clip]["speaker"] for clip in parts["train"]}
    validation_speakers = set(choose_validation_speakers(speakers, sex, f"{split_name}/0"))
    if not validation_speakers:
        raise ValueError(f"split {split_name}: one training speaker alone, none can validate")
    held_out_clips = [clip for clip in parts["train"] if rows_by_clip[clip]["speaker"] in validation_speakers]
    validation = [clip for clip in held_out_clips if int(rows_by_clip[clip]["label"]) >= 0]
    train = [clip for clip in parts["train"] if clip not in set(held_out_clips)]
    return parts | {"train": train, "validation": validation}
