"""Reads a prepared directory again and lists its problems: `python -m data_prep.verify.records DIR`."""

import collections
import json
import os
import sys
from collections.abc import Sequence

import numpy as np

from data_prep.onnx_models.encoder_settings import FeatureSettings
from data_prep.verify.folds import check_folds, read_folds
from emofuse_jax.data import records
from emofuse_jax.data.metadata import ManifestStrings, PrepMetadata, ShardEntry
from emofuse_jax.data.prepared_files import PREPARE_AGAIN
from emofuse_jax.data.writing.shards import read_shard
from emofuse_jax.data.writing.statistics import FoldMoments
from emofuse_jax.utils.errors import other_schema_error
from emofuse_jax.utils.files import file_sha256


def verify(path: str) -> list[str]:
    """Checks a directory of records and returns its problems.

    Checks the checksum, number and order of the records of each shard against prep.json and manifest.csv,
    the shapes, ranges and finiteness of each record, the label histogram, and for each fold its clip_ids, its
    statistics, and that no two parts share clips, takes, speakers or files.

    Returns:
      One line for each problem, with file, field, value and expected value; empty if there is none. Files
      that can't be read are problems too.

    Raises:
      RecursionError: prep.json or a file in `splits/` is nested too deeply.
    """
    try:
        with open(os.path.join(path, "prep.json"), encoding="utf-8") as file:
            prep: PrepMetadata = json.load(file)
        rows = records.read_manifest(path)
        schema = prep["schema_version"]
        if schema != records.SCHEMA_VERSION:
            error = other_schema_error(
                "prep.json", "records", schema, records.SCHEMA_VERSION, prep, PREPARE_AGAIN
            )
            return [str(error)]
        stored_rows = [row for row in rows if row["status"] != "failed"]
        folds, problems = read_folds(path)
        moments = FoldMoments(folds, prep["shape"]["f"])
        shard_problems = _check_shards(path, prep, stored_rows, moments)
        problems = _check_manifest(rows, stored_rows, prep) + shard_problems + problems
        problems += check_folds(path, folds, rows, None if shard_problems else moments.results())
    except (AttributeError, OSError, ValueError, KeyError, TypeError) as error:
        return [f"{path}: prep.json or manifest.csv: {type(error).__name__}: {error}"]
    return problems


def _check_manifest(
    rows: Sequence[ManifestStrings], stored_rows: Sequence[ManifestStrings], prep: PrepMetadata
) -> list[str]:
    problems = []
    if [int(row["index"]) for row in stored_rows] != list(range(len(stored_rows))):
        problems.append("manifest.csv: index is not 0, 1, 2, ... over the clips with a record")
    duplicate_ids = [clip for clip, n in collections.Counter(row["clip_id"] for row in rows).items() if n > 1]
    problems += [f"manifest.csv: clip_id {clip!r} is listed twice" for clip in duplicate_ids]
    expected = sum(shard["records"] for shard in prep["shards"])
    if expected != len(stored_rows):
        problems.append(
            f"manifest.csv: {len(stored_rows)} clips with a record, expected {expected} by prep.json"
        )
    return problems


def _check_shards(
    path: str, prep: PrepMetadata, stored_rows: Sequence[ManifestStrings], moments: FoldMoments[str]
) -> list[str]:
    shape = records.RecordShape(**prep["shape"])
    histogram: collections.Counter[int] = collections.Counter()
    problems, row_start, is_intact = [], 0, True
    for shard in prep["shards"]:
        rows = stored_rows[row_start : row_start + shard["records"]]
        row_start += shard["records"]
        shard_problems = _check_file(os.path.join(path, shard["name"]), shard)
        if shard_problems:
            is_intact = False  # the content of a damaged shard is not checked
        else:
            shard_problems = _check_records(
                os.path.join(path, shard["name"]), shape, prep, rows, histogram, moments
            )
        problems += [f"{shard['name']}: {problem}" for problem in shard_problems]
    expected = collections.Counter(int(row["label"]) for row in stored_rows)
    if is_intact and histogram != expected:
        problems.append(f"label histogram {dict(histogram)}, expected {dict(expected)} by manifest.csv")
    return problems


def _check_file(path: str, shard: ShardEntry) -> list[str]:
    if not os.path.exists(path):
        return ["is missing"]
    digest = file_sha256(path)
    return (
        [f"sha256 {digest[:12]}..., expected {shard['sha256'][:12]}..."] if digest != shard["sha256"] else []
    )


def _check_records(
    path: str,
    shape: records.RecordShape,
    prep: PrepMetadata,
    rows: Sequence[ManifestStrings],
    histogram: collections.Counter[int],
    moments: FoldMoments[str],
) -> list[str]:
    """Returns the problems of the records of a shard, one line each; an empty list if there is none.

    `path` is the shard, `shape` the dimensions of its records, and `prep` the content of prep.json. The
    records are compared with `rows`, their rows of the manifest, in order. Readable records are added to
    `histogram`, the number of records of each label, and to `moments`, the sums for mean and standard
    deviation. A damaged shard or record, and a label in `rows` that is not an integer, are problems. Raises
    OSError if the shard can't be read; KeyError, TypeError or AttributeError if `prep` lacks a field or has
    wrong encoder settings.
    """
    problems, num_records = [], 0
    try:
        for data in read_shard(path):
            if num_records < len(rows):
                problems += [
                    f"record {num_records}: {problem}"
                    for problem in _check_encoded(data, shape, prep, rows[num_records], histogram, moments)
                ]
            num_records += 1
    except ValueError as error:  # the shard has the SHA-256 of prep.json, but is not an ArrayRecord file
        return [*problems, str(error)]
    if num_records != len(rows):
        problems.append(f"contains {num_records} records, expected {len(rows)}")
    return problems


def _check_encoded(
    data: bytes,
    shape: records.RecordShape,
    prep: PrepMetadata,
    row: ManifestStrings,
    histogram: collections.Counter[int],
    moments: FoldMoments[str],
) -> list[str]:
    """Returns the problems of the encoded record `data`, one line each; an empty list if there is none.

    `shape` has the dimensions of the record, `prep` the content of prep.json, `row` its row of the manifest.
    If the record can be decoded, its label is counted in `histogram` and it is added to `moments`; otherwise
    the problem says why. Raises KeyError, TypeError or AttributeError if `prep` lacks a field or has wrong
    encoder settings.
    """
    try:
        record = records.decode(data, shape)
        histogram[record.label] += 1
        moments.add(record)
        return check_record(record, row, prep)
    except ValueError as error:
        return [str(error)]


def check_record(record: records.Record, row: ManifestStrings, prep: PrepMetadata) -> list[str]:
    """Checks one record against its row of the manifest and prep.json.

    Args:
      record: the decoded record.
      row: the row of the manifest; `clip_id`, `speaker`, `label` and `status` are compared.
      prep: the content of prep.json; `classes`, `corpus`, `frames` and `settings.features` are used.

    Returns:
      One line for each problem; empty if there is none.

    Raises:
      ValueError: the label of the row is not an integer, or the layout of an encoder in `prep` is wrong.
      KeyError: `prep` lacks a field.
      TypeError: the settings of an encoder in `prep` lack a field or have an unknown one.
      AttributeError: the settings of an encoder in `prep` are neither None nor a dict.
    """
    problems = []

    def expect(field: str, actual: object, expected: object) -> None:
        if actual != expected:
            problems.append(f"{record.clip_id}: {field} {actual!r}, expected {expected!r}")

    num_classes = len(prep["classes"])
    expect("clip_id", record.clip_id, row["clip_id"])
    expect("speaker", record.speaker, row["speaker"])
    expect("corpus", record.corpus, prep["corpus"])
    expect("label", record.label, int(row["label"]))
    expect("label in range", -1 <= record.label < num_classes, True)
    expect("number of votes", len(record.votes), num_classes)
    expect("correct sum of votes", bool(np.isclose(record.votes.sum(), float(record.label >= 0))), True)
    expect("number of faces", len(record.face_valid), prep["frames"])
    features = FeatureSettings.from_dict(prep["settings"]["features"])
    expect("spectrogram has frames", len(record.spectrogram) > 0, not features.drops_audio)
    for field in ("votes", "spectrogram", "face_time", "face_box", "face_landmarks", "face_score"):
        expect(f"{field} is finite", bool(np.isfinite(getattr(record, field)).all()), True)
    expect("video_ok", record.video_ok, bool(record.face_valid.any()))
    expect("invalid faces are nonzero", bool(record.faces[~record.face_valid].any()), False)
    expect("spectrogram is zero unless audio_ok", record.audio_ok or not record.spectrogram.any(), True)
    if record.waveform is not None:
        expect("waveform has samples", len(record.waveform) > 0, record.audio_ok)
    problems += _check_features(record)
    expect("status", record.status, row["status"])
    return problems


def _check_features(record: records.Record) -> list[str]:
    """Returns a line for each problem of the features of frozen encoders in a record.

    Problems are features without a vector although the encoder did not fail, values that are not finite, and
    values that are not zero where there is no audio or face. The list is empty if there is none or the record
    has no features.
    """
    valid_masks = {"audio_features": np.array([record.audio_ok]), "face_features": record.face_valid}
    problems = []
    for field, valid in valid_masks.items():
        values = getattr(record, field)
        if values is None:
            continue
        # if its encoder failed, audio has a spectrogram and features without a vector
        has_failed_encoder = field == "audio_features" and record.audio_ok and len(record.spectrogram)
        if not len(values) and not has_failed_encoder:
            problems.append(f"{record.clip_id}: {field} has no vector, expected at least one")
        if not np.isfinite(values).all():
            problems.append(f"{record.clip_id}: {field} is finite False, expected True")
        if values[~np.broadcast_to(valid, len(values))].any():
            problems.append(f"{record.clip_id}: {field} is not zero where nothing was encoded")
    return problems


def main(argv: list[str]) -> int:
    """Prints the problems of the directories in `argv`, or that there are none.

    `argv` has only the directories, not the name of the program. Returns the exit status: 0 if there are no
    problems, 1 if there are, 2 if `argv` is empty, after a line of usage on stderr. Raises RecursionError if
    a JSON file is nested too deeply.
    """
    if not argv:
        print("usage: python -m data_prep.verify.records DIR...", file=sys.stderr)
        return 2
    problems = {path: verify(path) for path in argv}
    for path, path_problems in problems.items():
        print(
            "\n".join(f"{path}: {problem}" for problem in path_problems)
            if path_problems
            else f"{path}: no problems"
        )
    return int(any(problems.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
