"""Writes shards on this machine; worker processes process the clips."""

import os
from collections.abc import Callable, Iterator

from data_prep.workers.pool import Outcome, PrepJob, process_clips
from emofuse_jax.data.metadata import ManifestRow
from emofuse_jax.data.writing.corpus import MediaClip
from emofuse_jax.data.writing.shards import ShardPlan, write_shard


def write_shards(
    plan: ShardPlan,
    shards: list[int],
    root: str,
    job: PrepJob,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Processes the clips of some shards and writes each shard and its marker file, one after the other.

    A shard is the file `plan.name(shard)` in the folder `plan.output`. Its marker, `plan.marker_path(shard)`,
    has the number of records, size, hash and manifest rows; it is written last, when the shard is complete.
    Existing files are replaced. A clip that can't be used has no record, but a row with the reason.

    Args:
      plan: the plan of all shards.
      shards: numbers of the shards to write, from 0 to `plan.num_shards` - 1.
      root: folder that the paths in the manifest are relative to.
      job: what all clips have in common: the settings of the preparation, the name of the corpus, the number
        of classes, and the paths of the ONNX files.
      workers: number of worker processes; 0: process clips in this process.
      progress: called after each clip with the number of finished clips and of all clips of the plan; None:
        not called.

    Raises:
      ValueError: `workers` is negative, worker processes can't start or die repeatedly, or a name or path is
        not valid in UTF-8.
      OSError: a shard or its marker can't be written, or a process can't be created.
      MemoryError: `workers` is 0 and a clip needs more memory than there is.
      ModuleNotFoundError: `workers` is 0 and a package of the extra `prep` is not installed.
    """
    clips = [clip for shard in shards for clip in plan.clips_in_shard(shard)]
    num_done = len(plan.clips) - len(clips)
    clip_outcomes = process_clips(clips, job, workers)

    def encode_clips(shard: int, rows: list[ManifestRow]) -> Iterator[bytes | None]:
        nonlocal num_done
        for clip in plan.clips_in_shard(shard):
            outcome = next(clip_outcomes)
            rows.append(_manifest_row(clip, outcome, root))
            num_done += 1
            if progress is not None:
                progress(num_done, len(plan.clips))
            yield outcome.data

    try:
        for shard in shards:
            rows: list[ManifestRow] = []
            write_shard(plan, shard, rows, encode_clips(shard, rows))
    finally:
        clip_outcomes.close()  # stops the workers


def _manifest_row(clip: MediaClip, outcome: Outcome, root: str) -> ManifestRow:
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
