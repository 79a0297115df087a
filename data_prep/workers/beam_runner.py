"""Runs a preparation as an Apache Beam pipeline (`prepare --runner=beam`), with one element for each shard.

A Beam worker writes complete shards with the same function as the local runner, so the files have the same
bytes. All workers must see the corpus and the output under the same paths (a shared file system). Each
shard's clips are decoded in a separate process, so a clip that crashes its decoder does not affect other
clips.
"""

from collections.abc import Sequence

import apache_beam
from apache_beam.options.pipeline_options import PipelineOptions

from data_prep.workers.pool import PrepJob
from data_prep.write_shards import write_shards
from emofuse_jax.data.writing.shards import ShardPlan


def run_pipeline(plan: ShardPlan, shards: list[int], root: str, job: PrepJob, options: Sequence[str]) -> None:
    """Writes shards, and a marker file for each, with a Beam pipeline; returns when it has finished.

    A marker is a JSON file with the size and hash of a complete shard; such shards are not written again.

    Args:
      plan: the plan of all shards: the directory `output`, the clips, and the number of shards.
      shards: numbers of the shards to write, from 0.
      root: folder that the paths in the manifest are relative to.
      job: what all clips share: settings, name of the corpus, number of classes, paths of the ONNX files.
      options: options of the pipeline, such as --runner=FlinkRunner.

    Raises:
      ValueError: a shard is missing after the pipeline has finished, or its marker is not JSON or lacks a
        field.
      OSError: the marker of a shard can't be read.
      Exception: the pipeline failed; the class depends on the runner.
    """
    with apache_beam.Pipeline(options=PipelineOptions(list(options))) as pipeline:
        shard_numbers = pipeline | apache_beam.Create(shards) | apache_beam.Reshuffle()
        _ = shard_numbers | apache_beam.Map(_write_unfinished_shard, plan, root, job)
    missing_shards = [shard for shard in shards if plan.read_marker(shard) is None]
    if missing_shards:
        raise ValueError(
            f"{plan.output}: the pipeline did not write {plan.name(missing_shards[0])}; check that its"
            " workers see this folder under the same path"
        )


def _write_unfinished_shard(shard: int, plan: ShardPlan, root: str, job: PrepJob) -> int:
    if plan.read_marker(shard) is None:  # Beam may send an element twice
        write_shards(plan, [shard], root, job, workers=1)
    return shard
