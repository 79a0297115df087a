"""All folds and seeds of a protocol: the corpus lies on the devices once, the replicas run side by side.

A replica is `emofuse train` of its fold and seed, to rounding. Replicas are trained in chunks that fit the
devices' memory; a finished chunk leaves each replica's best checkpoint, history and result. Started again, a
run goes on after the last finished chunk, from what was saved last; SIGTERM saves within an epoch.
"""

import functools
import json
import os
from collections.abc import Callable

import jax
import ml_collections
import numpy as np

from emofuse_jax.data.dataset import Dataset, list_folds, read_split_leaks
from emofuse_jax.data.resident import load_resident
from emofuse_jax.parallel.distributed import is_first, owned
from emofuse_jax.parallel.memory import exhaustion_told
from emofuse_jax.parallel.mesh import agreed, put_as, replica_mesh, replicated, to_host
from emofuse_jax.parallel.preemption import Preempted, watch
from emofuse_jax.scoring import metrics
from emofuse_jax.scoring.pooled_scores import make_crossval_results
from emofuse_jax.training import progress
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.checkpoint.compat import saved_config
from emofuse_jax.training.crossval.context import Job, Run
from emofuse_jax.training.crossval.group_state import Chunk, forget_chunk
from emofuse_jax.training.crossval.replica_group import answer, train_chunk
from emofuse_jax.training.crossval.replica_packing import chunk_size, footprint, runs_side_by_side
from emofuse_jax.training.crossval.replicas import make_answers, make_epoch, over_replicas
from emofuse_jax.training.crossval.saved_results import read_begun, read_result
from emofuse_jax.training.experiment import (
    Experiment,
    check_same_config,
    check_unseen,
    epoch_steps,
    metadata,
    open_experiment,
    other_fold,
)
from emofuse_jax.training.loop import no_description
from emofuse_jax.training.metric_writer import Writer
from emofuse_jax.types import Params
from emofuse_jax.utils.files import write_json

LOWER = "choose another --workdir, and lower config.data.batch_size or config.crossval.memory"
WORDS = {"runs": "folds or seeds", "trials": "trials"}
"""Parts of a plan beside the config, in words."""


def crossval(
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    seeds: int,
    folds: list[int] | None = None,
    describe_data: Callable[[str, Dataset], None] = no_description,
) -> dict:
    """Trains and tests every fold with seeds `config.seed` to `config.seed + seeds - 1`.

    Writes `runs/fold_<i>_seed_<j>/` under `workdir`: `checkpoints/best`, `metrics.jsonl`, `result.json`.
    The test part of a fold is scored once, with the parameters that its validation part chose,
    or the last ones where no clips are held out.

    Args:
      config: an experiment; `data.fold` and `mesh` are not used.
      workdir: to write to, and to go on from.
      seeds: how many.
      folds: which; all of the protocol by default.
      describe_data: called with the directory of each finished replica and the dataset.

    Raises:
      ValueError: buckets, no test clips in a fold, a test speaker that was trained on, another config than
        that of `workdir`, another process at work there, a replica that does not fit a device, or one whose
        loss is not a number any more: `nonfinite.json` then names the step's clips.
    """
    base = open_experiment(config)
    folds = list_folds(base.dataset, base.protocol) if folds is None else folds
    runs = [(fold, config.seed + seed) for fold in folds for seed in range(seeds)]
    experiments = {run: other_fold(base, *run) for run in runs}
    for experiment in experiments.values():
        check_parts(experiment)
    plan = read_plan(workdir, base.config, runs)
    with owned(workdir), exhaustion_told(lower=LOWER), watch() as told:
        job = make_job(experiments)
        size = plan.get("replicas") or chunk_size(job)
        if is_first():
            write_json(os.path.join(workdir, "crossval.json"), plan | {"replicas": size})
        write = functools.partial(write_chunk, describe_data=describe_data)
        train_chunks(job, runs, size, workdir, told, path=result_path, write=write)
        forget_chunk(workdir)
    leaks = {
        leak
        for e in experiments.values()
        for leak in read_split_leaks(e.dataset, e.protocol, e.config.data.fold)
    }
    return make_crossval_results(
        read_results(job, workdir), base.config, base.dataset, base.protocol, sorted(leaks)
    )


def check_parts(experiment: Experiment) -> None:
    """ValueError where a fold has nothing to test on, no whole batch to train on, or a speaker in both."""
    if not len(experiment.clips["test"]):
        fold = f"{experiment.protocol}, fold {experiment.config.data.fold}"
        raise ValueError(f"{experiment.dataset.path}: {fold}: test is empty")
    epoch_steps(experiment)
    check_unseen(experiment, metadata(experiment))


def read_plan(workdir: str, config: ml_collections.ConfigDict, runs: list[Run], **more) -> dict:
    """What `workdir` was begun with, or begins with; ValueError where it holds another cross-validation."""
    path = os.path.join(workdir, "crossval.json")
    now = {"config": config.to_dict(), "runs": [list(run) for run in runs], **more}
    if not os.path.exists(path):
        return now
    plan = read_begun(path)
    check_same_config(workdir, saved_config(plan).to_dict(), json.loads(json.dumps(now["config"])))
    for name in ("runs", *more):
        if plan.get(name) != now[name]:
            raise ValueError(f"{workdir}: holds other {WORDS[name]}; choose another --workdir")
    return plan


def make_job(experiments: dict[Run, Experiment], numbers: tuple[str, ...] = ()) -> Job:
    """Loads the corpus onto the devices and makes the programs.

    `numbers`: fields of the config in which the replicas differ; the programs take them as arrays.
    Raises ValueError where the config asks for buckets, or to leave out damaged records.
    """
    first = next(iter(experiments.values()))
    if first.config.data.buckets != 1:
        raise ValueError(
            f"config.data.buckets={first.config.data.buckets}: resident clips all have one shape"
        )
    if first.config.data.on_corrupt != "stop":
        raise ValueError(
            f"config.data.on_corrupt={first.config.data.on_corrupt}: only emofuse train takes it"
        )
    count = jax.device_count() if jax.process_count() > 1 else min(jax.device_count(), len(experiments))
    mesh = replica_mesh(count)
    parts = [clips for experiment in experiments.values() for clips in experiment.clips.values()]
    clips = np.unique(np.concatenate(parts))
    host = load_resident(first.dataset, clips, first.spec)
    return Job(
        experiments=experiments,
        mesh=mesh,
        clips=clips,
        data=put_as(host, replicated(mesh)),
        labels=host.label,
        side_by_side=runs_side_by_side(first.config.crossval.mode, first.model, host),
        epoch=over_replicas(make_epoch(first.model, first.config), mesh, donate=(1,)),
        answers=over_replicas(make_answers(first.model), mesh),
        numbers=numbers,
    )


def split(job: Job, runs: list[Run], size: int) -> list[list[Run]]:
    """Chunks of `size` runs; the last run of one again where the chunk does not fill the devices."""
    chunks, devices = [runs[first : first + size] for first in range(0, len(runs), size)], job.mesh.size
    return [[*chunk, *chunk[-1:] * (-len(chunk) % devices)] for chunk in chunks]


def train_chunks(
    job: Job,
    runs: list[Run],
    size: int,
    workdir: str,
    told: Callable[[], bool],
    *,
    path: Callable[[str, Run], str],
    write: Callable[[Job, Chunk, str], None],
) -> None:
    """Trains the runs, `size` at a time, and writes what they reached; skips chunks that are whole.

    Args:
      job, runs: what to train.
      size: runs a chunk.
      workdir: to save to, and to go on from.
      told: of parallel/preemption.py; asked between calls of a program, and when a chunk is written.
      path: where, under `workdir`, the result of a run lies when it is whole.
      write: writes the results of a chunk's runs under `workdir`.
    """
    chunks, epochs = split(job, runs, size), job.config.train.epochs
    clips = size * job.steps * job.config.data.batch_size
    line = progress.live_line(epochs * len(chunks), 0, clips, job.config.name, active=is_first())
    each = -(-size // job.mesh.size) if job.side_by_side else 1
    with line as show, exhaustion_told(lambda: footprint(job, each), LOWER):
        for number, chunk in enumerate(chunks):
            if not agreed(all(os.path.exists(path(workdir, run)) for run in chunk)):
                trained = train_chunk(
                    job, chunk, workdir, lambda now, n=number: show(n * epochs + now.epochs), told
                )
                write(job, trained, workdir)
            if told():
                raise Preempted(f"{workdir}: saved, {number + 1} of {len(chunks)} chunks are done")


def write_chunk(
    job: Job, chunk: Chunk, workdir: str, *, describe_data: Callable[[str, Dataset], None]
) -> None:
    """Tests the replicas of a trained chunk and writes what they reached."""
    tested, best = answer(job, chunk.runs, chunk.best, "test"), to_host(chunk.best)
    for i, run in enumerate(dict.fromkeys(chunk.runs)):
        directory = run_directory(workdir, run)
        write_run(job, chunk, i, jax.tree.map(lambda x, i=i: x[i], best), directory)
        if is_first():
            describe_data(directory, job.experiments[run].dataset)
            write_json(result_path(workdir, run), result(job, chunk, tested, i))


def write_run(job: Job, chunk: Chunk, i: int, model: tuple[Params, Params], directory: str) -> None:
    """A replica's checkpoint and history."""
    experiment, tracker = job.experiments[chunk.runs[i]], chunk.trackers[i]
    params, model_state = put_as(model, replicated(job.mesh))
    about = metadata(experiment) | {"step": tracker.best_step, "temperature": tracker.temperature}
    store.save_model(directory, params, model_state, about)
    writer = Writer(directory, resume_step=0, active=is_first())
    for row in chunk.histories[i]:
        writer.write(row["step"], "epoch", {name: value for name, value in row.items() if name != "step"})
    writer.close()


def result(job: Job, chunk: Chunk, tested: dict, i: int) -> dict:
    """What one replica reached on the test part of its fold, and every answer."""
    (fold, seed), experiment = chunk.runs[i], job.experiments[chunk.runs[i]]
    dataset, clips = experiment.dataset, experiment.clips["test"]
    names = [dataset.clip_ids[clip] for clip in clips]
    scores = metrics.compute_scores(tested["confusion"][i])
    return {
        "fold": fold,
        "seed": seed,
        "validation": {"ua": chunk.trackers[i].best_ua},
        "test": {name: scores[name] for name in ("ua", "wa", "wf1")},
        "best_step": chunk.trackers[i].best_step,
        "temperature": chunk.trackers[i].temperature,
        "epochs": len(chunk.histories[i]),
        "clips": names,
        "speakers": [dataset.speaker_of[name] for name in names],
        "labels": job.labels[np.searchsorted(job.clips, clips)].tolist(),
        "probabilities": tested["probabilities"][i, : len(clips)].tolist(),
    }


def read_results(job: Job, workdir: str) -> list[dict]:
    """The results of all runs, in their order."""
    classes = len(next(iter(job.experiments.values())).dataset.classes)
    return [read_result(result_path(workdir, run), classes) for run in job.experiments]


def run_directory(workdir: str, run: Run) -> str:
    """Where the checkpoint and the history of a fold and seed lie."""
    return os.path.join(workdir, "runs", f"fold_{run[0]}_seed_{run[1]}")


def result_path(workdir: str, run: Run) -> str:
    """Where a run's result lies when it is whole."""
    return os.path.join(run_directory(workdir, run), "result.json")
