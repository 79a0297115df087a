"""Adds a published split to a prepared directory, with its normalization statistics."""

import csv
import os
from collections.abc import Mapping

from data_prep.verify.folds import check_clip_lists, find_leaks
from emofuse_jax.data import records
from emofuse_jax.data.metadata import SPLITS, FoldParts, ManifestStrings
from emofuse_jax.data.prepared_files import read_prep
from emofuse_jax.data.writing.shards import PROGRESS_FOLDER
from emofuse_jax.data.writing.splits import choose_validation_speakers
from emofuse_jax.data.writing.statistics import write_fold_statistics
from emofuse_jax.utils.files import open_csv, write_json
from emofuse_jax.utils.locks import lock_directory

SPLIT_TABLE_COLUMNS = ("clip_id", "part")


def add_split(path: str, split_name: str, table_path: str, *, allow_leak: bool = False) -> list[str]:
    """Adds a split from a CSV file to a directory of records, as a new protocol with one fold.

    Writes splits/<split_name>/fold_0.json, with lists of clip_ids `train`, `validation` and `test`, and
    stats/<split_name>/fold_0.npz, which is replaced, with `mean` and `std` of each spectrogram bin. If the
    table has no validation clips, about a fifth of the training speakers, chosen with a fixed seed, become
    validation speakers. Clips whose preparation failed have no record and are left out.

    Args:
      path: directory of records.
      split_name: name of the new protocol: letters, digits and underscores, not a digit first.
      table_path: CSV file with the columns clip_id and part (train, validation or test).
      allow_leak: accept a split whose parts share speakers, takes or files; its results are marked LEAKY.

    Returns:
      A list with one line for each leak, that is, for each kind of thing (clips, takes, speakers, files) that
      two parts share; an empty list if there is none. The lines are also stored in fold_0.json.

    Raises:
      ValueError: `split_name` is not an identifier or exists already; the table or manifest.csv is not a CSV
        file in UTF-8; the table has wrong columns, an unknown part or clip_id, a repeated clip, an unlabelled
        clip for validation or test, or no clip for training or test; there is no validation clip and only one
        training speaker; prep.json is not JSON, has another schema or lacks a field; manifest.csv lacks a
        column, or a label in it is not an integer; a shard is damaged, or a record can't be decoded; there is
        a leak and `allow_leak` is False; or another process is working in `path`.
      KeyError: a dict in `shards` of prep.json has no `name`.
      OSError: the table, prep.json, manifest.csv or a shard is missing or can't be read, or a file can't be
        written.
    """
    prep = read_prep(path)
    rows = records.read_manifest(path)
    if rows and "sha256" not in rows[0]:  # needed to find copies of a file in two parts
        raise ValueError(f"{path}/manifest.csv: no column 'sha256'; prepare the clips again")
    rows_by_clip = {row["clip_id"]: row for row in rows}
    if not split_name.isidentifier():
        raise ValueError(
            f"split name {split_name!r}: expected letters, digits and underscores, not a digit first"
        )
    if os.path.exists(os.path.join(path, "splits", split_name)):
        raise ValueError(f"{path}: protocol {split_name} exists already; choose another name")
    parts = _read_split_table(table_path, rows_by_clip)
    if not parts["validation"]:
        parts = _add_validation_part(parts, rows_by_clip, prep["sex"], split_name)
    problems, leaks = check_clip_lists(parts, rows_by_clip), find_leaks(parts, rows_by_clip)
    if problems:
        raise ValueError(f"{table_path}: the split is not valid, correct this table: {problems[0]}")
    if leaks and not allow_leak:
        raise ValueError(
            f"{table_path}: its parts are not independent: {leaks[0]}; change the table, or accept it by"
            " --allow_leak, which marks every result LEAKY"
        )
    with lock_directory(os.path.join(path, PROGRESS_FOLDER)):
        shard_names = [shard["name"] for shard in prep["shards"]]
        write_fold_statistics(
            path, shard_names, {(split_name, 0): parts}, records.RecordShape(**prep["shape"])
        )
        if leaks:
            parts["leaks"] = leaks
        write_json(os.path.join(path, "splits", split_name, "fold_0.json"), parts)
    return leaks


def _read_split_table(table_path: str, rows_by_clip: Mapping[str, ManifestStrings]) -> FoldParts:
    with open_csv(table_path, "save it again") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or ()
        rows = [(reader.line_num, row) for row in reader]
    if not set(SPLIT_TABLE_COLUMNS) <= set(columns):
        raise ValueError(f"{table_path}: row 1: expected the columns {', '.join(SPLIT_TABLE_COLUMNS)}")
    parts: dict[str, list[str]] = {part: [] for part in SPLITS}
    for line_number, row in rows:
        if row["part"] not in SPLITS:
            raise ValueError(
                f"{table_path}: row {line_number}: part {row['part']!r}, expected {', '.join(SPLITS)}"
            )
        if row["clip_id"] not in rows_by_clip:
            raise ValueError(
                f"{table_path}: row {line_number}: clip_id {row['clip_id']!r} is not in manifest.csv of"
                " the records; correct it"
            )
        if rows_by_clip[row["clip_id"]]["status"] != "failed":
            parts[row["part"]].append(row["clip_id"])
    empty_parts = [part for part in ("train", "test") if not parts[part]]
    if empty_parts:
        raise ValueError(
            f"{table_path}: no clip of part {empty_parts[0]} has a record, expected at least one; add clips"
            " that manifest.csv does not list as failed"
        )
    return {"train": parts["train"], "validation": parts["validation"], "test": parts["test"]}


def _add_validation_part(
    parts: FoldParts, rows_by_clip: Mapping[str, ManifestStrings], sex: dict[str, str], split_name: str
) -> FoldParts:
    speakers = {rows_by_clip[clip]["speaker"] for clip in parts["train"]}
    validation_speakers = set(choose_validation_speakers(speakers, sex, f"{split_name}/0"))
    if not validation_speakers:
        raise ValueError(
            f"split {split_name}: 1 training speaker, expected at least 2 (one validates); add speakers or"
            " validation clips to the table"
        )
    held_out_clips = [clip for clip in parts["train"] if rows_by_clip[clip]["speaker"] in validation_speakers]
    validation = [clip for clip in held_out_clips if int(rows_by_clip[clip]["label"]) >= 0]
    train = [clip for clip in parts["train"] if clip not in set(held_out_clips)]
    return {"train": train, "validation": validation, "test": parts["test"]}
