"""`prepare`: a corpus to a directory of records, on the cores of one machine."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence

from data_prep import metadata
from data_prep.corpora.base import Clip, Corpus
from data_prep.encoders import NO_FILES, EncoderFiles, check_files
from data_prep.settings import PrepSettings
from data_prep.shards import PROGRESS, Plan, claim, plan_shards, write_shard
from data_prep.verify import verify
from data_prep.workers import Job, Outcome, outcomes
from emofuse_jax.host import cores, locked


@dataclasses.dataclass(frozen=True)
class Summary:
    """How a preparation ended."""

    output: str
    kept: int
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
    encoders: EncoderFiles = NO_FILES,
    beam: Sequence[str] | None = None,
) -> Summary:
    """Writes shards, manifest, splits, statistics and descriptions of `corpus` into `output`.

    May be stopped at any moment; the same call goes on where it stood and ends with the same files, byte for
    byte, whatever the number of workers and wherever the encoders lie by then (for exports,
    `records.ENCODER_PATHS` notes where).

    Args:
      corpus: its clips.
      settings: of records.
      output: directory.
      workers: processes; default: the cores; 0: this process, for tests.
      shards: files of records; default: 64 clips each.
      progress: called with the clips done and their number.
      encoders: where the ONNX files that `settings` name (`encoder_probe.with_encoders`) lie.
      beam: options of an Apache Beam pipeline that writes the shards in place of this machine's processes
        (data_prep/beam_runner.py); None: no pipeline.

    Raises:
      ValueError: `output` holds another preparation, another process works there, an encoder is missing, or
        not one clip could be read.
    """
    output = os.path.abspath(output)
    check_files(settings, encoders)
    job = Job(settings, corpus.name, len(corpus.classes), encoders)
    dataset = re.sub(r"\W", "_", corpus.name)
    plan = plan_shards(output, dataset, corpus.clips, shards)
    with locked(os.path.join(output, PROGRESS)):
        begun = claim(output, _identity(corpus, settings, plan))
        settings = PrepSettings.from_dict(begun["settings"])  # with the names that the encoders had then
        metadata.write_encoder_paths(output, encoders)
        missing = [shard for shard in range(plan.count) if plan.finished(shard) is None]
        if beam is None:
            count = cores() if workers is None else workers
            write_shards(plan, missing, corpus.root, job, count, progress)
        else:
            from data_prep.beam_runner import run_pipeline  # an optional package

            run_pipeline(plan, missing, corpus.root, job, beam)
        return _finish(plan, corpus, settings)


def _identity(corpus: Corpus, settings: PrepSettings, plan: Plan) -> dict:
    clips = [
        (
            c.clip_id,
            os.path.relpath(c.path, corpus.root),
            c.label,
            c.speaker,
            c.start,
            c.end,
            *filter(None, (c.half, c.take)),
        )
        for c in corpus.clips
    ]
    return {
        "schema_version": metadata.record_shape(settings).schema_version,
        "corpus": corpus.name,
        "settings": settings.to_dict(),
        "number of clips": len(clips),
        "classes": list(corpus.classes),
        "list of clips (sha256)": hashlib.sha256(repr(clips).encode()).hexdigest(),
        "shards": plan.count,
        "versions": metadata.versions(settings),
    }


def write_shards(
    plan: Plan, shards: list[int], root: str, job: Job, workers: int, progress: Callable | None = None
) -> None:
    """Writes `shards` of a plan one after the other; their clips are processed by `workers` processes."""
    clips = [clip for shard in shards for clip in plan.block(shard)]
    done = len(plan.clips) - len(clips)
    results = outcomes(clips, job, workers)

    def encoded(shard: int, rows: list[dict]) -> Iterator[bytes | None]:
        nonlocal done
        for clip in plan.block(shard):
            outcome = next(results)
            rows.append(_row(clip, outcome, root))
            done += 1
            if progress is not None:
                progress(done, len(plan.clips))
            yield outcome.data

    try:
        for shard in shards:
            rows: list[dict] = []
            write_shard(plan, shard, rows, encoded(shard, rows))
    finally:
        results.close()  # ends the workers


def _row(clip: Clip, outcome: Outcome, root: str) -> dict:
    return {
        "clip_id": clip.clip_id,
        "path": os.path.relpath(clip.path, root),
        "speaker": clip.speaker,
        "take": clip.take or clip.clip_id,
        "start": clip.start,
        "end": clip.end,
        "label": clip.label,
        "status": outcome.status,
        "reason": outcome.reason,
        "sha256": outcome.sha256,
    }


def _finish(plan: Plan, corpus: Corpus, settings: PrepSettings) -> Summary:
    """Everything beside the shards; prep.json last, since a directory with it is one that can be opened."""
    notes = [plan.finished(shard) for shard in range(plan.count)]
    rows = _numbered(notes)
    failed = tuple((row["path"], row["reason"]) for row in rows if row["status"] == "failed")
    if len(failed) == len(rows):
        for shard in range(plan.count):  # the next call tries again
            os.remove(plan.note(shard))
        raise ValueError(
            f"{corpus.root}: none of {len(rows)} clips could be read; {failed[0][0]}: {failed[0][1]}"
        )
    metadata.write_manifest(plan.output, rows)
    folds = metadata.write_splits(plan.output, corpus, rows)
    names = [plan.name(shard) for shard in range(plan.count)]
    metadata.write_stats(plan.output, names, folds, metadata.record_shape(settings))
    metadata.write_tfds(plan.output, corpus, settings, plan, notes)
    metadata.write_prep(plan.output, corpus, settings, plan, notes, rows)
    counts = {status: sum(row["status"] == status for row in rows) for status in ("kept", "masked")}
    return Summary(plan.output, counts["kept"], counts["masked"], failed, tuple(verify(plan.output)))


def _numbered(notes: list[dict]) -> list[dict]:
    """The manifest's rows: where each record lies; -1 for a clip without one."""
    rows, index = [], 0
    for shard, note in enumerate(notes):
        place = 0
        for row in note["rows"]:
            kept = row["status"] != "failed"
            where = (shard, place, index) if kept else (-1, -1, -1)
            rows.append({**row, **dict(zip(("shard", "row", "index"), where, strict=True))})
            place, index = place + kept, index + kept
    return rows
