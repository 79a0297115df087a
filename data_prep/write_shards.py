"""Writes shards on this machine: clips are processed by worker processes, in order."""

import os
from collections.abc import Callable, Iterator

from data_prep.workers.pool import Outcome, PrepJob, process_clips
from emofuse_jax.data.writing.corpus import Clip
from emofuse_jax.data.writing.shards import ShardPlan, write_shard


def write_shards(
    plan: ShardPlan,
    shards: list[int],
    root: str,
    job: PrepJob,
    workers: int,
    progress: Callable | None = None,
) -> None:
    """Writes `shards` of a plan one after the other; their clips are processed by `workers` processes."""
    clips = [clip for shard in shards for clip in plan.clips_in_shard(shard)]
    num_done = len(plan.clips) - len(clips)
    clip_outcomes = process_clips(clips, job, workers)

    def encode_clips(shard: int, rows: list[dict]) -> Iterator[bytes | None]:
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
            rows: list[dict] = []
            write_shard(plan, shard, rows, encode_clips(shard, rows))
    finally:
        clip_outcomes.close()  # ends the workers


def _manifest_row(clip: Clip, outcome: Outcome, root: str) -> dict:
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
