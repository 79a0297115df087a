"""`prepare`: a corpus to a directory of records, on the cores of one machine."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Sequence

from data_prep.onnx_models.encoders import NO_ENCODER_FILES, EncoderFiles, validate_encoder_files
from data_prep.settings import PrepSettings, record_shape
from data_prep.verify.records import verify
from data_prep.workers.pool import PrepJob
from data_prep.write_shards import write_shards
from emofuse_jax.data import records
from emofuse_jax.data.writing.corpus import Corpus
from emofuse_jax.data.writing.manifest import write_manifest
from emofuse_jax.data.writing.prep_json import write_prep_json
from emofuse_jax.data.writing.shards import PROGRESS_FOLDER, ShardPlan, begin_or_resume, plan_shards
from emofuse_jax.data.writing.splits import write_splits
from emofuse_jax.data.writing.statistics import write_fold_statistics
from emofuse_jax.data.writing.tfds_metadata import write_tfds_metadata
from emofuse_jax.utils import onnx_files
from emofuse_jax.utils.files import write_json
from emofuse_jax.utils.locks import lock_directory
from emofuse_jax.utils.system import available_cores
from emofuse_jax.utils.versions import package_versions

VERSIONED_PACKAGES = ("emofuse", "av", "librosa", "soxr", "numpy", "jax", "mtcnn", "opencv-python-headless")
ENCODER_PACKAGES = ("onnxruntime",)


@dataclasses.dataclass(frozen=True)
class PrepSummary:
    """How a preparation ended."""

    output: str
    num_complete: int
    masked: int
    failed: tuple[tuple[str, str], ...]
    """(path, reason) of each clip that gave no record."""
    problems: tuple[str, ...]
    """What `verify` found in the finished directory; nothing, if all is well."""


def prepare(
    corpus: Corpus,
    settings: PrepSettings,
    output: str,
    *,
    workers: int | None = None,
    shards: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    encoders: EncoderFiles = NO_ENCODER_FILES,
    beam: Sequence[str] | None = None,
) -> PrepSummary:
    """Writes shards, manifest, splits, statistics and descriptions of `corpus` into `output`.

    May be stopped at any moment; the same call goes on where it stood and ends with the same files, byte for
    byte, whatever the number of workers and wherever the encoders lie by then (for exports,
    `records.ENCODER_PATHS_FILE` notes where).

    Args:
      corpus: its clips.
      settings: of records.
      output: directory.
      workers: processes; default: the cores; 0: this process, for tests.
      shards: files of records; default: 64 clips each.
      progress: called with the clips done and their number.
      encoders: where the ONNX files that `settings` name (`probe_encoders.with_encoders`) lie.
      beam: options of an Apache Beam pipeline that writes the shards in place of this machine's processes
        (data_prep/workers/beam_runner.py); None: no pipeline.

    Raises:
      ValueError: `output` holds another preparation, another process works there, an encoder is missing, or
        not one clip could be read.
    """
    output = os.path.abspath(output)
    validate_encoder_files(settings, encoders)
    job = PrepJob(settings, corpus.name, len(corpus.classes), encoders)
    dataset = re.sub(r"\W", "_", corpus.name)
    plan = plan_shards(output, dataset, corpus.clips, shards)
    with lock_directory(os.path.join(output, PROGRESS_FOLDER)):
        stored_identity = begin_or_resume(output, _make_identity(corpus, settings, plan))
        # with the names that the encoders had when the preparation began
        settings = PrepSettings.from_dict(stored_identity["settings"])
        write_encoder_paths(output, encoders)
        missing_shards = [shard for shard in range(plan.num_shards) if plan.read_marker(shard) is None]
        if beam is None:
            num_workers = available_cores() if workers is None else workers
            write_shards(plan, missing_shards, corpus.root, job, num_workers, progress)
        else:
            from data_prep.workers.beam_runner import run_pipeline  # an optional package

            run_pipeline(plan, missing_shards, corpus.root, job, beam)
        return _write_metadata(plan, corpus, settings)


def _make_identity(corpus: Corpus, settings: PrepSettings, plan: ShardPlan) -> dict:
    clip_fields = [
        (
            clip.clip_id,
            os.path.relpath(clip.path, corpus.root),
            clip.label,
            clip.speaker,
            clip.start,
            clip.end,
            *filter(None, (clip.half, clip.take)),
        )
        for clip in corpus.clips
    ]
    return {
        "schema_version": records.SCHEMA_VERSION,
        "corpus": corpus.name,
        "settings": settings.to_dict(),
        "number of clips": len(clip_fields),
        "classes": list(corpus.classes),
        "list of clips (sha256)": hashlib.sha256(repr(clip_fields).encode()).hexdigest(),
        "shards": plan.num_shards,
        "versions": prep_versions(settings),
    }


def _write_metadata(plan: ShardPlan, corpus: Corpus, settings: PrepSettings) -> PrepSummary:
    """Everything beside the shards; prep.json last, since a directory with it is one that can be opened."""
    markers = [plan.read_marker(shard) for shard in range(plan.num_shards)]
    rows = _assign_record_positions(markers)
    failed = tuple((row["path"], row["reason"]) for row in rows if row["status"] == "failed")
    if len(failed) == len(rows):
        for shard in range(plan.num_shards):  # the next call tries again
            os.remove(plan.marker_path(shard))
        raise ValueError(
            f"{corpus.root}: none of {len(rows)} clips could be read; {failed[0][0]}: {failed[0][1]}"
        )
    write_manifest(plan.output, rows)
    folds = write_splits(plan.output, corpus, rows)
    shard_names = [plan.name(shard) for shard in range(plan.num_shards)]
    shape = record_shape(settings)
    write_fold_statistics(plan.output, shard_names, folds, shape)
    write_tfds_metadata(plan.output, corpus.classes, plan, markers, shape, settings.face.frames)
    write_prep_json(
        plan.output,
        corpus,
        plan,
        markers,
        rows,
        shape=shape,
        settings=settings.to_dict(),
        versions=prep_versions(settings),
    )
    counts = {status: sum(row["status"] == status for row in rows) for status in ("kept", "masked")}
    return PrepSummary(plan.output, counts["kept"], counts["masked"], failed, tuple(verify(plan.output)))


def _assign_record_positions(markers: list[dict]) -> list[dict]:
    """The manifest's rows: where each record lies; -1 for a clip without one."""
    rows, index = [], 0
    for shard, marker in enumerate(markers):
        row_in_shard = 0
        for row in marker["rows"]:
            has_record = row["status"] != "failed"
            position = (shard, row_in_shard, index) if has_record else (-1, -1, -1)
            rows.append({**row, **dict(zip(("shard", "row", "index"), position, strict=True))})
            row_in_shard, index = row_in_shard + has_record, index + has_record
    return rows


def prep_versions(settings: PrepSettings) -> dict[str, str]:
    """Versions of the packages that decide what a record holds."""
    has_encoders = any(getattr(settings.features, kind) for kind in onnx_files.FLAG_NAMES)
    return package_versions(VERSIONED_PACKAGES + ENCODER_PACKAGES * bool(has_encoders))


def write_encoder_paths(output: str, encoder_files: EncoderFiles) -> None:
    """Where an export may look for the ONNX files; their hashes stand in prep.json."""
    paths = {k: os.path.abspath(v) for k in onnx_files.FLAG_NAMES if (v := getattr(encoder_files, k))}
    if paths:
        write_json(os.path.join(output, records.ENCODER_PATHS_FILE), paths)
