"""Trains a replica group to the end, epoch by epoch; an interrupted group is resumed."""

import dataclasses
import time
from collections.abc import Callable
from typing import TypedDict, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from emofuse_jax.data.resident import row_numbers
from emofuse_jax.data.sampler import Sampler
from emofuse_jax.models.registry import get_calibrator
from emofuse_jax.parallel.mesh import broadcast_decision, replica_mesh, to_host
from emofuse_jax.parallel.preemption import Preempted
from emofuse_jax.scoring import metrics
from emofuse_jax.scoring.calibration import fit_temperature
from emofuse_jax.training.crossval.context import (
    CrossvalContext,
    ReplicaId,
    put_replicas,
    stack_trees,
    take_replica,
)
from emofuse_jax.training.crossval.replica_group import (
    EpochScores,
    ReplicaGroup,
    count_steps_taken,
    restore_or_init_group,
    save_replica_group,
)
from emofuse_jax.training.crossval.replicas import select_better
from emofuse_jax.training.fusion_state import compute_fusion_state, get_fusion_state
from emofuse_jax.training.nan_guard import (
    NonFiniteError,
    are_replicas_finite,
    check_finite,
    trace_nonfinite_step,
    with_explanation,
)
from emofuse_jax.training.optimizer import evaluation_params, make_optimizer
from emofuse_jax.types import Params

HostSums = dict[str, np.ndarray]
"""Sums of loss and confusion matrix over an epoch, and `finite`, with one entry per replica."""


class SplitPredictions(TypedDict):
    """Predictions of one split of each replica's fold, with one entry per replica."""

    confusion: Float[np.ndarray, "r c c"]
    """Confusion matrix."""
    loss: Float[np.ndarray, " r"]
    """Sum of the losses."""
    weight: Float[np.ndarray, " r"]
    """Sum of the weights."""
    probabilities: Float[np.ndarray, "r n c"]
    """Probabilities of each clip."""
    levels: Float[np.ndarray, "r n m c"] | None
    """Probabilities of each level of the fusion; None without levels."""


def train_replica_group(
    context: CrossvalContext,
    replica_ids: list[ReplicaId],
    workdir: str,
    report_progress: Callable[[ReplicaGroup], None],
    should_stop: Callable[[], bool],
) -> ReplicaGroup:
    """Trains a replica group until every replica has reached the last epoch or stopped early.

    Saves the group to `workdir` at the end of an epoch if the last save is `config.crossval.save_seconds`
    old, and resumes from there.

    Args:
      context: data and programs of the cross-validation.
      replica_ids: replicas of the group.
      workdir: directory for the group checkpoint.
      report_progress: called with the group after every epoch.
      should_stop: called before each program call; if it returns True, the group is saved and Preempted is
        raised.

    Returns:
      The trained group: among others `best_model` (parameters and model states, stacked), `trackers` (best
      validation results) and `histories` (rows of the epochs) of the replicas.

    Raises:
      Preempted: after `should_stop` returned True and the group was saved.
      NonFiniteError: if the loss or a parameter of a replica is NaN or infinite; `nonfinite.json` in
        `workdir` then lists the clips of the step (a ValueError).
      ValueError: if the saved group is damaged, a replica has fewer training clips than one batch, a warm
        start or a field of the config is invalid, no training or validation clip of a replica has a label, or
        the fusion sets its state from validation clips but lacks level probabilities, a state, or arrays of
        the same shapes.
      FileNotFoundError: if the workdir of a warm start has no checkpoint.
      OSError: if the checkpoint cannot be written, or a saved group cannot be read.
      jax.errors.JaxRuntimeError: if a device fails or another process of the run is lost.
    """
    try:
        return _train_replica_group(context, replica_ids, workdir, report_progress, should_stop)
    except NonFiniteError as error:
        nonfinite_error = error.with_traceback(None)  # frees the arrays of its frames
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
    while group.finished_epochs < config.train.epochs:
        active = [not tracker.should_stop_early(config.train.patience) for tracker in group.trackers]
        if not any(active):
            break
        is_stopping = not train_and_validate(context, group, active, should_stop) or should_stop()
        report_progress(group)
        should_save = is_stopping or broadcast_decision(
            time.monotonic() - last_save_time >= config.crossval.save_seconds
        )
        # saving the same step again would first remove it
        if should_save and count_steps_taken(context, group) > last_saved_step:
            if group.epoch_step:
                check_replicas_finite(context, group, active, fetch_epoch_sums(group))
            save_replica_group(context, group, workdir)
            last_save_time, last_saved_step = time.monotonic(), count_steps_taken(context, group)
        if is_stopping:
            raise Preempted(
                f"{workdir}: stopped, state saved at step {last_saved_step} of the replica group; start the"
                " run again to resume"
            )
    return group


def train_and_validate(
    context: CrossvalContext,
    group: ReplicaGroup,
    active: list[bool],
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Trains the active replicas for one epoch, scores their validation clips, and stores the best models.

    Changes `group`; `active` has True for each replica that is still in training.

    Returns:
      False if `should_stop` interrupted the epoch, else True.

    Raises:
      NonFiniteError: if a loss or a parameter of an active replica is NaN or infinite (a ValueError).
      ValueError: if no training or validation clip of an active replica has a label, or if the fusion sets
        its state from validation clips but lacks level probabilities, a state, or arrays of the same shapes.
    """
    sums = train_epoch(context, group, active, should_stop)
    if sums is None:
        return False
    predictions = calibrate_and_predict(context, group) if context.config.data.hold_out else None
    group.finished_epochs += 1
    is_best = record_epoch(context, group, active, sums, predictions)
    current_model = (evaluation_params(group.states.params, group.states.opt_state), group.states.model_state)
    group.best_model = _select_better(put_replicas(context, is_best), current_model, group.best_model)
    return True


_select_better = jax.jit(select_better, donate_argnums=2)


def train_epoch(
    context: CrossvalContext, group: ReplicaGroup, active: list[bool], should_stop: Callable[[], bool]
) -> HostSums | None:
    """Trains the active replicas for the remaining steps of an epoch.

    Changes the states, the sums and the step in `group`. `active` has True for each replica that is still in
    training.

    Returns:
      A dict of arrays with one entry per replica: `loss` [r] and `confusion` [r c c], summed over the steps,
      and `finite` [r], True if all parameters are finite. None if `should_stop` interrupted the epoch.

    Raises:
      ValueError: if a replica has fewer training clips than one batch, or, at the first call, if a field of
        the config is invalid.
    """
    epoch_plans = [
        _plan_epoch(context, *replica_arguments, group.finished_epochs)
        for replica_arguments in zip(group.replica_ids, group.samplers, active, strict=True)
    ]
    rows, step_mask = (np.stack(arrays) for arrays in zip(*epoch_plans, strict=True))  # r k b, r k
    steps_per_call = rows.shape[1] if context.is_vmapped else 1
    for first_step in range(group.epoch_step, rows.shape[1], steps_per_call):
        if should_stop():
            return None
        step_slice = slice(first_step, first_step + steps_per_call)
        inputs = put_replicas(context, (rows[:, step_slice], step_mask[:, step_slice]))
        group.states, sums = context.train_steps(context.data, group.states, group.replica_inputs, *inputs)
        group.epoch_sums = sums if group.epoch_sums is None else jax.tree.map(jnp.add, group.epoch_sums, sums)
        group.epoch_step = min(first_step + steps_per_call, rows.shape[1])
        if jax.default_backend() == "cpu":  # queued steps would keep their memory
            jax.block_until_ready(group.epoch_sums)
    totals = fetch_epoch_sums(group)
    group.epoch_sums, group.epoch_step = None, 0
    return totals


def fetch_epoch_sums(group: ReplicaGroup) -> HostSums:
    """Returns the sums over the steps of the epoch, as NumPy arrays with one entry per replica.

    The keys of the dict are `loss` [r], `confusion` [r c c], and `finite` [r], True if all parameters are
    finite.
    """
    assert group.epoch_sums is not None  # called after at least one step
    return to_host(group.epoch_sums | {"finite": are_replicas_finite(group.states.params)})


def _plan_epoch(
    context: CrossvalContext, replica_id: ReplicaId, sampler: Sampler, is_active: bool, epoch: int
) -> tuple[Int[np.ndarray, "k b"], Bool[np.ndarray, " k"]]:
    """Returns the rows of the resident clips [k b] for k steps of an epoch, and a mask [k] of the steps.

    All replicas have the same number of steps here; the mask is False for steps beyond the replica's epoch,
    and for all steps of an inactive replica. `epoch` counts from 0.

    Raises:
      ValueError: if a replica has fewer training clips than one batch.
    """
    rows, step_mask = (
        np.zeros((context.max_epoch_steps, context.config.data.batch_size), np.int32),
        np.zeros(context.max_epoch_steps, bool),
    )
    steps = context.count_epoch_steps(replica_id)
    if is_active:
        clip_indices = np.stack([sampler.batch(epoch * steps + i) for i in range(steps)])
        rows[:steps], step_mask[:steps] = row_numbers(context.clips, clip_indices), True
    return rows, step_mask


def predict_split(
    context: CrossvalContext, replica_ids: list[ReplicaId], model: tuple[Params, Params], split: str
) -> SplitPredictions:
    """Predicts the clips of one split of each replica's fold.

    Args:
      context: data and programs of the cross-validation.
      replica_ids: replicas to predict with.
      model: parameters and model state, stacked over the replicas.
      split: train, validation or test.

    Returns:
      A dict of NumPy arrays for the r replicas: `confusion` [r c c], `loss` [r] and `weight` [r], sums over
      the clips (of cross-entropies and weights); and, for each clip in the order of the split, followed by
      padded rows, `probabilities` [r n c] and `levels` [r n m c], the probabilities of the m levels of the
      fusion, or None if it has none.
    """
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
    row_outputs = jax.tree.map(lambda x: x.reshape(len(x), -1, *x.shape[3:]), stacked_outputs)
    return cast(SplitPredictions, sums | row_outputs)


def calibrate_and_predict(context: CrossvalContext, group: ReplicaGroup) -> SplitPredictions:
    """Predicts the validation clips of each replica.

    If the fusion has a `calibrate` hook, its state in `group.states` is set by it first, and the clips are
    predicted again.

    Returns:
      A dict of NumPy arrays for the r replicas: `confusion` [r c c], `loss` [r] and `weight` [r], sums over
      the clips; and, for each clip in the order of the split, followed by padded rows, the probabilities of
      the classes, `probabilities` [r n c], and those of the m levels of the fusion, `levels` [r n m c], or
      None if it has none.

    Raises:
      ValueError: if the fusion has this hook, but returns no level probabilities, has no state, or the hook
        returns arrays of other shapes.
    """
    states = group.states
    model = (evaluation_params(states.params, states.opt_state), states.model_state)
    predictions, calibrate = (
        predict_split(context, group.replica_ids, model, "validation"),
        get_calibrator(context.config.model.fusion.name),
    )
    if calibrate is None:
        return predictions
    old_fusion_states, new_fusion_states = to_host(get_fusion_state(states.model_state)), []
    for i, replica_id in enumerate(group.replica_ids):
        labels = get_validation_labels(context, replica_id)
        levels = None if predictions["levels"] is None else predictions["levels"][i, : len(labels)]
        new_fusion_states.append(
            compute_fusion_state(take_replica(old_fusion_states, i), calibrate, levels, labels)
        )
    model_state = states.model_state | {"fusion": put_replicas(context, stack_trees(new_fusion_states))}
    group.states = dataclasses.replace(states, model_state=model_state)
    return predict_split(context, group.replica_ids, (model[0], model_state), "validation")


def fit_replica_temperature(
    context: CrossvalContext, replica_id: ReplicaId, predictions: SplitPredictions | None, i: int
) -> float:
    """Returns the temperature for the predictions of replica `i`, fitted to its validation clips.

    The temperature is between 0.2 and 10. It is `config.train.temperature` if `predictions` is None, and 1.0
    if no validation clip has a label. Padded rows, at the end, are not used.
    """
    if predictions is None:
        return context.config.train.temperature
    labels = get_validation_labels(context, replica_id)
    return fit_temperature(predictions["probabilities"][i, : len(labels)], labels)


def get_validation_labels(context: CrossvalContext, replica_id: ReplicaId) -> Int[np.ndarray, " n"]:
    """Returns the labels of the validation clips of a replica, in their order; -1 without a label."""
    return context.labels[row_numbers(context.clips, context.experiments[replica_id].clips["validation"])]


def record_epoch(
    context: CrossvalContext,
    group: ReplicaGroup,
    active: list[bool],
    sums: HostSums,
    predictions: SplitPredictions | None,
) -> Bool[np.ndarray, " r"]:
    """Adds a row to the history of each active replica, and updates its tracker and temperature.

    Args:
      context: data and programs of the cross-validation.
      group: group whose histories and trackers are changed.
      active: True for each replica that is still in training.
      sums: `loss`, `confusion` and `finite` of the epoch, with one entry per replica.
      predictions: predictions of the validation clips, or None if no clips are held out.

    Returns:
      bool [r]: True for the replicas whose epoch is the best so far; False for inactive ones.

    Raises:
      NonFiniteError: if a loss or a parameter of an active replica is NaN or infinite (a ValueError).
      ValueError: if no training or validation clip of an active replica has a label.
    """
    check_replicas_finite(context, group, active, sums)
    is_best = np.zeros(len(group.replica_ids), bool)
    for i, replica_id in enumerate(group.replica_ids):
        if not active[i]:
            continue
        steps = context.count_epoch_steps(replica_id)
        validation_scores = {} if predictions is None else score_replica_validation(predictions, i)
        row: EpochScores = {
            "epoch": group.finished_epochs,
            "train_loss": float(sums["loss"][i]) / steps,
            "train_ua": metrics.compute_scores(sums["confusion"][i])["ua"],
            **validation_scores,
        }
        step = group.finished_epochs * steps
        group.histories[i].append({"step": step, **row})
        is_best[i] = group.trackers[i].update(validation_scores.get("validation_ua"), step)
        if is_best[i]:
            group.trackers[i].temperature = fit_replica_temperature(context, replica_id, predictions, i)
    return is_best


def check_replicas_finite(
    context: CrossvalContext, group: ReplicaGroup, active: list[bool], sums: HostSums
) -> None:
    """Checks the losses of the epoch and the parameters of all active replicas.

    `sums` has `loss` and `finite` with one entry per replica; the message names fold, seed, trial and step.

    Raises:
      NonFiniteError: if one of them is NaN or infinite (a ValueError).
    """
    for i, replica_id in enumerate(group.replica_ids):
        if active[i]:
            steps = context.count_epoch_steps(replica_id)
            step = group.finished_epochs * steps + min(group.epoch_step, steps)
            check_finite(step, float(sums["loss"][i]), bool(sums["finite"][i]), replica_id)


def score_replica_validation(predictions: SplitPredictions, i: int) -> EpochScores:
    """Returns a dict of `validation_loss`, `validation_ua` and `validation_wa` of replica `i`.

    The loss is the mean cross-entropy of the labelled clips in nats; both scores are fractions.

    Raises:
      ValueError: if no validation clip of the replica has a label.
    """
    scores = metrics.compute_scores(predictions["confusion"][i])
    return {
        "validation_loss": float(predictions["loss"][i] / max(predictions["weight"][i], 1.0)),
        "validation_ua": scores["ua"],
        "validation_wa": scores["wa"],
    }


def explain_replica_nan(
    context: CrossvalContext, replica_ids: list[ReplicaId], workdir: str, nonfinite_error: NonFiniteError
) -> str:
    """Repeats the steps of a replica since the last save, and returns why its loss was not finite, as text.

    Writes `nonfinite.json` to `workdir`: fold, seed, the step, its loss and the ids of its clips.
    `nonfinite_error` names the replica and the step at which the loss was not finite.

    Raises:
      ValueError: if there are several processes, if the saved group is damaged, if a warm start or a field of
        the config is invalid, or if a record lacks a field of the batch or does not match prep.json.
      DamagedRecordError: if a record is damaged (a ValueError).
      OSError: if a file does not exist, or cannot be read or written.
    """
    if jax.process_count() > 1:
        raise ValueError(
            "the steps of a replica are repeated only by a run with one process; run emofuse train with this"
            " fold and seed in one process"
        )
    group, experiment = (
        restore_or_init_group(context, replica_ids, workdir),
        context.experiments[nonfinite_error.replica_id],
    )
    i = replica_ids.index(nonfinite_error.replica_id)
    state = take_replica(to_host(group.states), i)
    steps = experiment.config.train.epochs * context.count_epoch_steps(nonfinite_error.replica_id)
    tx = make_optimizer(experiment.config.optimizer, steps)
    return trace_nonfinite_step(experiment, state, tx, replica_mesh(1), nonfinite_error.step, workdir)
