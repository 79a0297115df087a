"""`prepare --runner=beam`: the shards of a preparation as the elements of an Apache Beam pipeline.

A worker writes whole shards, by the same function as the local runner, so that the files are the same to the
byte. All workers must see the corpus and the output under the same paths (a shared file system). A clip that
crashes its decoder loses only itself: each shard's clips run in a process of their own.
"""

from collections.abc import Sequence

import apache_beam
from apache_beam.options.pipeline_options import PipelineOptions

from data_prep.workers.pool import PrepJob
from data_prep.write_shards import write_shards
from emofuse_jax.data.writing.shards import ShardPlan


def run_pipeline(plan: ShardPlan, shards: list[int], root: str, job: PrepJob, options: Sequence[str]) -> None:
    """Writes `shards` by a pipeline with these options, as --runner=FlinkRunner; returns when all are there.

    Raises what the pipeline raises, and ValueError where it ended without a shard.
    """
    with apache_beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
        shard_numbers = pipeline | apache_beam.Create(shards) | apache_beam.Reshuffle()
        _ = shard_numbers | apache_beam.Map(_write_unfinished_shard, plan, root, job)
    missing_shards = [shard for shard in shards if plan.read_marker(shard) is None]
    if missing_shards:
        raise ValueError(
            f"{plan.output}: the pipeline left out {plan.name(missing_shards[0])}; do workers see it?"
        )


def _write_unfinished_shard(shard: int, plan: ShardPlan, root: str, job: PrepJob) -> int:
    if plan.read_marker(shard) is None:  # a worker that was given it twice finds it done
        write_shards(plan, [shard], root, job, workers=1)
    return shard
