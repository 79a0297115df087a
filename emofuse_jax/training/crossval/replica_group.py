"""Trains a replica group to the end, epoch by epoch; killed and started again, it goes on."""

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
from emofuse_jax.parallel.mesh import broadcast_decision, replica_mesh, to_host
from emofuse_jax.parallel.preemption import Preempted
from emofuse_jax.scoring import metrics
from emofuse_jax.scoring.calibration import fit_temperature
from emofuse_jax.training.crossval.context import CrossvalContext, ReplicaId, put_replicas, stack_trees
from emofuse_jax.training.crossval.group_state import (
    ReplicaGroup,
    count_steps_taken,
    restore_or_init_group,
    save_replica_group,
)
from emofuse_jax.training.crossval.replicas import select_better
from emofuse_jax.training.fusion_state import compute_fusion_state
from emofuse_jax.training.nan_guard import (
    NonFiniteError,
    are_replicas_finite,
    check_finite,
    trace_nonfinite_step,
    with_explanation,
)
from emofuse_jax.training.optimizer import evaluation_params, make_optimizer
from emofuse_jax.types import Params


def train_replica_group(
    context: CrossvalContext,
    replica_ids: list[ReplicaId],
    workdir: str,
    report_progress: Callable[[ReplicaGroup], None],
    should_stop: Callable[[], bool],
) -> ReplicaGroup:
    """Trains until every replica is through or has stopped; saves to `workdir` on the way.

    `should_stop` is asked before each call of a program, and asks to save and to end: raises Preempted.
    NonFiniteError where the loss of a replica is not a number any more: `nonfinite.json` then names the
    step's clips.
    """
    try:
        return _train_replica_group(context, replica_ids, workdir, report_progress, should_stop)
    except NonFiniteError as error:
        nonfinite_error = error.with_traceback(None)  # whose frames hold the arrays
    raise with_explanation(
        nonfinite_error, lambda: explain_replica_nan(context, replica_ids, workdir, nonfinite_error)
    )


def _train_replica_group(
    context: CrossvalContext,
    replica_ids: list[ReplicaId],
    workdir: str,
    report_progress: Callable[[ReplicaGroup], None],
    should_stop: Callable[[], bool],
) -> ReplicaGroup:
    group = restore_or_init_group(context, replica_ids, workdir)
    last_save_time, last_saved_step, config = (
        time.monotonic(),
        count_steps_taken(context, group),
        context.config,
    )
    while group.epochs < config.train.epochs:
        active = [not tracker.should_stop_early(config.train.patience) for tracker in group.trackers]
        if not any(active):
            break
        is_stopping = not train_and_validate(context, group, active, should_stop) or should_stop()
        report_progress(group)
        should_save = is_stopping or broadcast_decision(
            time.monotonic() - last_save_time >= config.crossval.save_seconds
        )
        # a save over the same step would first remove it
        if should_save and count_steps_taken(context, group) > last_saved_step:
            if group.steps:
                check_replicas_finite(context, group, active, fetch_epoch_sums(group))
            save_replica_group(context, group, workdir)
            last_save_time, last_saved_step = time.monotonic(), count_steps_taken(context, group)
        if is_stopping:
            raise Preempted(f"{workdir}: saved at step {last_saved_step} of its replica group")
    return group


def train_and_validate(
    context: CrossvalContext,
    group: ReplicaGroup,
    active: list[bool],
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Trains the active replicas for an epoch, scores their validation, and keeps what is best so far.

    False where `should_stop` ended it on the way.
    """
    sums = train_epoch(context, group, active, should_stop)
    if sums is None:
        return False
    predictions = calibrate_and_predict(context, group) if context.config.data.hold_out else None
    group.epochs += 1
    is_best = record_epoch(context, group, active, sums, predictions)
    current_model = (evaluation_params(group.states.params, group.states.opt_state), group.states.model_state)
    group.best_model = _select_better(put_replicas(context, is_best), current_model, group.best_model)
    return True


_select_better = jax.jit(select_better, donate_argnums=2)


def train_epoch(
    context: CrossvalContext, group: ReplicaGroup, active: list[bool], should_stop: Callable[[], bool]
) -> dict | None:
    """Takes the steps left of an epoch; gives each replica's summed loss and confusion matrix.

    And `finite`: whether its parameters still are. None where `should_stop` ended it on the way.
    """
    epoch_plans = [
        _plan_epoch(context, *replica_arguments, group.epochs)
        for replica_arguments in zip(group.replica_ids, group.samplers, active, strict=True)
    ]
    rows, step_mask = (np.stack(arrays) for arrays in zip(*epoch_plans, strict=True))  # r k b, r k
    steps_per_call = rows.shape[1] if context.is_vmapped else 1
    for first_step in range(group.steps, rows.shape[1], steps_per_call):
        if should_stop():
            return None
        step_slice = slice(first_step, first_step + steps_per_call)
        inputs = put_replicas(context, (rows[:, step_slice], step_mask[:, step_slice]))
        group.states, sums = context.train_steps(context.data, group.states, group.replica_inputs, *inputs)
        group.epoch_sums = sums if group.epoch_sums is None else jax.tree.map(jnp.add, group.epoch_sums, sums)
        group.steps = min(first_step + steps_per_call, rows.shape[1])
        if jax.default_backend() == "cpu":  # steps queued behind each other would hold their memory
            jax.block_until_ready(group.epoch_sums)
    totals = fetch_epoch_sums(group)
    group.epoch_sums, group.steps = None, 0
    return totals


def fetch_epoch_sums(group: ReplicaGroup) -> dict:
    """The sums over the steps of an epoch, and `finite`, on the host."""
    return to_host(group.epoch_sums | {"finite": are_replicas_finite(group.states.params)})


def _plan_epoch(
    context: CrossvalContext, replica_id: ReplicaId, sampler: Sampler, is_active: bool, epoch: int
) -> tuple[Int[np.ndarray, "k b"], Bool[np.ndarray, " k"]]:
    """Resident rows of each step of a replica's epoch, and which of them there are."""
    rows, step_mask = (
        np.zeros((context.steps, context.config.data.batch_size), np.int32),
        np.zeros(context.steps, bool),
    )
    steps = context.count_epoch_steps(replica_id)
    if is_active:
        clip_indices = np.stack([sampler.batch(epoch * steps + i) for i in range(steps)])
        rows[:steps], step_mask[:steps] = row_numbers(context.clips, clip_indices), True
    return rows, step_mask


def predict_part(
    context: CrossvalContext, replica_ids: list[ReplicaId], model: tuple[Params, Params], split: str
) -> dict:
    """`make_predict_batches` of each replica for a part of its fold, on the host; padded rows at the end."""
    batch_size, batch_count = context.config.train.eval_batch_size, context.max_batch_count(split)
    rows = np.full((len(replica_ids), batch_count * batch_size), -1, np.int32)
    for replica_rows, replica_id in zip(rows, replica_ids, strict=True):
        clips = context.experiments[replica_id].clips[split]
        replica_rows[: len(clips)] = row_numbers(context.clips, clips)
    rows = rows.reshape(len(replica_ids), batch_count, batch_size)
    batches_per_call = batch_count if context.is_vmapped else 1
    batch_outputs = [
        to_host(
            context.predict_batches(
                context.data, *model, put_replicas(context, rows[:, i : i + batches_per_call])
            )
        )
        for i in range(0, batch_count, batches_per_call)
    ]
    sums = {name: sum(outputs[name] for outputs in batch_outputs) for name in ("confusion", "loss", "weight")}
    clip_outputs = [
        {name: outputs[name] for name in ("probabilities", "levels")} for outputs in batch_outputs
    ]
    stacked_outputs = jax.tree.map(lambda *arrays: np.concatenate(arrays, 1), *clip_outputs)  # r k b c
    return sums | jax.tree.map(lambda x: x.reshape(len(x), -1, *x.shape[3:]), stacked_outputs)


def calibrate_and_predict(context: CrossvalContext, group: ReplicaGroup) -> dict:
    """The answers for validation, after what the fusion sets from them (training/fusion_state.py)."""
    states = group.states
    model = (evaluation_params(states.params, states.opt_state), states.model_state)
    predictions, calibrate = (
        predict_part(context, group.replica_ids, model, "validation"),
        get_calibrator(context.config.model.fusion.name),
    )
    if calibrate is None:
        return predictions
    old_fusion_states, new_fusion_states = to_host(states.model_state["fusion"]), []
    for i, replica_id in enumerate(group.replica_ids):
        labels = get_validation_labels(context, replica_id)
        levels = None if predictions["levels"] is None else predictions["levels"][i, : len(labels)]
        new_fusion_states.append(
            compute_fusion_state(
                jax.tree.map(lambda x, i=i: x[i], old_fusion_states), calibrate, levels, labels
            )
        )
    model_state = states.model_state | {"fusion": put_replicas(context, stack_trees(new_fusion_states))}
    group.states = dataclasses.replace(states, model_state=model_state)
    return predict_part(context, group.replica_ids, (model[0], model_state), "validation")


def fit_replica_temperature(
    context: CrossvalContext, replica_id: ReplicaId, predictions: dict | None, i: int
) -> float:
    """That of a replica's answers for its validation clips, else the config's; padding comes last."""
    if predictions is None:
        return context.config.train.temperature
    labels = get_validation_labels(context, replica_id)
    return fit_temperature(predictions["probabilities"][i, : len(labels)], labels)


def get_validation_labels(context: CrossvalContext, replica_id: ReplicaId) -> Int[np.ndarray, " n"]:
    """Labels of the validation clips of a replica."""
    return context.labels[row_numbers(context.clips, context.experiments[replica_id].clips["validation"])]


def record_epoch(
    context: CrossvalContext, group: ReplicaGroup, active: list[bool], sums: dict, predictions: dict | None
) -> Bool[np.ndarray, " r"]:
    """Adds a row to each active replica's history; tells which are the best so far.

    `predictions` for validation; None where no clips are held out.
    """
    check_replicas_finite(context, group, active, sums)
    is_best = np.zeros(len(group.replica_ids), bool)
    for i, replica_id in enumerate(group.replica_ids):
        if not active[i]:
            continue
        steps = context.count_epoch_steps(replica_id)
        validation_scores = {} if predictions is None else score_replica_validation(predictions, i)
        row = {
            "epoch": group.epochs,
            "train_loss": float(sums["loss"][i]) / steps,
            "train_ua": metrics.compute_scores(sums["confusion"][i])["ua"],
            **validation_scores,
        }
        step = group.epochs * steps
        group.histories[i].append({"step": step, **row})
        is_best[i] = group.trackers[i].update(validation_scores.get("validation_ua"), step)
        if is_best[i]:
            group.trackers[i].temperature = fit_replica_temperature(context, replica_id, predictions, i)
    return is_best


def check_replicas_finite(
    context: CrossvalContext, group: ReplicaGroup, active: list[bool], sums: dict
) -> None:
    """NonFiniteError where an active replica's loss since the epoch's start, or a parameter, is not a
    number."""
    for i, replica_id in enumerate(group.replica_ids):
        if active[i]:
            steps = context.count_epoch_steps(replica_id)
            step = group.epochs * steps + min(group.steps, steps)
            check_finite(step, float(sums["loss"][i]), bool(sums["finite"][i]), replica_id)


def score_replica_validation(predictions: dict, i: int) -> dict:
    """Scores of a replica's answers for its validation clips."""
    scores = metrics.compute_scores(predictions["confusion"][i])
    return {
        "validation_loss": float(predictions["loss"][i] / max(predictions["weight"][i], 1.0)),
        "validation_ua": scores["ua"],
        "validation_wa": scores["wa"],
    }


def explain_replica_nan(
    context: CrossvalContext, replica_ids: list[ReplicaId], workdir: str, nonfinite_error: NonFiniteError
) -> str:
    """Why the loss of a replica was not finite, from what was saved last, on one device."""
    if jax.process_count() > 1:
        raise ValueError("several processes; emofuse train of its fold and seed tells more")
    group, experiment = (
        restore_or_init_group(context, replica_ids, workdir),
        context.experiments[nonfinite_error.replica_id],
    )
    i = replica_ids.index(nonfinite_error.replica_id)
    state = jax.tree.map(lambda x: x[i], to_host(group.states))
    steps = experiment.config.train.epochs * context.count_epoch_steps(nonfinite_error.replica_id)
    tx = make_optimizer(experiment.config.optimizer, steps)
    return trace_nonfinite_step(experiment, state, tx, replica_mesh(1), nonfinite_error.step, workdir)
