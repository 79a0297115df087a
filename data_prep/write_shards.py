"""Writes shards on this machine: clips are processed by worker processes, in order."""

import os
from collections.abc import Callable, Iterator

from data_prep.workers.pool import Job, Outcome, outcomes
from emofuse_jax.data.writing.corpus import Clip
from emofuse_jax.data.writing.shards import Plan, write_shard


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
