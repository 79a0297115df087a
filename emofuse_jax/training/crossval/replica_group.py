"""Trains a chunk of replicas to the end, epoch by epoch; killed and started again, it goes on."""

import dataclasses
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from emofuse_jax.data.resident import row_numbers
from emofuse_jax.data.sampler import Sampler
from emofuse_jax.models.registry import get_calibrator
from emofuse_jax.parallel.mesh import agreed, replica_mesh, to_host
from emofuse_jax.parallel.preemption import Preempted
from emofuse_jax.scoring import metrics
from emofuse_jax.scoring.calibration import fit_temperature
from emofuse_jax.training.crossval.context import Job, Run, put, stack
from emofuse_jax.training.crossval.group_state import Chunk, position, restore_or_init, save_chunk
from emofuse_jax.training.crossval.replicas import keep_better
from emofuse_jax.training.fusion_state import fitted
from emofuse_jax.training.nan_guard import NotFinite, check_finite, explain, finite_replicas, retold
from emofuse_jax.training.optimizer import evaluation_params, make_optimizer
from emofuse_jax.types import Params


def train_chunk(
    job: Job, runs: list[Run], workdir: str, show: Callable[[Chunk], None], told: Callable[[], bool]
) -> Chunk:
    """Trains until every replica is through or has stopped; saves to `workdir` on the way.

    `told` is asked before each call of a program, and asks to save and to end: raises Preempted. NotFinite
    where the loss of a replica is not a number any more: `nonfinite.json` then names the step's clips.
    """
    try:
        return _train_chunk(job, runs, workdir, show, told)
    except NotFinite as error:
        failed = error.with_traceback(None)  # whose frames hold the arrays
    raise retold(failed, lambda: explained(job, runs, workdir, failed))


def _train_chunk(
    job: Job, runs: list[Run], workdir: str, show: Callable[[Chunk], None], told: Callable[[], bool]
) -> Chunk:
    chunk = restore_or_init(job, runs, workdir)
    saved, kept, config = time.monotonic(), position(job, chunk), job.config
    while chunk.epochs < config.train.epochs:
        active = [not tracker.stops(config.train.patience) for tracker in chunk.trackers]
        if not any(active):
            break
        stop = not advance(job, chunk, active, told) or told()
        show(chunk)
        due = stop or agreed(time.monotonic() - saved >= config.crossval.save_seconds)
        if due and position(job, chunk) > kept:  # a save over the same step would first remove it
            if chunk.steps:
                check_replicas(job, chunk, active, measured(chunk))
            save_chunk(job, chunk, workdir)
            saved, kept = time.monotonic(), position(job, chunk)
        if stop:
            raise Preempted(f"{workdir}: saved at step {kept} of its chunk")
    return chunk


def advance(job: Job, chunk: Chunk, active: list[bool], told: Callable[[], bool] = lambda: False) -> bool:
    """Trains the active replicas for an epoch, scores their validation, and keeps what is best so far.

    False where `told` ended it on the way.
    """
    sums = run_epoch(job, chunk, active, told)
    if sums is None:
        return False
    answers = calibrated_answers(job, chunk) if job.config.data.hold_out else None
    chunk.epochs += 1
    better = close_epoch(job, chunk, active, sums, answers)
    now = (evaluation_params(chunk.states.params, chunk.states.opt_state), chunk.states.model_state)
    chunk.best = _keep_better(put(job, better), now, chunk.best)
    return True


_keep_better = jax.jit(keep_better, donate_argnums=2)


def run_epoch(job: Job, chunk: Chunk, active: list[bool], told: Callable[[], bool]) -> dict | None:
    """Takes the steps left of an epoch; gives each replica's summed loss and confusion matrix.

    And `finite`: whether its parameters still are. None where `told` ended it on the way.
    """
    plans = [_rows(job, *each, chunk.epochs) for each in zip(chunk.runs, chunk.samplers, active, strict=True)]
    rows, live = (np.stack(part) for part in zip(*plans, strict=True))  # r k b, r k
    size = rows.shape[1] if job.side_by_side else 1
    for first in range(chunk.steps, rows.shape[1], size):
        if told():
            return None
        span = slice(first, first + size)
        inputs = put(job, (rows[:, span], live[:, span]))
        chunk.states, sums = job.epoch(job.data, chunk.states, chunk.replicas, *inputs)
        chunk.sums = sums if chunk.sums is None else jax.tree.map(jnp.add, chunk.sums, sums)
        chunk.steps = min(first + size, rows.shape[1])
        if jax.default_backend() == "cpu":  # steps queued behind each other would hold their memory
            jax.block_until_ready(chunk.sums)
    found = measured(chunk)
    chunk.sums, chunk.steps = None, 0
    return found


def measured(chunk: Chunk) -> dict:
    """The sums over the steps of an epoch, and `finite`, on the host."""
    return to_host(chunk.sums | {"finite": finite_replicas(chunk.states.params)})


def _rows(
    job: Job, run: Run, sampler: Sampler, active: bool, epoch: int
) -> tuple[Int[np.ndarray, "k b"], Bool[np.ndarray, " k"]]:
    """Resident rows of each step of a replica's epoch, and which of them there are."""
    rows, live = np.zeros((job.steps, job.config.data.batch_size), np.int32), np.zeros(job.steps, bool)
    steps = job.epoch_steps(run)
    if active:
        chosen = np.stack([sampler.batch(epoch * steps + i) for i in range(steps)])
        rows[:steps], live[:steps] = row_numbers(job.clips, chosen), True
    return rows, live


def answer(job: Job, runs: list[Run], model: tuple[Params, Params], part: str) -> dict:
    """`make_answers` of each replica for a part of its fold, on the host; padded rows at the end."""
    size, batches = job.config.train.eval_batch_size, job.batches(part)
    rows = np.full((len(runs), batches * size), -1, np.int32)
    for row, run in zip(rows, runs, strict=True):
        clips = job.experiments[run].clips[part]
        row[: len(clips)] = row_numbers(job.clips, clips)
    rows = rows.reshape(len(runs), batches, size)
    span = batches if job.side_by_side else 1
    pieces = [
        to_host(job.answers(job.data, *model, put(job, rows[:, i : i + span])))
        for i in range(0, batches, span)
    ]
    sums = {name: sum(piece[name] for piece in pieces) for name in ("confusion", "loss", "weight")}
    own = [{name: piece[name] for name in ("probabilities", "levels")} for piece in pieces]
    joined = jax.tree.map(lambda *parts: np.concatenate(parts, 1), *own)  # r k b c
    return sums | jax.tree.map(lambda x: x.reshape(len(x), -1, *x.shape[3:]), joined)


def calibrated_answers(job: Job, chunk: Chunk) -> dict:
    """The answers for validation, after what the fusion sets from them (training/fusion_state.py)."""
    states = chunk.states
    model = (evaluation_params(states.params, states.opt_state), states.model_state)
    answers, hook = answer(job, chunk.runs, model, "validation"), get_calibrator(job.config.model.fusion.name)
    if hook is None:
        return answers
    before, after = to_host(states.model_state["fusion"]), []
    for i, run in enumerate(chunk.runs):
        labels = validation_labels(job, run)
        levels = None if answers["levels"] is None else answers["levels"][i, : len(labels)]
        after.append(fitted(jax.tree.map(lambda x, i=i: x[i], before), hook, levels, labels))
    model_state = states.model_state | {"fusion": put(job, stack(after))}
    chunk.states = dataclasses.replace(states, model_state=model_state)
    return answer(job, chunk.runs, (model[0], model_state), "validation")


def temperature(job: Job, run: Run, answers: dict | None, i: int) -> float:
    """That of a replica's answers for its validation clips, else the config's; padding comes last."""
    if answers is None:
        return job.config.train.temperature
    labels = validation_labels(job, run)
    return fit_temperature(answers["probabilities"][i, : len(labels)], labels)


def validation_labels(job: Job, run: Run) -> Int[np.ndarray, " n"]:
    """Labels of the validation clips of a replica."""
    return job.labels[row_numbers(job.clips, job.experiments[run].clips["validation"])]


def close_epoch(
    job: Job, chunk: Chunk, active: list[bool], sums: dict, answers: dict | None
) -> Bool[np.ndarray, " r"]:
    """Adds a row to each active replica's history; tells which are the best so far.

    `answers` for validation; None where no clips are held out.
    """
    check_replicas(job, chunk, active, sums)
    better = np.zeros(len(chunk.runs), bool)
    for i, run in enumerate(chunk.runs):
        if not active[i]:
            continue
        steps = job.epoch_steps(run)
        held = {} if answers is None else validation_row(answers, i)
        row = {
            "epoch": chunk.epochs,
            "train_loss": float(sums["loss"][i]) / steps,
            "train_ua": metrics.compute_scores(sums["confusion"][i])["ua"],
            **held,
        }
        step = chunk.epochs * steps
        chunk.histories[i].append({"step": step, **row})
        better[i] = chunk.trackers[i].update(held.get("validation_ua"), step)
        if better[i]:
            chunk.trackers[i].temperature = temperature(job, run, answers, i)
    return better


def check_replicas(job: Job, chunk: Chunk, active: list[bool], sums: dict) -> None:
    """NotFinite where an active replica's loss since the epoch's start, or a parameter, is not a number."""
    for i, run in enumerate(chunk.runs):
        if active[i]:
            steps = job.epoch_steps(run)
            taken = chunk.epochs * steps + min(chunk.steps, steps)
            check_finite(taken, float(sums["loss"][i]), bool(sums["finite"][i]), run)


def validation_row(answers: dict, i: int) -> dict:
    """Scores of a replica's answers for its validation clips."""
    found = metrics.compute_scores(answers["confusion"][i])
    return {
        "validation_loss": float(answers["loss"][i] / max(answers["weight"][i], 1.0)),
        "validation_ua": found["ua"],
        "validation_wa": found["wa"],
    }


def explained(job: Job, runs: list[Run], workdir: str, failed: NotFinite) -> str:
    """Why the loss of a replica was not finite, from what was saved last, on one device."""
    if jax.process_count() > 1:
        raise ValueError("several processes; emofuse train of its fold and seed tells more")
    chunk, experiment = restore_or_init(job, runs, workdir), job.experiments[failed.run]
    i = runs.index(failed.run)
    state = jax.tree.map(lambda x: x[i], to_host(chunk.states))
    steps = experiment.config.train.epochs * job.epoch_steps(failed.run)
    tx = make_optimizer(experiment.config.optimizer, steps)
    return explain(experiment, state, tx, replica_mesh(1), failed.step, workdir)
