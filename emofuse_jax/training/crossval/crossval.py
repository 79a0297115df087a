"""Trains all folds and seeds of a protocol together; the corpus is stored on the devices once.

A replica gives the same result as `emofuse train` of its fold and seed, up to rounding. Replicas are trained
in groups that fit the memory of the devices. A finished group writes the best checkpoint, history and result
of each replica. An interrupted run resumes after the last finished group, from the last save; after SIGTERM
it saves within the epoch.
"""

import functools
import os
from collections.abc import Callable

import jax
import ml_collections
import numpy as np

from emofuse_jax.data.dataset import Dataset, list_folds, read_split_leaks
from emofuse_jax.data.resident import load_resident
from emofuse_jax.parallel.distributed import exclusive_workdir, is_first_process
from emofuse_jax.parallel.memory import explain_oom
from emofuse_jax.parallel.mesh import put_with_sharding, replica_mesh, replicated
from emofuse_jax.parallel.preemption import watch_preemption
from emofuse_jax.scoring.pooled_scores import make_crossval_results
from emofuse_jax.scoring.result_types import CrossvalFile
from emofuse_jax.training.crossval.context import CrossvalContext
from emofuse_jax.training.crossval.plan import read_or_make_plan
from emofuse_jax.training.crossval.replica_groups import (
    stack_replicas,
    train_one_by_one,
    train_replica_groups,
)
from emofuse_jax.training.crossval.replica_packing import (
    CROSSVAL_MEMORY_HINT,
    choose_group_size,
    should_vmap,
)
from emofuse_jax.training.crossval.replica_results import (
    read_replica_results,
    replica_directory,
    replica_result_path,
    write_group_results,
)
from emofuse_jax.training.crossval.replicas import jit_over_replicas, make_predict_batches, make_train_steps
from emofuse_jax.training.crossval.stacked_replicas import remove_group_checkpoint
from emofuse_jax.training.experiment import (
    Experiment,
    check_test_speakers_unseen,
    count_epoch_steps,
    make_metadata,
    open_experiment,
    with_fold_and_seed,
)
from emofuse_jax.training.replica_set import ReplicaId
from emofuse_jax.training.train import skip_data_description
from emofuse_jax.utils.files import write_json


def crossval(
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    seeds: int,
    folds: list[int] | None = None,
    describe_data: Callable[[str, Dataset], None] = skip_data_description,
) -> CrossvalFile:
    """Trains and tests every fold with seeds `config.seed` to `config.seed + seeds - 1`.

    Writes `crossval.json` (the plan) to `workdir`, and `checkpoints/best`, `metrics.jsonl` and `result.json`
    of each replica to `runs/fold_<i>_seed_<j>/` in it; does not write `results.json`. The test split of a
    fold is scored once, with the parameters that are best on its validation split, or with the last ones if
    no clips are held out.

    Args:
      config: config of the experiment; `data.fold` is not used, and `mesh` only with `crossval.mode=single`.
      workdir: output directory; resumed if it contains the same cross-validation.
      seeds: number of seeds.
      folds: folds to train; by default all folds of the protocol.
      describe_data: called in the first process with the directory of each finished replica and the dataset;
        by default nothing. Its errors pass through.

    Returns:
      The contents of `results.json`, a dict: `protocol`, `config`, `corpus` (names), `dataset` (its path),
      `date` (YYYY-MM-DD), `classes` (names), `modalities` (list of `audio`, `video`), `runs` (one dict per
      fold and seed: its `result.json`, with `fold`, `seed`, `validation` and `test` scores and the
      predictions of each test clip), `pooled` (scores of all predictions together: `ua`, `wa`, `wf1`, their
      95 % intervals `ua_interval`, ... as `[low, high]`, and `confusion`), `mean` and `sd` (of `ua`, `wa` and
      `wf1` over the runs), `leaks` (texts, known leaks of the splits), `leaky` (True if there are any) and
      `versions` (of packages, by name); with several seeds also `ensemble`, like `pooled` but after averaging
      the predictions of the seeds. Scores are fractions.

    Raises:
      Preempted: after SIGTERM, once the state is saved.
      ValueError: if a config field is invalid, if there is no fold or no seed, if prepared files or a warm
        start are invalid, if the config has what replicas cannot do together (several buckets, fsdp, streamed
        data, skipped records) and `crossval.mode` is not `single`, if the records lack a
        field of the batch, if a fold has no test clips, fewer training clips than one batch, or no labelled
        clips, or shares a speaker between training and test, if `workdir` contains another cross-validation
        or damaged files or is used by another process, or if a replica does not fit in the memory of a
        device.
      TypeError, AttributeError: if a field in the metadata of the saved state is damaged.
      DamagedRecordError: if a record is damaged (a ValueError).
      NonFiniteError: if the loss or a parameter of a replica is NaN or infinite (a ValueError); with a single
        process, `nonfinite.json` in `workdir` then lists the clips of the step, if it can be repeated.
      FileNotFoundError: if the dataset, protocol or fold does not exist, or the workdir of a warm start has
        no checkpoint.
      OSError: if a file cannot be read or written.
      jax.errors.JaxRuntimeError: if another process of the run is lost or a device fails.
    """
    base_experiment = open_experiment(config)
    folds = list_folds(base_experiment.dataset, base_experiment.protocol) if folds is None else folds
    replica_ids: list[ReplicaId] = [(fold, config.seed + seed) for fold in folds for seed in range(seeds)]
    if not replica_ids:
        raise ValueError(f"folds={folds}, seeds={seeds}: expected at least one fold and one seed")
    experiments = {
        replica_id: with_fold_and_seed(base_experiment, *replica_id[:2]) for replica_id in replica_ids
    }
    for experiment in experiments.values():
        check_fold(experiment)
    plan = read_or_make_plan(workdir, base_experiment.config, replica_ids)
    with (
        exclusive_workdir(workdir),
        explain_oom(hint=CROSSVAL_MEMORY_HINT),
        watch_preemption() as should_stop,
    ):
        if base_experiment.config.crossval.mode == "single":
            packing = train_one_by_one(experiments, functools.partial(replica_directory, workdir))
        else:
            context = make_context(experiments)
            plan["replicas"] = plan.get("replicas") or choose_group_size(context)
            packing = stack_replicas(context, plan["replicas"], workdir)
        if is_first_process():
            write_json(os.path.join(workdir, "crossval.json"), plan)
        train_replica_groups(
            packing,
            base_experiment.config,
            workdir,
            should_stop,
            get_result_path=replica_result_path,
            write_results=functools.partial(write_group_results, describe_data=describe_data),
        )
        remove_group_checkpoint(workdir)
    leaks = {
        leak
        for e in experiments.values()
        for leak in read_split_leaks(e.dataset, e.protocol, e.config.data.fold)
    }
    return make_crossval_results(
        read_replica_results(workdir, replica_ids, len(base_experiment.dataset.classes)),
        base_experiment.config,
        base_experiment.dataset,
        base_experiment.protocol,
        sorted(leaks),
    )


def check_fold(experiment: Experiment) -> None:
    """Checks that a fold can be trained and tested.

    Raises:
      ValueError: if there are no test clips, fewer training clips than one batch, or a test speaker that is
        used in training or validation, unless the split is known to leak. Also if `config.data.batch_size` is
        below 1, or if the file of the fold is invalid.
      FileNotFoundError: if the file of the fold does not exist.
      OSError: if the file of the fold cannot be read.
    """
    if not len(experiment.clips["test"]):
        fold_name = f"{experiment.protocol}, fold {experiment.config.data.fold}"
        raise ValueError(
            f"{experiment.dataset.path}: {fold_name}: no test clips; leave out this fold, or write the split"
            " again"
        )
    count_epoch_steps(experiment)
    check_test_speakers_unseen(experiment, make_metadata(experiment))


def make_context(
    experiments: dict[ReplicaId, Experiment], varying_fields: tuple[str, ...] = ()
) -> CrossvalContext:
    """Loads the corpus onto the devices, and creates the programs that all replicas share.

    Args:
      experiments: experiment of each replica, at least one.
      varying_fields: config fields in which the replicas differ; the programs take them as arrays.

    Returns:
      The context: the experiments, the mesh, all clips on the devices (`data`) and their record indices
      (`clips`), `labels` and `speakers` (indices), `varying_fields`, whether replicas are vmapped
      (`is_vmapped`), and two jitted functions over stacked replicas: `train_steps(data, states,
      replica_inputs, rows, step_mask) -> (states, sums)` and `predict_batches(data, params, model_states,
      rows) -> outputs`.

    Raises:
      ValueError: if the config sets several buckets, skipped records, streamed data or fsdp, if
        `config.train.eval_batch_size` is below 1 or `config.crossval.mode` is unknown, if a record lacks a
        field of the batch, or if the records do not match prep.json.
      DamagedRecordError: if a record is damaged (a ValueError).
      OSError: if a shard is missing or cannot be opened.
    """
    first_experiment = next(iter(experiments.values()))
    check_stackable(first_experiment.config)
    eval_batch_size = first_experiment.config.train.eval_batch_size
    if eval_batch_size < 1:
        raise ValueError(f"config.train.eval_batch_size={eval_batch_size}: expected at least 1")
    device_count = (
        jax.device_count() if jax.process_count() > 1 else min(jax.device_count(), len(experiments))
    )
    mesh = replica_mesh(device_count)
    clip_lists = [clips for experiment in experiments.values() for clips in experiment.clips.values()]
    clips = np.unique(np.concatenate(clip_lists))
    host_data = load_resident(first_experiment.dataset, clips, first_experiment.spec)
    return CrossvalContext(
        experiments=experiments,
        mesh=mesh,
        clips=clips,
        data=put_with_sharding(host_data, replicated(mesh)),
        labels=np.asarray(host_data.label),
        speakers=np.asarray(host_data.speaker),
        is_vmapped=should_vmap(first_experiment.config.crossval.mode, first_experiment.model, host_data),
        train_steps=jit_over_replicas(
            make_train_steps(first_experiment.model, first_experiment.config), mesh, donate_argnums=(1,)
        ),
        predict_batches=jit_over_replicas(make_predict_batches(first_experiment.model), mesh),
        varying_fields=varying_fields,
    )


def check_stackable(config: ml_collections.ConfigDict) -> None:
    """Checks that the config sets nothing that stacked replicas cannot do; `crossval.mode=single` can.

    It must set `data.buckets` to 1, `data.on_corrupt` to `stop`, `data.mode` to `resident` or `auto`, and
    `mesh.fsdp` to False.

    Raises:
      ValueError: if it does; the message names the field and the reason.
    """
    reasons = {
        "data.buckets": (config.data.buckets, 1, "the clips on the devices have one shape"),
        "data.on_corrupt": (config.data.on_corrupt, "stop", "a training clip is a test clip of another fold"),
        "data.mode": (
            "resident" if config.data.mode == "auto" else config.data.mode,
            "resident",
            "replicas share the clips on the devices",
        ),
        "mesh.fsdp": (config.mesh.fsdp, False, "each replica is stored on one device"),
    }
    for field, (value, expected, reason) in reasons.items():
        if value != expected:
            raise ValueError(
                f"config.{field}={value}: expected {expected}, because {reason}; or set"
                " config.crossval.mode=single"
            )
