"""A search over fields of a config: every trial on the same folds and seeds, scored by validation alone.

Replicas of one program (training/crossval/crossval.py) may differ in every number that the training step
takes as an array; other fields, such as widths and batch sizes, make programs of their own, one after the
other. The test parts are not looked at. Started again, a search goes on after its last finished group.
"""

import collections
import dataclasses
import json
import os
import statistics
from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections

from emofuse_jax.parallel.distributed import exclusive_workdir, is_first_process
from emofuse_jax.parallel.memory import explain_oom
from emofuse_jax.parallel.mesh import broadcast_decision
from emofuse_jax.parallel.preemption import watch_preemption
from emofuse_jax.training.crossval.context import CrossvalContext, ReplicaId
from emofuse_jax.training.crossval.crossval import (
    CROSSVAL_MEMORY_HINT,
    make_context,
    read_or_make_plan,
    train_replica_groups,
)
from emofuse_jax.training.crossval.group_state import ReplicaGroup, remove_group_checkpoint
from emofuse_jax.training.crossval.replica_packing import choose_group_size
from emofuse_jax.training.crossval.replicas import with_traced_fields
from emofuse_jax.training.crossval.search_space import Trial, apply_trial
from emofuse_jax.training.experiment import Experiment, flatten_fields, open_experiment, with_fold_and_seed
from emofuse_jax.training.optimizer import check_optimizer, make_optimizer
from emofuse_jax.training.step import init_state, make_train_step
from emofuse_jax.utils.files import read_json_object, write_json

TRAIN_STEP_PREFIXES = ("augment.", "loss.", "optimizer.")
"""Parts of a config that nothing but the training step reads."""


def sweep(
    config: ml_collections.ConfigDict, workdir: str, trials: list[Trial], *, folds: list[int], seeds: int
) -> dict:
    """Trains every trial on every fold, with seeds `config.seed` to `config.seed + seeds - 1`.

    Returns:
      `config`, `protocol`, `corpus`, and `trials`, best first: `number`, `fields`, mean `validation_ua` of
      the kept epochs, its `sd`, mean `last_ua` of the last five epochs, and the `runs`.

    Raises:
      ValueError: a field that does not exist, no clips held out, or `workdir` holds another search.
    """
    base_experiment = open_experiment(config)
    experiments = [open_trial(base_experiment, trial) for trial in trials]
    if not all(experiment.config.data.hold_out for experiment in experiments):
        raise ValueError("config.data.hold_out=False: a search needs validation clips to choose by")
    replica_ids = [(f, config.seed + s, k) for k in range(len(trials)) for f in folds for s in range(seeds)]
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
    summary = {
        "config": config.name,
        "protocol": base_experiment.protocol,
        "corpus": base_experiment.dataset.prep["corpus"],
    }
    return summary | {"folds": folds, "seeds": seeds, "trials": ranked}


def open_trial(base_experiment: Experiment, trial: Trial) -> Experiment:
    """The experiment with a trial's fields; the records and, where it can stay, the model are shared."""
    config = apply_trial(base_experiment.config, trial)
    check_optimizer(config.optimizer)
    if all(name.startswith(TRAIN_STEP_PREFIXES) for name in trial):
        return dataclasses.replace(base_experiment, config=config)
    return open_experiment(config)


def group_trials_by_program(experiments: list[Experiment], trials: list[Trial]) -> list[list[int]]:
    """Numbers of the trials that one program can train, in the order of their first ones."""
    field_names = sorted({name for trial in trials for name in trial})
    is_traceable: dict[tuple, bool] = {}
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
    """Fields in which the experiments of a group differ."""
    flat_configs = [flatten_fields(experiment.config.to_dict()) for experiment in experiments]
    return tuple(
        name
        for name in flat_configs[0]
        if any(fields[name] != flat_configs[0][name] for fields in flat_configs)
    )


def can_trace_field(experiment: Experiment, name: str) -> bool:
    """Whether the training step can be traced with this field as an array, not as a number of Python."""
    if not isinstance(flatten_fields(experiment.config.to_dict()).get(name), float):
        return False

    def train_one_step(key, batch, value):
        config = with_traced_fields(experiment.config, {name: value})
        tx = make_optimizer(config.optimizer, 100)
        state = init_state(experiment.model, tx, key, experiment.statistics)
        return make_train_step(experiment.model, tx, config)(state, batch)

    try:
        jax.eval_shape(train_one_step, jax.random.key(0), experiment.model.fake_batch(4), jnp.zeros(()))
    except TypeError:  # a branch on its value
        return False
    return True


def train_trials(
    experiments: list[Experiment],
    trial_numbers: list[int],
    replica_ids: list[ReplicaId],
    workdir: str,
    should_stop: Callable[[], bool],
) -> None:
    """Trains the runs of trials that share a program, as many at a time as fit, and writes their results."""
    if broadcast_decision(
        all(os.path.exists(trial_result_path(workdir, replica_id)) for replica_id in replica_ids)
    ):
        return
    varying_fields = find_varying_fields([experiments[k] for k in trial_numbers])
    context = make_context(
        {
            replica_id: with_fold_and_seed(experiments[replica_id[2]], *replica_id[:2])
            for replica_id in replica_ids
        },
        varying_fields,
    )
    train_replica_groups(
        context,
        replica_ids,
        choose_group_size(context),
        workdir,
        should_stop,
        get_result_path=trial_result_path,
        write_results=write_trial_results,
    )


def write_trial_results(context: CrossvalContext, group: ReplicaGroup, workdir: str) -> None:
    """Writes the validation history of every run of a group."""
    for i, replica_id in enumerate(dict.fromkeys(group.replica_ids)):
        validation_uas = [row["validation_ua"] for row in group.histories[i]]
        trial_result = {
            "fold": replica_id[0],
            "seed": replica_id[1],
            "validation_ua": group.trackers[i].best_ua,
            "best_step": group.trackers[i].best_step,
            "last_ua": statistics.mean(validation_uas[-5:]),
            "history": group.histories[i],
        }
        if is_first_process():
            write_json(trial_result_path(workdir, replica_id), trial_result)


def summarise_trial(workdir: str, trial_number: int, trial: Trial, replica_ids: list[ReplicaId]) -> dict:
    """A trial's scores over its runs."""
    trial_results = [
        read_json_object(trial_result_path(workdir, replica_id), validation_ua=float, last_ua=float)
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
        "runs": [{name: row[name] for name in row if name != "history"} for row in trial_results],
    }


def trial_result_path(workdir: str, replica_id: ReplicaId) -> str:
    """Where a run's result lies when it is whole."""
    return os.path.join(
        workdir, "trials", f"{replica_id[2]:03d}", f"fold_{replica_id[0]}_seed_{replica_id[1]}.json"
    )
