"""Searches over config fields: trains every trial on the same folds and seeds, and scores it on validation
clips.

Replicas of one program (training/crossval/crossval.py) can differ in every number that the training step
takes as an array. Other fields, such as widths and batch sizes, need separate programs, which run one after
the other. The test splits are not used. An interrupted sweep resumes after its last finished group.
"""

import collections
import dataclasses
import functools
import json
import os
import statistics
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float

from emofuse_jax.parallel.distributed import exclusive_workdir, is_first_process
from emofuse_jax.parallel.memory import explain_oom
from emofuse_jax.parallel.mesh import broadcast_decision
from emofuse_jax.parallel.preemption import watch_preemption
from emofuse_jax.scoring.result_types import SweepResults, TrialRun, TrialScores
from emofuse_jax.training.crossval.crossval import make_context
from emofuse_jax.training.crossval.plan import read_or_make_plan
from emofuse_jax.training.crossval.replica_groups import (
    stack_replicas,
    train_one_by_one,
    train_replica_groups,
)
from emofuse_jax.training.crossval.replica_packing import CROSSVAL_MEMORY_HINT, choose_group_size
from emofuse_jax.training.crossval.replicas import with_traced_fields
from emofuse_jax.training.crossval.search_space import Trial, apply_trial
from emofuse_jax.training.crossval.stacked_replicas import remove_group_checkpoint
from emofuse_jax.training.experiment import Experiment, flatten_fields, open_experiment, with_fold_and_seed
from emofuse_jax.training.optimizer import check_optimizer, make_optimizer
from emofuse_jax.training.replica_set import ReplicaId, RunProgress, TestedReplicas
from emofuse_jax.training.step import StepMetrics, init_state, make_train_step
from emofuse_jax.types import Batch, PRNGKey, TrainState
from emofuse_jax.utils.files import read_json_object, write_json

TRAIN_STEP_PREFIXES = ("augment.", "loss.", "optimizer.")
"""Sections of a config that only the training step reads."""


def sweep(
    config: ml_collections.ConfigDict, workdir: str, trials: list[Trial], *, folds: list[int], seeds: int
) -> SweepResults:
    """Trains every trial on every fold, with seeds `config.seed` to `config.seed + seeds - 1`.

    Writes `crossval.json` (the plan) and `trials/<number>/fold_<i>_seed_<j>.json` (the result of each
    replica; the number of the trial has three digits, from 000) to `workdir`, but not the returned dict.

    Args:
      config: config of the experiment.
      workdir: output directory; resumed if it contains the same sweep.
      trials: trials to train, each a dict of config values by dotted field name.
      folds: folds to train on.
      seeds: number of seeds.

    Returns:
      A dict: `config` (its name), `protocol`, `corpus`, `folds`, `seeds` (their number) and `trials`, one
      dict per trial with the highest validation UA first: `number` and `fields` of the trial,
      `validation_ua`, `last_ua` (means over the runs, fractions), `sd` (standard deviation of
      `validation_ua`, that of a sample) and `runs` (of each fold and seed: `fold`, `seed`, `validation_ua`,
      `best_step` and `last_ua`).

    Raises:
      Preempted: after SIGTERM, once the state is saved.
      ValueError: if there is no fold or no seed, if a field does not exist or has an invalid value, if no
        clips are held out, if the config has what replicas cannot do together (several buckets, fsdp,
        streamed data, skipped records) and `crossval.mode` is not `single`, if prepared files or a warm start
        are invalid, if the records lack a field of the batch, if a fold has fewer training clips than one
        batch or no labelled clips, if `workdir` contains another sweep or damaged files or is used by another
        process, or if a replica does not fit in the memory of a device.
      TypeError, AttributeError: if a field in the metadata of the saved state is damaged.
      DamagedRecordError: if a record is damaged (a ValueError).
      NonFiniteError: if the loss or a parameter of a replica is NaN or infinite (a ValueError); with a single
        process, `nonfinite.json` in `workdir` then lists the clips of the step, if it can be repeated.
      FileNotFoundError: if the dataset, protocol or fold does not exist, or the workdir of a warm start has
        no checkpoint.
      OSError: if a file cannot be read or written.
      jax.errors.JaxRuntimeError: if another process of the run is lost or a device fails.
    """
    if not folds or seeds < 1:
        raise ValueError(f"folds={folds}, seeds={seeds}: expected at least one fold and one seed")
    base_experiment = open_experiment(config)
    experiments = [open_trial(base_experiment, trial) for trial in trials]
    if not all(experiment.config.data.hold_out for experiment in experiments):
        raise ValueError("config.data.hold_out=False: a search needs validation clips; set it to True")
    replica_ids: list[ReplicaId] = [
        (f, config.seed + s, k) for k in range(len(trials)) for f in folds for s in range(seeds)
    ]
    plan = read_or_make_plan(workdir, base_experiment.config, replica_ids, trials=trials)
    with (
        exclusive_workdir(workdir),
        explain_oom(hint=CROSSVAL_MEMORY_HINT),
        watch_preemption() as should_stop,
    ):
        if is_first_process():
            write_json(os.path.join(workdir, "crossval.json"), plan)
        for trial_numbers in group_trials_by_program(experiments, trials):
            train_trials(
                experiments,
                trial_numbers,
                [replica_id for replica_id in replica_ids if replica_id[2] in trial_numbers],
                workdir,
                should_stop,
            )
        remove_group_checkpoint(workdir)
    ranked = sorted(
        (summarise_trial(workdir, k, trials[k], replica_ids) for k in range(len(trials))),
        key=lambda row: -row["validation_ua"],
    )
    return {
        "config": config.name,
        "protocol": base_experiment.protocol,
        "corpus": base_experiment.dataset.prep["corpus"],
        "folds": folds,
        "seeds": seeds,
        "trials": ranked,
    }


def open_trial(base_experiment: Experiment, trial: Trial) -> Experiment:
    """Returns the experiment with the fields of a trial: config, dataset, clips, model and statistics.

    Only its config differs from `base_experiment` if all fields of the trial are in the sections `augment`,
    `loss` and `optimizer`; otherwise the data and the model are opened again.

    Raises:
      ValueError: if a field does not exist or has an invalid value, or if the data that a changed field names
        are invalid.
      FileNotFoundError: if a changed field names a dataset, protocol or fold that does not exist.
      OSError: if a file of this dataset cannot be read.
    """
    config = apply_trial(base_experiment.config, trial)
    check_optimizer(config.optimizer)
    if all(name.startswith(TRAIN_STEP_PREFIXES) for name in trial):
        return dataclasses.replace(base_experiment, config=config)
    return open_experiment(config)


def group_trials_by_program(experiments: list[Experiment], trials: list[Trial]) -> list[list[int]]:
    """Returns groups of trial numbers (indices in `trials`); one program can train all trials of a group.

    The groups are in the order of their first trials. Trials are in one group if they differ only in fields
    that the training step can take as arrays.

    Args:
      experiments: experiment of each trial.
      trials: values of config fields of each trial, by dotted name.

    Raises:
      ValueError: if the training step of a trial cannot be built, because its config does not fit the model
        or the clips.
    """
    field_names = sorted({name for trial in trials for name in trial})
    is_traceable: dict[str, bool] = {}
    trials_by_program = collections.defaultdict(list)
    for k, experiment in enumerate(experiments):
        fields = flatten_fields(experiment.config.to_dict())
        for name in field_names:
            if name not in is_traceable:
                is_traceable[name] = name.startswith(TRAIN_STEP_PREFIXES) and can_trace_field(
                    experiment, name
                )
        trials_by_program[
            json.dumps({name: fields.get(name) for name in field_names if not is_traceable[name]})
        ].append(k)
    return list(trials_by_program.values())


def find_varying_fields(experiments: list[Experiment]) -> tuple[str, ...]:
    """Returns the dotted names of the config fields in which the experiments (at least one) differ.

    They have the order of the config's fields. The tuple is empty if there are none.
    """
    flat_configs = [flatten_fields(experiment.config.to_dict()) for experiment in experiments]
    return tuple(
        name
        for name in flat_configs[0]
        if any(fields[name] != flat_configs[0][name] for fields in flat_configs)
    )


def can_trace_field(experiment: Experiment, name: str) -> bool:
    """Returns True if the training step can take this config field as an array instead of a number.

    `name` is the dotted name of the field. Returns False if the field does not exist or is not a float, or if
    Python code branches on its value. Nothing is trained.

    Raises:
      ValueError: if the training step cannot be built, because the config does not fit the model or the
        clips.
    """
    if not isinstance(flatten_fields(experiment.config.to_dict()).get(name), float):
        return False

    def train_one_step(key: PRNGKey, batch: Batch, value: Float[Array, ""]) -> tuple[TrainState, StepMetrics]:
        config = with_traced_fields(experiment.config, {name: value})
        tx = make_optimizer(config.optimizer, 100)
        state = init_state(experiment.model, tx, key, experiment.statistics)
        return make_train_step(experiment.model, tx, config)(state, batch)

    try:
        jax.eval_shape(train_one_step, jax.random.key(0), experiment.model.fake_batch(4), jnp.zeros(()))
    except TypeError:  # Python code branches on its value
        return False
    return True


def train_trials(
    experiments: list[Experiment],
    trial_numbers: list[int],
    replica_ids: list[ReplicaId],
    workdir: str,
    should_stop: Callable[[], bool],
) -> None:
    """Trains the replicas of trials that share a program, and writes their results.

    Does nothing if all results exist. The results are written to `trials/<number>/fold_<i>_seed_<j>.json` in
    `workdir` (number of the trial with three digits).

    Args:
      experiments: experiment of every trial of the sweep.
      trial_numbers: indices in `experiments` of the trials to train.
      replica_ids: fold, seed and trial number of each replica to train.
      workdir: workdir of the sweep.
      should_stop: returns True if the run must save its state and stop.

    Raises:
      Preempted: after `should_stop` returned True and the state was saved.
      ValueError: if a config field, a warm start or a file of a fold is invalid, if a fold has no training or
        validation clips, fewer training clips than one batch, or no labelled clips, if the records lack a
        field of the batch or do not match prep.json, if a saved group is damaged, if a replica does not fit
        in the memory of a device, or if the config has what replicas cannot do together (several buckets,
        fsdp, streamed data, skipped records) and `crossval.mode` is not `single`.
      TypeError, AttributeError: if a field in the metadata of the saved state is damaged.
      DamagedRecordError: if a record is damaged (a ValueError).
      NonFiniteError: if the loss or a parameter of a replica is NaN or infinite (a ValueError).
      FileNotFoundError: if a fold, or the checkpoint of a warm start, does not exist.
      OSError: if a file cannot be read or written.
      jax.errors.JaxRuntimeError: if another process of the run is lost or a device fails.
    """
    if broadcast_decision(
        all(os.path.exists(trial_result_path(workdir, replica_id)) for replica_id in replica_ids)
    ):
        return
    replica_experiments = {
        replica_id: with_fold_and_seed(experiments[replica_id[2]], *replica_id[:2])
        for replica_id in replica_ids
    }
    first_config = experiments[trial_numbers[0]].config
    if first_config.crossval.mode == "single":
        packing = train_one_by_one(replica_experiments, functools.partial(trial_directory, workdir))
    else:
        varying_fields = find_varying_fields([experiments[k] for k in trial_numbers])
        context = make_context(replica_experiments, varying_fields)
        packing = stack_replicas(context, choose_group_size(context), workdir)
    train_replica_groups(
        packing,
        first_config,
        workdir,
        should_stop,
        get_result_path=trial_result_path,
        write_results=write_trial_results,
    )


def write_trial_results(group: TestedReplicas, progress: RunProgress, workdir: str) -> None:
    """Writes the validation scores and the history of every replica of a group, one JSON file each.

    The files are `trials/<number>/fold_<i>_seed_<j>.json` in `workdir` (number of the trial with three
    digits); only the first process writes them, and existing ones are replaced. Fields: `fold`, `seed`,
    `validation_ua` (best epoch), `best_step`, `last_ua` (mean of the last five epochs) and `history` (the row
    of each epoch).

    Args:
      group: trained replicas (TestedReplicas); their `replica_ids` and `read_histories()` are used.
      progress: has the best validation result of each replica (`trackers`).
      workdir: workdir of the sweep.

    Raises:
      OSError: if a file cannot be written, or a log with the history cannot be read.
      ValueError: if a replica has no epochs (`config.train.epochs` is 0), or a log with the history is
        damaged.
      KeyError: if no clips were held out.
    """
    if not is_first_process():
        return
    histories = group.read_histories()
    for i, replica_id in enumerate(dict.fromkeys(group.replica_ids)):
        validation_uas = [row["validation_ua"] for row in histories[i]]
        trial_result = {
            "fold": replica_id[0],
            "seed": replica_id[1],
            "validation_ua": progress.trackers[i].best_ua,
            "best_step": progress.trackers[i].best_step,
            "last_ua": statistics.mean(validation_uas[-5:]),
            "history": histories[i],
        }
        write_json(trial_result_path(workdir, replica_id), trial_result)


def summarise_trial(
    workdir: str, trial_number: int, trial: Trial, replica_ids: list[ReplicaId]
) -> TrialScores:
    """Reads the results of a trial's runs (folds and seeds), and summarises them.

    Args:
      workdir: workdir of the sweep.
      trial_number: number of the trial.
      trial: values of config fields of the trial, by dotted name.
      replica_ids: fold, seed and trial number of all replicas; those of other trials are ignored.

    Returns:
      A dict: `number` and `fields` of the trial; `validation_ua` and `last_ua` (means over the runs,
      fractions) and `sd` (standard deviation of `validation_ua`, that of a sample; 0 for one run); and
      `runs`, the result of each run without its history: `fold`, `seed`, `validation_ua`, `best_step` and
      `last_ua`.

    Raises:
      ValueError: if the result of a run is invalid, or if the trial has no runs.
      OSError: if the result of a run does not exist or cannot be read.
    """
    trial_results = [
        cast(
            TrialRun,
            read_json_object(trial_result_path(workdir, replica_id), validation_ua=float, last_ua=float),
        )
        for replica_id in replica_ids
        if replica_id[2] == trial_number
    ]
    validation_uas = [row["validation_ua"] for row in trial_results]
    return {
        "number": trial_number,
        "fields": trial,
        "validation_ua": statistics.mean(validation_uas),
        "sd": statistics.stdev(validation_uas) if len(validation_uas) > 1 else 0.0,
        "last_ua": statistics.mean(row["last_ua"] for row in trial_results),
        "runs": [_without_history(row) for row in trial_results],
    }


def _without_history(row: TrialRun) -> TrialRun:
    return cast(TrialRun, {name: value for name, value in row.items() if name != "history"})


def trial_directory(workdir: str, replica_id: ReplicaId) -> str:
    """Returns `<workdir>/trials/<number>/fold_<i>_seed_<j>`, the directory of a replica's checkpoints.

    It is used only with `config.crossval.mode=single`. `replica_id` is (fold, seed, trial); the number is the
    trial with three digits, such as 007.
    """
    fold, seed, trial = replica_id
    return os.path.join(workdir, "trials", f"{trial:03d}", f"fold_{fold}_seed_{seed}")


def trial_result_path(workdir: str, replica_id: ReplicaId) -> str:
    """Returns `<workdir>/trials/<number>/fold_<i>_seed_<j>.json`, the path of the result of a replica.

    The file exists once the replica is finished. `replica_id` is (fold, seed, trial); the number is the trial
    with three digits, such as 007.
    """
    return f"{trial_directory(workdir, replica_id)}.json"
