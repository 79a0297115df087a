"""Trains all folds and seeds of a protocol together; the corpus is stored on the devices once.

A replica gives the same result as `emofuse train` of its fold and seed, up to rounding. Replicas are trained
in groups that fit the memory of the devices. A finished group writes the best checkpoint, history and result
of each replica. An interrupted run resumes after the last finished group, from the last save; after SIGTERM
it saves within the epoch.
"""

import functools
import json
import os
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import ml_collections
import numpy as np

from emofuse_jax.data.dataset import Dataset, list_folds, read_split_leaks
from emofuse_jax.data.resident import load_resident
from emofuse_jax.parallel.distributed import exclusive_workdir, is_first_process
from emofuse_jax.parallel.memory import explain_oom
from emofuse_jax.parallel.mesh import broadcast_decision, put_with_sharding, replica_mesh, replicated, to_host
from emofuse_jax.parallel.preemption import Preempted, watch_preemption
from emofuse_jax.scoring.pooled_scores import make_crossval_results
from emofuse_jax.scoring.predict import Predictions, score_predictions
from emofuse_jax.scoring.result_types import CrossvalFile, ReplicaResult
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.checkpoint.metadata import CheckpointMetadata
from emofuse_jax.training.checkpoint.saved_config import saved_config
from emofuse_jax.training.crossval.context import CrossvalContext, take_replica
from emofuse_jax.training.crossval.replica_packing import (
    CROSSVAL_MEMORY_HINT,
    choose_group_size,
    should_vmap,
)
from emofuse_jax.training.crossval.replicas import jit_over_replicas, make_predict_batches, make_train_steps
from emofuse_jax.training.crossval.saved_results import CrossvalPlan, read_replica_result, read_saved_plan
from emofuse_jax.training.crossval.search_space import Trial
from emofuse_jax.training.crossval.stacked_replicas import StackedReplicas, remove_group_checkpoint
from emofuse_jax.training.early_stopping import EarlyStoppingTracker
from emofuse_jax.training.engine import train_replicas
from emofuse_jax.training.experiment import (
    Experiment,
    check_same_config,
    check_test_speakers_unseen,
    count_epoch_steps,
    make_metadata,
    open_experiment,
    with_fold_and_seed,
)
from emofuse_jax.training.metric_writer import MetricWriter
from emofuse_jax.training.progress import ReportProgress, show_progress
from emofuse_jax.training.replica_set import EpochScores, ReplicaId, RunProgress
from emofuse_jax.training.train import skip_data_description
from emofuse_jax.types import Params
from emofuse_jax.utils.files import write_json

PLAN_FIELD_NAMES: dict[Literal["runs", "trials"], str] = {"runs": "folds or seeds", "trials": "trials"}
"""Fields of a plan besides the config, as they are called in messages."""


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
      config: config of the experiment; `data.fold` and `mesh` are not used.
      workdir: output directory; resumed if it contains the same cross-validation.
      seeds: number of seeds.
      folds: folds to train; by default all folds of the protocol.
      describe_data: called with the directory of each finished replica and the dataset.

    Returns:
      The contents of `results.json`, a dict: `protocol`, `config`, `corpus` (names), `dataset` (its path),
      `date`, `classes`, `modalities`, `runs` (one dict per fold and seed: its `result.json`, with `fold`,
      `seed`, `validation` and `test` scores and the predictions of each test clip), `pooled` (scores of all
      predictions together: `ua`, `wa`, `wf1`, their intervals `ua_interval`, ... as `[low, high]`, and
      `confusion`), `mean` and `sd` (of `ua`, `wa` and `wf1` over the runs), `leaky`, `leaks` and `versions`;
      with several seeds also `ensemble`, like `pooled` but after averaging the predictions of the seeds.
      Scores are fractions.

    Raises:
      Preempted: after SIGTERM, once the state is saved.
      ValueError: if a config field is invalid, if there is no fold or no seed, if prepared files or a warm
        start are invalid, if the config sets several buckets or skips damaged records, if the records lack a
        field of the batch, if a fold has no test clips, fewer training clips than one batch, or no labelled
        clips, or shares a speaker between training and test, if `workdir` contains another cross-validation
        or damaged files or is used by another process, or if a replica does not fit in the memory of a
        device.
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
        context = make_context(experiments)
        group_size = plan.get("replicas") or choose_group_size(context)
        if is_first_process():
            write_json(os.path.join(workdir, "crossval.json"), plan | {"replicas": group_size})
        write_results = functools.partial(write_group_results, describe_data=describe_data)
        train_replica_groups(
            context,
            replica_ids,
            group_size,
            workdir,
            should_stop,
            get_result_path=replica_result_path,
            write_results=write_results,
        )
        remove_group_checkpoint(workdir)
    leaks = {
        leak
        for e in experiments.values()
        for leak in read_split_leaks(e.dataset, e.protocol, e.config.data.fold)
    }
    return make_crossval_results(
        read_replica_results(context, workdir),
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


def read_or_make_plan(
    workdir: str,
    config: ml_collections.ConfigDict,
    replica_ids: list[ReplicaId],
    trials: list[Trial] | None = None,
) -> CrossvalPlan:
    """Returns the plan of a cross-validation: the saved one if `workdir` has `crossval.json`, else a new one.

    Writes nothing.

    Args:
      workdir: workdir of the cross-validation.
      config: config of the experiment.
      replica_ids: fold, seed and, in a sweep, trial of all replicas; a saved plan must have the same ones.
      trials: trials of a sweep, each a dict of config values by dotted field name, or None; a saved plan must
        have the same ones.

    Returns:
      The plan, a dict: `config` (all fields), `runs` (fold, seed and, in a sweep, trial of each replica) and,
      in a sweep, `trials`. A saved plan can also have `replicas`, the number of replicas per group.

    Raises:
      ValueError: if `workdir` contains another cross-validation or sweep, or the saved plan is invalid.
      OSError: if the saved plan cannot be read.
    """
    path = os.path.join(workdir, "crossval.json")
    new_plan: CrossvalPlan = {
        "config": config.to_dict(),
        "runs": [list(replica_id) for replica_id in replica_ids],
    }
    if trials is not None:
        new_plan["trials"] = trials
    if not os.path.exists(path):
        return new_plan
    plan = read_saved_plan(path)
    check_same_config(workdir, saved_config(plan).to_dict(), json.loads(json.dumps(new_plan["config"])))
    for name in PLAN_FIELD_NAMES:
        if name in new_plan and plan.get(name) != new_plan[name]:
            raise ValueError(
                f"{workdir}: was started with other {PLAN_FIELD_NAMES[name]}; use the same folds, seeds and"
                " trials, or choose another --workdir"
            )
    return plan


def make_context(
    experiments: dict[ReplicaId, Experiment], varying_fields: tuple[str, ...] = ()
) -> CrossvalContext:
    """Loads the corpus onto the devices, and creates the programs that all replicas share.

    Args:
      experiments: experiment of each replica, at least one.
      varying_fields: config fields in which the replicas differ; the programs take them as arrays.

    Returns:
      The context: the experiments, the mesh, all clips on the devices (`data`) and their record indices
      (`clips`) and `labels`, whether replicas are vmapped (`is_vmapped`), and two jitted functions over
      stacked replicas: `train_steps(data, states, replica_inputs, rows, step_mask) -> (states, sums)` and
      `predict_batches(data, params, model_states, rows) -> outputs`.

    Raises:
      ValueError: if the config sets several buckets or skips damaged records, if
        `config.train.eval_batch_size` is below 1 or `config.crossval.mode` is unknown, if a record lacks a
        field of the batch, or if the records do not match prep.json.
      DamagedRecordError: if a record is damaged (a ValueError).
      OSError: if a shard is missing or cannot be opened.
      StopIteration: if there are no experiments.
    """
    first_experiment = next(iter(experiments.values()))
    if first_experiment.config.data.buckets != 1:
        raise ValueError(
            f"config.data.buckets={first_experiment.config.data.buckets}: expected 1, because resident clips"
            " must have one shape"
        )
    if first_experiment.config.data.on_corrupt != "stop":
        raise ValueError(
            f"config.data.on_corrupt={first_experiment.config.data.on_corrupt}: expected stop; only emofuse"
            " train supports others"
        )
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


def split_into_groups(
    context: CrossvalContext, replica_ids: list[ReplicaId], group_size: int
) -> list[list[ReplicaId]]:
    """Splits replicas into groups of `group_size`, and returns the list of replicas of each group.

    A group that does not fill all devices of the context repeats its last replica until it does. Raises
    ValueError if `group_size` is 0.
    """
    groups, device_count = (
        [replica_ids[start : start + group_size] for start in range(0, len(replica_ids), group_size)],
        context.mesh.size,
    )
    return [[*group, *group[-1:] * (-len(group) % device_count)] for group in groups]


def train_replica_groups(
    context: CrossvalContext,
    replica_ids: list[ReplicaId],
    group_size: int,
    workdir: str,
    should_stop: Callable[[], bool],
    *,
    get_result_path: Callable[[str, ReplicaId], str],
    write_results: Callable[[StackedReplicas, RunProgress, str], None],
) -> None:
    """Trains replicas in groups, and writes their results; finished groups are skipped.

    Args:
      context: data and programs.
      replica_ids: replicas to train.
      group_size: number of replicas in a group.
      workdir: output directory, resumed if it contains a saved group.
      should_stop: returns True if the run must save its state and stop; called before each program call and
        after each group.
      get_result_path: called as `get_result_path(workdir, replica_id)`; returns the path of a replica's
        result, which exists once the replica is finished.
      write_results: called as `write_results(group, progress, workdir)`; writes the results of the replicas
        of a group, whose best validation results are in `progress.trackers`. Its errors pass through.

    Raises:
      Preempted: after `should_stop` returned True and the state was saved.
      ValueError: if a device runs out of memory, if a replica has fewer training clips than one batch, if a
        warm start or a field of the config is invalid, if the saved group is damaged, or if no training or
        validation clip of a replica has a label. Also if `write_results` raises it.
      NonFiniteError: if the loss or a parameter of a replica is NaN or infinite (a ValueError).
      FileNotFoundError: if the workdir of a warm start has no checkpoint.
      OSError: if the state or a result cannot be written, or a saved group cannot be read.
    """
    groups, epochs = split_into_groups(context, replica_ids, group_size), context.config.train.epochs
    clips_per_epoch = group_size * context.max_epoch_steps * context.config.data.batch_size
    progress_line = show_progress(
        epochs * len(groups), clips_per_epoch, context.config.name, active=is_first_process()
    )
    with progress_line as show_epochs:
        for group_number, group_replica_ids in enumerate(groups):
            if not broadcast_decision(
                all(os.path.exists(get_result_path(workdir, replica_id)) for replica_id in group_replica_ids)
            ):
                group, progress = train_replicas(
                    functools.partial(StackedReplicas, context, group_replica_ids, workdir),
                    workdir,
                    report_progress=functools.partial(_report_epoch, show_epochs, group_number * epochs),
                    should_stop=should_stop,
                )
                write_results(group, progress, workdir)
            if should_stop():
                raise Preempted(
                    f"{workdir}: stopped by SIGTERM, saved {group_number + 1} of {len(groups)} replica"
                    " groups; run the same command to resume"
                )


def _report_epoch(
    show_epochs: ReportProgress, previous_epochs: int, progress: RunProgress, rows: Sequence[EpochScores]
) -> None:
    """Shows the number of finished epochs of all groups, at the start of an epoch and not within it.

    Args:
      show_epochs: called as `show_epochs(number)` to show it.
      previous_epochs: number of epochs of the groups before this one.
      progress: number of finished epochs (`finished_epochs`) and of steps since then (`epoch_step`).
      rows: scores of the epoch; not used.
    """
    if progress.epoch_step == 0:
        show_epochs(previous_epochs + progress.finished_epochs)


def write_group_results(
    group: StackedReplicas,
    progress: RunProgress,
    workdir: str,
    *,
    describe_data: Callable[[str, Dataset], None],
) -> None:
    """Tests the replicas of a trained group, and writes the results of each one.

    The files are `checkpoints/best`, `metrics.jsonl` and `result.json` in `<workdir>/runs/fold_<i>_seed_<j>`,
    and those of `describe_data(directory, dataset)`, which is called for each replica.

    Args:
      group: trained replicas, with their best models and histories.
      progress: has the best validation result of each replica (`trackers`).
      workdir: workdir of the cross-validation.
      describe_data: called in the first process; its errors pass through.

    Raises:
      ValueError: if no test clip of a fold has a label, or if an existing `metrics.jsonl` or the file of the
        fold is invalid.
      OSError: if a file cannot be written, or the file of the fold is missing or cannot be read.
      jax.errors.JaxRuntimeError: if a device fails or runs out of memory, or another process is lost.
    """
    test_predictions, best_model = group.predict_test(), to_host(group.best_model)
    for i, replica_id in enumerate(dict.fromkeys(group.replica_ids)):
        experiment, directory = group.context.experiments[replica_id], replica_directory(workdir, replica_id)
        tracker, history = progress.trackers[i], group.histories[i]
        write_replica(group.context, experiment, tracker, history, take_replica(best_model, i), directory)
        if is_first_process():
            describe_data(directory, experiment.dataset)
            result = make_replica_result(experiment, tracker, len(history), test_predictions[i])
            write_json(replica_result_path(workdir, replica_id), result)


def write_replica(
    context: CrossvalContext,
    experiment: Experiment,
    tracker: EarlyStoppingTracker,
    history: Sequence[EpochScores],
    model: tuple[Params, Params],
    directory: str,
) -> None:
    """Writes `checkpoints/best` and `metrics.jsonl` of a trained replica to `directory`.

    Args:
      context: context with the mesh of the cross-validation.
      experiment: experiment of the replica.
      tracker: has the step and the temperature of its best epoch.
      history: one dict of numbers per epoch: `step`, `epoch`, `train_loss` and so on.
      model: (params, model_state) of its best epoch, nested dicts of NumPy arrays.
      directory: output directory.

    Raises:
      OSError: if the files cannot be written, or the file of the fold is missing or cannot be read.
      ValueError: if an existing `metrics.jsonl` or the file of the fold is invalid.
      jax.errors.JaxRuntimeError: if a device fails or another process is lost.
    """
    params, model_state = put_with_sharding(model, replicated(context.mesh))
    replica_metadata: CheckpointMetadata = {
        **make_metadata(experiment),
        "step": tracker.best_step,
        "temperature": tracker.temperature,
    }
    store.save_model(directory, params, model_state, replica_metadata)
    writer = MetricWriter(directory, resume_step=0, active=is_first_process())
    for row in history:
        writer.write(
            int(row["step"]), "epoch", {name: value for name, value in row.items() if name != "step"}
        )
    writer.close()


def make_replica_result(
    experiment: Experiment, tracker: EarlyStoppingTracker, epochs: int, test_predictions: Predictions
) -> ReplicaResult:
    """Returns the contents of `result.json` of a replica that was trained for `epochs` epochs.

    Args:
      experiment: experiment of the replica.
      tracker: its best validation result: `best_ua`, `best_step` and `temperature`.
      epochs: number of epochs.
      test_predictions: predictions of its test clips: their record indices (`clips`), `labels` and
        `probabilities`.

    Returns:
      A dict: `fold`, `seed`, `validation` (`ua`, None if no clips are held out), `test` (`ua`, `wa`, `wf1`),
      `best_step`, `temperature`, `epochs` (their number), and lists with one entry per test clip: `clips`
      (clip_ids), `speakers`, `labels` (-1 without a label) and `probabilities` (before the temperature is
      applied). Scores are fractions.

    Raises:
      ValueError: if no test clip has a label.
    """
    dataset = experiment.dataset
    clip_ids = [dataset.clip_ids[clip] for clip in test_predictions.clips]
    scores = score_predictions(test_predictions, with_intervals=False)
    return {
        "fold": experiment.config.data.fold,
        "seed": experiment.config.seed,
        "validation": {"ua": tracker.best_ua},
        "test": {"ua": scores["ua"], "wa": scores["wa"], "wf1": scores["wf1"]},
        "best_step": tracker.best_step,
        "temperature": tracker.temperature,
        "epochs": epochs,
        "clips": clip_ids,
        "speakers": [dataset.speaker_of[name] for name in clip_ids],
        "labels": test_predictions.labels.tolist(),
        "probabilities": test_predictions.probabilities.tolist(),
    }


def read_replica_results(context: CrossvalContext, workdir: str) -> list[ReplicaResult]:
    """Reads `<workdir>/runs/fold_<i>_seed_<j>/result.json` of each replica of the context.

    Returns:
      One dict per replica, in the order of the context: `fold`, `seed`, `validation` (`ua`, None if no clips
      are held out), `test` (`ua`, `wa`, `wf1`), `best_step`, `temperature`, `epochs` (their number), and
      lists with one entry per test clip: `clips` (clip_ids), `speakers`, `labels` (-1 without a label) and
      `probabilities` (one per class). Scores are fractions.

    Raises:
      ValueError: if one of the files is invalid; the message names the file and the field.
      OSError: if one of the files does not exist or cannot be read.
    """
    num_classes = len(next(iter(context.experiments.values())).dataset.classes)
    return [
        read_replica_result(replica_result_path(workdir, replica_id), num_classes)
        for replica_id in context.experiments
    ]


def replica_directory(workdir: str, replica_id: ReplicaId) -> str:
    """Returns `<workdir>/runs/fold_<i>_seed_<j>`, the directory of all files of a replica."""
    return os.path.join(workdir, "runs", f"fold_{replica_id[0]}_seed_{replica_id[1]}")


def replica_result_path(workdir: str, replica_id: ReplicaId) -> str:
    """Returns `<workdir>/runs/fold_<i>_seed_<j>/result.json`, the path of the result of a replica.

    The file exists once the replica is finished.
    """
    return os.path.join(replica_directory(workdir, replica_id), "result.json")
