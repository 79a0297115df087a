"""A search over fields of a config: every trial on the same folds and seeds, scored by validation alone.

Replicas of one program (training/crossval/crossval.py) may differ in every number that the training step
takes as an array; other fields, such as widths and batch sizes, make programs of their own, one after the
other. The test parts are not looked at. Started again, a search goes on after its last finished chunk.
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

from emofuse_jax.parallel.distributed import is_first, owned
from emofuse_jax.parallel.memory import exhaustion_told
from emofuse_jax.parallel.mesh import agreed
from emofuse_jax.parallel.preemption import watch
from emofuse_jax.training.crossval.context import Job, Run
from emofuse_jax.training.crossval.crossval import LOWER, make_job, read_plan, train_chunks
from emofuse_jax.training.crossval.group_state import Chunk, forget_chunk
from emofuse_jax.training.crossval.replica_packing import chunk_size
from emofuse_jax.training.crossval.replicas import with_numbers
from emofuse_jax.training.crossval.search_space import Trial, with_fields
from emofuse_jax.training.experiment import Experiment, flatten, open_experiment, other_fold
from emofuse_jax.training.optimizer import check_optimizer, make_optimizer
from emofuse_jax.training.step import init_state, make_train_step
from emofuse_jax.utils.files import read_object, write_json

STEP_ONLY = ("augment.", "loss.", "optimizer.")
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
    base = open_experiment(config)
    experiments = [open_trial(base, trial) for trial in trials]
    if not all(experiment.config.data.hold_out for experiment in experiments):
        raise ValueError("config.data.hold_out=False: a search needs validation clips to choose by")
    runs = [(f, config.seed + s, k) for k in range(len(trials)) for f in folds for s in range(seeds)]
    plan = read_plan(workdir, base.config, runs, trials=trials)
    with owned(workdir), exhaustion_told(lower=LOWER), watch() as told:
        if is_first():
            write_json(os.path.join(workdir, "crossval.json"), plan)
        for group in groups(experiments, trials):
            train_group(experiments, group, [run for run in runs if run[2] in group], workdir, told)
        forget_chunk(workdir)
    ranked = sorted(
        (summarise(workdir, k, trials[k], runs) for k in range(len(trials))),
        key=lambda row: -row["validation_ua"],
    )
    about = {"config": config.name, "protocol": base.protocol, "corpus": base.dataset.prep["corpus"]}
    return about | {"folds": folds, "seeds": seeds, "trials": ranked}


def open_trial(base: Experiment, trial: Trial) -> Experiment:
    """The experiment with a trial's fields; the records and, where it can stay, the model are shared."""
    config = with_fields(base.config, trial)
    check_optimizer(config.optimizer)
    if all(name.startswith(STEP_ONLY) for name in trial):
        return dataclasses.replace(base, config=config)
    return open_experiment(config)


def groups(experiments: list[Experiment], trials: list[Trial]) -> list[list[int]]:
    """Numbers of the trials that one program can train, in the order of their first ones."""
    names = sorted({name for trial in trials for name in trial})
    taken: dict[tuple, bool] = {}
    found = collections.defaultdict(list)
    for k, experiment in enumerate(experiments):
        fields = flatten(experiment.config.to_dict())
        for name in names:
            if name not in taken:
                taken[name] = name.startswith(STEP_ONLY) and takes_array(experiment, name)
        found[json.dumps({name: fields.get(name) for name in names if not taken[name]})].append(k)
    return list(found.values())


def differing(experiments: list[Experiment]) -> tuple[str, ...]:
    """Fields in which the experiments of a group differ."""
    flat = [flatten(experiment.config.to_dict()) for experiment in experiments]
    return tuple(name for name in flat[0] if any(fields[name] != flat[0][name] for fields in flat))


def takes_array(experiment: Experiment, name: str) -> bool:
    """Whether the training step can be traced with this field as an array, not as a number of Python."""
    if not isinstance(flatten(experiment.config.to_dict()).get(name), float):
        return False

    def program(key, batch, value):
        config = with_numbers(experiment.config, {name: value})
        tx = make_optimizer(config.optimizer, 100)
        state = init_state(experiment.model, tx, key, experiment.statistics)
        return make_train_step(experiment.model, tx, config)(state, batch)

    try:
        jax.eval_shape(program, jax.random.key(0), experiment.model.fake_batch(4), jnp.zeros(()))
    except TypeError:  # a branch on its value
        return False
    return True


def train_group(
    experiments: list[Experiment],
    group: list[int],
    runs: list[Run],
    workdir: str,
    told: Callable[[], bool],
) -> None:
    """Trains the runs of trials that share a program, as many at a time as fit, and writes their results."""
    if agreed(all(os.path.exists(result_path(workdir, run)) for run in runs)):
        return
    numbers = differing([experiments[k] for k in group])
    job = make_job({run: other_fold(experiments[run[2]], *run[:2]) for run in runs}, numbers)
    train_chunks(job, runs, chunk_size(job), workdir, told, path=result_path, write=write_results)


def write_results(job: Job, chunk: Chunk, workdir: str) -> None:
    """The validation history of every run of a chunk."""
    for i, run in enumerate(dict.fromkeys(chunk.runs)):
        ua = [row["validation_ua"] for row in chunk.histories[i]]
        found = {
            "fold": run[0],
            "seed": run[1],
            "validation_ua": chunk.trackers[i].best_ua,
            "best_step": chunk.trackers[i].best_step,
            "last_ua": statistics.mean(ua[-5:]),
            "history": chunk.histories[i],
        }
        if is_first():
            write_json(result_path(workdir, run), found)


def summarise(workdir: str, number: int, trial: Trial, runs: list[Run]) -> dict:
    """A trial's scores over its runs."""
    found = [
        read_object(result_path(workdir, run), validation_ua=float, last_ua=float)
        for run in runs
        if run[2] == number
    ]
    values = [row["validation_ua"] for row in found]
    return {
        "number": number,
        "fields": trial,
        "validation_ua": statistics.mean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
        "last_ua": statistics.mean(row["last_ua"] for row in found),
        "runs": [{name: row[name] for name in row if name != "history"} for row in found],
    }


def result_path(workdir: str, run: Run) -> str:
    """Where a run's result lies when it is whole."""
    return os.path.join(workdir, "trials", f"{run[2]:03d}", f"fold_{run[0]}_seed_{run[1]}.json")
