"""Prepares a corpus: processes its clips in parallel and writes a directory of records."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence

from data_prep.onnx_models.encoders import NO_ENCODER_FILES, EncoderFiles, validate_encoder_files
from data_prep.settings import PrepSettings, record_shape
from data_prep.verify.records import verify
from data_prep.workers.pool import PrepJob
from data_prep.write_shards import write_shards
from emofuse_jax.data import records
from emofuse_jax.data.metadata import PrepIdentity, ShardMarker
from emofuse_jax.data.writing.corpus import Corpus
from emofuse_jax.data.writing.dataset_files import write_dataset_files
from emofuse_jax.data.writing.shards import (
    PROGRESS_FOLDER,
    ShardPlan,
    begin_or_resume,
    file_safe_name,
    plan_shards,
)
from emofuse_jax.utils import onnx_files
from emofuse_jax.utils.files import write_json
from emofuse_jax.utils.locks import lock_directory
from emofuse_jax.utils.system import available_cores
from emofuse_jax.utils.versions import package_versions

VERSIONED_PACKAGES = ("emofuse", "av", "librosa", "soxr", "numpy", "jax", "mtcnn", "opencv-python-headless")
ENCODER_PACKAGES = ("onnxruntime",)


@dataclasses.dataclass(frozen=True)
class PrepSummary:
    """Result of a preparation."""

    output: str
    num_complete: int
    """Number of clips with usable audio and video."""
    masked: int
    """Number of clips with one masked modality."""
    failed: tuple[tuple[str, str], ...]
    """(path, reason) of each clip without a record."""
    problems: tuple[str, ...]
    """Problems that `verify` found in the finished directory; empty if there are none."""


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
    """Writes shards, manifest, splits, statistics and metadata of `corpus` into the directory `output`.

    The call may be stopped at any moment; the same call resumes and produces the same files, byte for
    byte, with any number of workers and even if the ONNX files have moved (their paths are stored in
    `records.ENCODER_PATHS_FILE`, for exports).

    Args:
      corpus: the clips.
      settings: settings of the preparation.
      output: directory to write, created if missing.
      workers: number of worker processes; default: one for each core; 0: process clips in this process (for
        tests).
      shards: number of record files; default: one for every 64 clips.
      progress: called with the number of finished clips and the number of all clips.
      encoders: paths of the ONNX files that `settings` name (`probe_encoders.with_encoders`).
      beam: options of an Apache Beam pipeline, which writes the shards instead of worker processes of this
        machine (data_prep/workers/beam_runner.py); None: no pipeline.

    Returns:
      The output directory, the numbers of complete and of masked clips, (path, reason) of each failed clip,
      and the problems that `verify` found.

    Raises:
      ValueError: `output` contains another preparation, another process is working there, `shards` is not
        between 1 and the number of clips, an ONNX file is missing or has another SHA-256, onnxruntime is
        needed but not installed, a stored file of progress is damaged, a shard is still missing, workers
        can't start or die repeatedly, or no clip could be read.
      OSError: an ONNX file can't be read, or a file can't be written, for example because the disk is full.
      RuntimeError: a shard is damaged.
      ModuleNotFoundError: `beam` is set, but Apache Beam is not installed.
      Exception: the Beam pipeline failed; the class depends on its runner.
    """
    output = os.path.abspath(output)
    validate_encoder_files(settings, encoders)
    job = PrepJob(settings, corpus.name, len(corpus.classes), encoders)
    dataset = file_safe_name(corpus.name)
    plan = plan_shards(output, dataset, corpus.clips, shards)
    with lock_directory(os.path.join(output, PROGRESS_FOLDER)):
        stored_identity = begin_or_resume(output, _make_identity(corpus, settings, plan))
        # the settings as first stored: they have the file names of the encoders at that time
        settings = PrepSettings.from_dict(stored_identity["settings"])
        write_encoder_paths(output, encoders)
        missing_shards = [shard for shard in range(plan.num_shards) if plan.read_marker(shard) is None]
        if beam is None:
            num_workers = available_cores() if workers is None else workers
            write_shards(plan, missing_shards, corpus.root, job, num_workers, progress)
        else:
            from data_prep.workers.beam_runner import run_pipeline  # needs an optional package

            run_pipeline(plan, missing_shards, corpus.root, job, beam)
        return _write_metadata(plan, corpus, settings)


def _make_identity(corpus: Corpus, settings: PrepSettings, plan: ShardPlan) -> PrepIdentity:
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
    """Writes all files except the shards, verifies the directory, and returns the summary.

    prep.json is written last, because a directory with prep.json counts as complete. Raises ValueError if
    a shard is incomplete or all clips failed, OSError if a file can't be written, RuntimeError if a shard is
    damaged.
    """
    markers = _read_markers(plan)
    rows = [row for marker in markers for row in marker["rows"]]
    failed = tuple((row["path"], row["reason"]) for row in rows if row["status"] == "failed")
    if len(failed) == len(rows):
        for shard in range(plan.num_shards):  # so that the next call processes the clips again
            os.remove(plan.marker_path(shard))
        raise ValueError(
            f"{corpus.root}: none of {len(rows)} clips could be read; {failed[0][0]}: {failed[0][1]}"
        )
    write_dataset_files(
        plan,
        corpus,
        markers,
        shape=record_shape(settings),
        settings=settings.to_dict(),
        versions=prep_versions(settings),
    )
    counts = {status: sum(row["status"] == status for row in rows) for status in ("kept", "masked")}
    return PrepSummary(plan.output, counts["kept"], counts["masked"], failed, tuple(verify(plan.output)))


def _read_markers(plan: ShardPlan) -> list[ShardMarker]:
    """Returns the markers of all shards: file size, SHA-256, number of records and manifest rows of each.

    Raises ValueError if a shard is incomplete or its marker is not JSON.
    """
    markers = []
    for shard in range(plan.num_shards):
        marker = plan.read_marker(shard)
        if marker is None:
            raise ValueError(f"{plan.output}: shard {plan.name(shard)} is incomplete; run this command again")
        markers.append(marker)
    return markers


def prep_versions(settings: PrepSettings) -> dict[str, str]:
    """Returns the versions, by package name, of the packages that determine the content of records.

    onnxruntime is included only if the settings have an encoder or a custom detector. Raises
    PackageNotFoundError if one of the packages is not installed.
    """
    has_encoders = any(getattr(settings.features, kind) for kind in onnx_files.FLAG_NAMES)
    return package_versions(VERSIONED_PACKAGES + ENCODER_PACKAGES * bool(has_encoders))


def write_encoder_paths(output: str, encoder_files: EncoderFiles) -> None:
    """Writes the absolute paths of the ONNX files to a JSON file in `output`, for later exports.

    The file `records.ENCODER_PATHS_FILE` is a JSON object with the keys `audio`, `face` and `detector`,
    without those that have no path; prep.json has the hashes. Writes no file if no path is set. Raises
    OSError if the file can't be written.
    """
    paths = {k: os.path.abspath(v) for k in onnx_files.FLAG_NAMES if (v := getattr(encoder_files, k))}
    if paths:
        write_json(os.path.join(output, records.ENCODER_PATHS_FILE), paths)
