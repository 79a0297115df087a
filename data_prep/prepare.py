"""Prepares a corpus: processes its clips in parallel and writes a directory of records."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence

from data_prep.onnx_models.encoders import NO_ENCODER_FILES, EncoderFiles, validate_encoder_files
from data_prep.settings import PrepSettings, record_shape
from data_prep.verify.records import verify
from data_prep.workers.pool import PrepJob, check_num_workers
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

    The files are the shards, `<corpus>-clips.array_record-00000-of-00005` and so on, `manifest.csv`,
    `splits/<protocol>/fold_<i>.json`, `protocols/<protocol>.json`, `stats/<protocol>/fold_<i>.npz`,
    `features.json`, `dataset_info.json` and `label.labels.txt` for TFDS, and `prep.json`.

    The call may be stopped at any moment; the same call resumes and produces the same files, byte for
    byte, with any number of workers and even if the ONNX files have moved (their paths are stored in
    `.prepare/encoder_paths.json`, for exports).

    Args:
      corpus: the clips.
      settings: settings of the preparation.
      output: directory to write, created if missing.
      workers: number of worker processes; default: one for each core; 0: process clips in this process (for
        tests).
      shards: number of record files; default: one for every 64 clips.
      progress: called with the number of finished clips and the number of all clips; None: not called.
      encoders: paths of the ONNX files that `settings` name.
      beam: options of an Apache Beam pipeline, such as `--runner=FlinkRunner`; it writes the shards instead
        of worker processes of this machine; None: no pipeline.

    Returns:
      A PrepSummary: `output`, the absolute path of the directory; `num_complete` and `masked`, the numbers of
      clips with both modalities and with one; `failed`, a tuple with (path, reason) of each clip without a
      record; and `problems`, a tuple of lines, empty if the written directory is valid.

    Raises:
      ValueError: `output` contains another preparation, another process is working there, there are no clips,
        `shards` is not between 1 and the number of clips, an ONNX file has no path, is missing, has another
        SHA-256 or is not an ONNX model, onnxruntime or PyYAML is needed but not installed, the settings drop
        tensors without naming an encoder, a stored file of progress is not JSON or lacks a field, a shard is
        still missing or damaged, `workers` is negative, workers can't start or die repeatedly, no clip could
        be read, a class name occurs twice, or a name or path is not valid in UTF-8.
      AttributeError: `settings.features` in the stored progress is not an object.
      MemoryError: `workers` is 0 and a clip needs more memory than there is.
      OSError: an ONNX file can't be read, a file can't be read or written, for example because the disk is
        full, or a process can't be created.
      ModuleNotFoundError: a package of the extra `prep`, or tensorflow_datasets, is not installed, or `beam`
        is set, but Apache Beam is not installed.
      Exception: the Beam pipeline failed; the class depends on its runner.
    """
    output = os.path.abspath(output)
    if workers is not None:
        check_num_workers(workers)
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

    It has `output` (path of the directory), `num_complete` and `masked` (numbers of clips), `failed` (path
    and reason of each failed clip) and `problems` (lines). prep.json is written last, because a directory
    with prep.json counts as complete. If all clips failed, the markers of the shards are removed first.

    Raises:
      ValueError: a shard is incomplete or damaged, a marker is not JSON or lacks a field, all clips failed, a
        record can't be decoded, a class name occurs twice, or a name or path is not valid in UTF-8.
      OSError: a file can't be read or written.
      ModuleNotFoundError: a package of the extra `prep`, or tensorflow_datasets, is not installed.
    """
    markers = _read_markers(plan)
    rows = [row for marker in markers for row in marker["rows"]]
    failed = tuple((row["path"], row["reason"]) for row in rows if row["status"] == "failed")
    if len(failed) == len(rows):
        for shard in range(plan.num_shards):  # so that the next call processes the clips again
            os.remove(plan.marker_path(shard))
        path, reason = failed[0]
        raise ValueError(
            f"{corpus.root}: none of {len(rows)} clips could be read; correct them, first {path}: {reason}"
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
    """Returns the markers of all shards in order: a list of dicts that the files in .prepare contain.

    The keys are `records` (number of records), `bytes` and `sha256` (size and hash of the shard), and `rows`,
    a list with a dict for each clip of the shard: clip_id, path, speaker, take, start, end, label, status
    (`kept`, `masked` or `failed`), reason and sha256 of the media file. Raises ValueError if a shard is
    incomplete, or a marker is not JSON or lacks one of these keys; OSError if it can't be read.
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

    They are emofuse, av, librosa, soxr, numpy, jax, mtcnn and opencv-python-headless, and onnxruntime if the
    settings have an encoder or a custom detector. Raises PackageNotFoundError (a ModuleNotFoundError) if one
    of them is not installed.
    """
    has_encoders = any(getattr(settings.features, kind) for kind in onnx_files.FLAG_NAMES)
    return package_versions(VERSIONED_PACKAGES + ENCODER_PACKAGES * bool(has_encoders))


def write_encoder_paths(output: str, encoder_files: EncoderFiles) -> None:
    """Writes the absolute paths of the ONNX files to a JSON file in `output`, for later exports.

    The file `.prepare/encoder_paths.json` is a JSON object with the keys `audio`, `face` and `detector`,
    without those that have no path; prep.json has the hashes. It is replaced; a missing folder is created.
    Writes no file if no path is set. Raises OSError if the file can't be written, ValueError if a path is not
    valid in UTF-8.
    """
    paths = {k: os.path.abspath(v) for k in onnx_files.FLAG_NAMES if (v := getattr(encoder_files, k))}
    if paths:
        write_json(os.path.join(output, records.ENCODER_PATHS_FILE), paths)
