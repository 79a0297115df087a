"""Writes a directory of records from arrays, complete or not at all."""

import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence

from emofuse_jax.data import records
from emofuse_jax.data.metadata import ManifestRow, PrepSettingsDict, ShardMarker
from emofuse_jax.data.records import Record
from emofuse_jax.data.writing.corpus import Corpus, EvaluationProtocol, MediaClip
from emofuse_jax.data.writing.dataset_files import write_dataset_files
from emofuse_jax.data.writing.shards import CLIPS_PER_SHARD, ShardPlan, file_safe_name, write_shard_file
from emofuse_jax.utils.versions import package_versions


def write_array_records(
    path: str,
    clip_records: Iterable[Record],
    *,
    name: str,
    classes: Sequence[str],
    shape: records.RecordShape,
    settings: PrepSettingsDict,
    folds: Sequence[Sequence[str]] = (),
) -> None:
    """Writes shards of 64 records, manifest, splits, statistics, TFDS metadata and prep.json.

    The files are written to a temporary directory next to `path`, which is renamed at the end; if an error
    occurs, it is removed. Errors of the iterable `clip_records` pass through.

    Args:
      path: directory to write; it must not exist, or be empty.
      clip_records: the records; read once.
      name: name of the data set.
      classes: class names in the order of the labels.
      shape: dimensions that all records share.
      settings: settings for prep.json: `recipe`, a name, and the dicts `audio`, `face` and `features`, as
        docs/formats.md describes them; here only `face["frames"]`, the number of face crops of a clip, is
        read.
      folds: test speakers of each fold of the protocol `custom_<number of folds>fold`; empty: up to five
        folds of speakers.

    Raises:
      ValueError: there are no records, a clip_id or a class name occurs twice, an array of a record has a
        wrong dtype or does not fit `shape`, a label is neither -1 nor an index into the record's `votes`, a
        text cannot be encoded as UTF-8, a fold is empty or names an unknown speaker, or a shard is damaged
        after it was written.
      TypeError: JSON cannot represent a value of `settings`.
      FileExistsError: `path` exists and is not empty.
      OSError: a file cannot be written, or `path` is a file.
      ImportError: tensorflow_datasets, or a package whose version prep.json records, is not installed.
    """
    path = os.path.abspath(path)
    if os.path.isdir(path) and os.listdir(path):
        raise FileExistsError(f"{path}: exists already; choose another directory or remove it")
    parent = os.path.dirname(path)
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".records-") as temporary:
        output = os.path.join(temporary, "records")
        os.makedirs(output)
        markers = _write_shard_files(output, clip_records)
        rows = [row for marker in markers for row in marker["rows"]]
        corpus = _make_corpus(name, classes, rows, folds)
        plan = ShardPlan(output, file_safe_name(name), corpus.clips, len(markers))
        for shard in range(plan.num_shards):
            os.rename(_temporary_shard(output, shard), os.path.join(output, plan.name(shard)))
        write_dataset_files(
            plan, corpus, markers, shape=shape, settings=settings, versions=package_versions()
        )
        if os.path.isdir(path):
            os.rmdir(path)
        os.rename(output, path)


def _temporary_shard(output: str, shard: int) -> str:
    return os.path.join(output, f"shard_{shard:05d}.tmp")


def _write_shard_files(output: str, clip_records: Iterable[Record]) -> list[ShardMarker]:
    """Writes shards of up to 64 records to files `shard_<number>.tmp` in `output`; returns their markers.

    The number has five digits, from 00000; existing files are replaced. The marker of a shard is a dict:
    `records`, the number of records, `bytes`, the size of the file, `sha256`, its hash, and `rows`, the
    manifest rows. Raises ValueError if there are no records, a clip_id occurs twice, an array has a wrong
    dtype or a name is not valid UTF-8; OSError if a file cannot be written.
    """
    markers: list[ShardMarker] = []
    clip_ids: set[str] = set()
    iterator = iter(clip_records)
    for record in iterator:
        rows: list[ManifestRow] = []
        shard_records = itertools.chain([record], itertools.islice(iterator, CLIPS_PER_SHARD - 1))
        encoded = _encode_records(shard_records, rows, clip_ids)
        marker = write_shard_file(_temporary_shard(output, len(markers)), encoded)
        markers.append({**marker, "rows": rows})
    if not markers:
        raise ValueError("clips: none were passed, expected the records of at least one clip")
    return markers


def _encode_records(
    shard_records: Iterable[Record], rows: list[ManifestRow], clip_ids: set[str]
) -> Iterator[bytes]:
    """Yields the bytes of each record of a shard, one at a time.

    Appends the manifest row of each record to `rows`, and its clip_id to the set `clip_ids`. Raises
    ValueError if a clip_id occurs twice, an array of a record has a wrong dtype, or a name cannot be encoded
    as UTF-8.
    """
    for record in shard_records:
        if record.clip_id in clip_ids:
            raise ValueError(f"clip {record.clip_id!r}: this clip_id occurs twice; clip_ids must be unique")
        clip_ids.add(record.clip_id)
        rows.append(_manifest_row(record))
        yield records.encode(record)


def _manifest_row(record: Record) -> ManifestRow:
    return {
        "clip_id": record.clip_id,
        "path": "",
        "speaker": record.speaker,
        "take": record.clip_id,
        "label": record.label,
        "status": record.status,
        "reason": "" if record.status == "kept" else f"no {'video' if record.audio_ok else 'audio'}",
        "sha256": "",
    }


def _make_corpus(
    name: str, classes: Sequence[str], rows: list[ManifestRow], folds: Sequence[Sequence[str]]
) -> Corpus:
    clips = tuple(MediaClip(row["clip_id"], "", row["label"], row["speaker"]) for row in rows)
    speakers = {clip.speaker for clip in clips}
    for fold, test_speakers in enumerate(folds):
        unknown = [speaker for speaker in test_speakers if speaker not in speakers]
        if unknown or not test_speakers:
            problem = f"unknown speaker {unknown[0]!r}" if unknown else "no speakers"
            raise ValueError(f"folds[{fold}]: {problem}; expected names of speakers to test on")
    protocols: tuple[EvaluationProtocol, ...] = ()
    if folds:
        test_folds = tuple(tuple(sorted(fold)) for fold in folds)
        protocols = (EvaluationProtocol(f"custom_{len(folds)}fold", tuple(sorted(speakers)), test_folds),)
    return Corpus(name, tuple(classes), clips, {}, ("written from arrays",), protocols=protocols)
