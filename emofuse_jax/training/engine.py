"""The training engine: the loop and the end of an epoch, for one replica or many."""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Bool

from emofuse_jax.models.registry import get_calibrator
from emofuse_jax.parallel.memory import explain_oom
from emofuse_jax.parallel.mesh import broadcast_decision
from emofuse_jax.parallel.preemption import Preempted
from emofuse_jax.scoring import metrics
from emofuse_jax.scoring.calibration import fit_temperature
from emofuse_jax.scoring.predict import Predictions, score_predictions
from emofuse_jax.training.fusion_state import compute_fusion_state
from emofuse_jax.training.nan_guard import (
    NonFiniteError,
    check_finite,
    trace_nonfinite_step,
    with_explanation,
)
from emofuse_jax.training.replica_set import EpochScores, ReplicaSet, RunProgress

Replicas = TypeVar("Replicas", bound=ReplicaSet)
ReportProgress = Callable[[RunProgress, Sequence[EpochScores]], None]
"""Function `(progress, rows)`: called before training and after every call of a program, both without rows,
and after every epoch with the row of each replica that it trained."""


def train_replicas(
    make_replicas: Callable[[], Replicas],
    workdir: str,
    *,
    report_progress: ReportProgress,
    should_stop: Callable[[], bool],
) -> tuple[Replicas, RunProgress]:
    """Trains replicas until each has reached the last epoch or stopped early; resumes a saved run.

    Args:
      make_replicas: creates the replicas (a ReplicaSet, such as SingleReplica or StackedReplicas); called a
        second time to find the cause of a loss that is NaN.
      workdir: directory of the run, for messages and `nonfinite.json`.
      report_progress: called as `report_progress(progress, rows)` to show the progress: after every epoch
        with the rows of its scores; before training and after every call of a program with no rows.
      should_stop: returns True if the run must save its states and stop; called before each call of a
        program.

    Returns:
      A tuple: the trained replicas, and their progress, of which `trackers` has the best validation result of
      each replica (`best_ua`, `best_step`, `since_best` and `temperature`) and `finished_epochs` the number
      of epochs.

    Raises:
      Preempted: after `should_stop` returned True and the states were saved.
      NonFiniteError: if the loss or a parameter is NaN or infinite (a ValueError). If the steps since the
        last save can be repeated, `nonfinite.json` lists the clips of the first one that is not finite, or of
        all if all are finite.
      ValueError: if a field of the config is invalid, if saved states are damaged or belong to another run,
        if a warm start, the file of a fold or an existing log is invalid, if a batch size does not fit the
        devices or there are fewer training clips than one batch, if a record is damaged, lacks a field of the
        batch or does not match prep.json, if no training or validation clip of a replica has a label, if the
        fusion returns an invalid state, or if a device runs out of memory in training.
      TypeError, AttributeError: if a field in the metadata of saved states is damaged.
      FileNotFoundError: if the workdir of a warm start has no checkpoint, or the file of a fold no longer
        exists.
      OSError: if a file cannot be read or written.
      jax.errors.JaxRuntimeError: if a device fails, if it runs out of memory before the first step, or if
        another process of the run is lost.
    """
    try:
        return _train_replicas(make_replicas(), workdir, report_progress, should_stop)
    except NonFiniteError as error:
        nonfinite_error = error.with_traceback(None)  # frees the arrays of its frames
    raise with_explanation(
        nonfinite_error, lambda: _explain_nonfinite(make_replicas(), workdir, nonfinite_error)
    )


def _train_replicas(
    replicas: Replicas, workdir: str, report_progress: ReportProgress, should_stop: Callable[[], bool]
) -> tuple[Replicas, RunProgress]:
    config, steps_per_epoch = replicas.config, replicas.steps_per_epoch
    # 1. Restore, or start.
    progress = replicas.restore_or_init()
    replicas.prepare(progress)
    progress.epoch_start_time = time.monotonic()  # compilation does not count
    report_progress(progress, ())
    saved_step, save_time = progress.steps_taken(steps_per_epoch), time.monotonic()
    with explain_oom(replicas.program_bytes, replicas.memory_hint):
        while True:
            active = find_active(progress, config.train.patience)
            step = progress.steps_taken(steps_per_epoch)
            if progress.epoch_step == steps_per_epoch:
                # 2. Evaluate.
                rows, is_best = evaluate_epoch(replicas, progress, active)
                report_progress(progress, rows)
                # 3. Save; the best model first, because a run resumes from the states.
                replicas.keep_best(progress, is_best)
                if is_save_due(replicas.save_seconds, save_time):
                    replicas.save(progress)
                    saved_step, save_time = step, time.monotonic()
                active = find_active(progress, config.train.patience)
            if progress.finished_epochs >= config.train.epochs or not any(active):
                return replicas, progress
            if should_stop():
                if step > saved_step:  # saving the same step again would first remove it
                    if progress.epoch_step:
                        check_replicas(replicas, progress, active)
                    replicas.save(progress)
                raise Preempted(
                    f"{workdir}: stopped by SIGTERM, saved at step {step}; run the same command to resume"
                )
            # 4. Train on the next batches; batch i of an epoch belongs to its step i.
            step_count = min(replicas.steps_per_call, steps_per_epoch - progress.epoch_step)
            sums, step_metrics = replicas.train_steps(progress, active, step_count)
            progress.add(sums, step_count)
            # 5. Log.
            if config.train.log_every and (step + step_count) % config.train.log_every < step_count:
                replicas.log_steps(step + step_count, step_metrics)
            report_progress(progress, ())


def find_active(progress: RunProgress, patience: int) -> list[bool]:
    """Returns one bool per replica: False if it has stopped early, else True, also after the last epoch.

    `patience` is the number of epochs without improvement after which a replica stops; 0 never stops. They
    are counted in `progress.trackers`.
    """
    return [not tracker.should_stop_early(patience) for tracker in progress.trackers]


def is_save_due(save_seconds: float, save_time: float) -> bool:
    """Returns True if the last save, at `save_time` (`time.monotonic`), is at least `save_seconds` old.

    The first process decides for all; every process must call this function.
    """
    return save_seconds <= 0 or broadcast_decision(time.monotonic() - save_time >= save_seconds)


def evaluate_epoch(
    replicas: ReplicaSet, progress: RunProgress, active: Sequence[bool]
) -> tuple[list[EpochScores], Bool[np.ndarray, " r"]]:
    """Ends an epoch: scores the validation clips if they are held out, and updates the trackers.

    A fusion can set a part of its state from the validation clips. Changes `replicas` and `progress`, which
    counts the epoch as finished.

    Args:
      replicas: a ReplicaSet (SingleReplica or StackedReplicas), trained for all steps of the epoch.
      progress: their progress, with the sums over these steps.
      active: True for each replica that was trained in this epoch.

    Returns:
      A tuple. First, a list of one dict per active replica, which is also stored with `record_epoch`: `epoch`
      (its number, from 1), `train_loss` and `train_ua`; with held-out clips also `validation_loss`,
      `validation_ua` and `validation_wa` (scores are fractions); `temperature` if
      `replicas.stores_every_epoch`; and the fields of `measure_epoch`. Second, bool [r]: True for each
      replica whose epoch is the best so far, False for the others and the inactive ones.

    Raises:
      NonFiniteError: if a loss or a parameter of an active replica is NaN or infinite (a ValueError).
      ValueError: if no training or validation clip of an active replica has a label, if a record lacks a
        field of the batch or does not match prep.json, or if the fusion has no state to set or returns an
        invalid one.
      DamagedRecordError: if the record of a validation clip is damaged (a ValueError).
      OSError: if a shard is missing or cannot be opened, or a row cannot be written.
      jax.errors.JaxRuntimeError: if a device fails or runs out of memory, or another process is lost.
    """
    epoch_seconds, config = time.monotonic() - progress.epoch_start_time, replicas.config
    sums = check_replicas(replicas, progress, active)
    predictions = predict_calibrated(replicas) if config.data.hold_out else None
    progress.finish_epoch()
    measurements = replicas.measure_epoch(epoch_seconds)
    rows, is_best = [], np.zeros(len(active), bool)
    for i in np.flatnonzero(active).tolist():
        row: EpochScores = {
            "epoch": progress.finished_epochs,
            "train_loss": float(sums["loss"][i]) / replicas.epoch_steps[i],
            "train_ua": metrics.compute_scores(sums["confusion"][i])["ua"],
        }
        confusion = None
        if predictions is not None:
            scores = score_predictions(predictions[i], with_intervals=False)
            confusion = np.array(scores["confusion"])
            row["validation_loss"] = predictions[i].loss
            row["validation_ua"], row["validation_wa"] = scores["ua"], scores["wa"]
        step = progress.steps_taken(replicas.epoch_steps[i])
        tracker = progress.trackers[i]
        is_best[i] = tracker.update(row.get("validation_ua"), step)
        if is_best[i] or replicas.stores_every_epoch:
            tracker.temperature = (
                config.train.temperature
                if predictions is None
                else fit_temperature(predictions[i].probabilities, predictions[i].labels)
            )
        if replicas.stores_every_epoch:
            row["temperature"] = tracker.temperature
        row |= measurements
        replicas.record_epoch(i, step, row, confusion)
        rows.append(row)
    return rows, is_best


def predict_calibrated(replicas: ReplicaSet) -> list[Predictions]:
    """Predicts the validation clips of each replica; first calibrates its fusion on them if it supports that.

    `replicas` is a ReplicaSet (SingleReplica or StackedReplicas); its states are changed if it does.

    Returns:
      One Predictions per replica, with NumPy arrays that have a row for each of its n clips: `clips` (record
      indices), `labels` (-1 without a label), `speakers` (indices), `probabilities` [n c] and `levels`
      [n m c] (of the m levels of the fusion; None without levels). Its `loss` is the mean cross-entropy of
      the labelled clips.

    Raises:
      ValueError: if the fusion can be calibrated but has no state, returns no level probabilities or an
        invalid state, or if a record lacks a field of the batch or does not match prep.json.
      DamagedRecordError: if the record of a validation clip is damaged (a ValueError).
      OSError: if a shard is missing or cannot be opened.
      jax.errors.JaxRuntimeError: if a device fails or runs out of memory, or another process is lost.
    """
    predictions = replicas.predict_validation()
    calibrate = get_calibrator(replicas.config.model.fusion.name)
    if calibrate is None:
        return predictions
    replicas.set_fusion_states(
        [
            compute_fusion_state(
                fusion_state, calibrate, replica_predictions.levels, replica_predictions.labels
            )
            for fusion_state, replica_predictions in zip(
                replicas.get_fusion_states(), predictions, strict=True
            )
        ]
    )
    return replicas.predict_validation()


def check_replicas(
    replicas: ReplicaSet, progress: RunProgress, active: Sequence[bool]
) -> dict[str, np.ndarray]:
    """Checks the losses of the epoch and the parameters of the active replicas, before they are saved.

    Every process must call this function.

    Args:
      replicas: a ReplicaSet (SingleReplica or StackedReplicas), whose parameters are checked.
      progress: their progress after at least one step of the epoch, with the sums of the losses.
      active: True for each replica to check.

    Returns:
      The sums over the steps of the epoch so far, as NumPy arrays for all r replicas: a dict of `loss` [r]
      and `confusion` [r c c].

    Raises:
      NonFiniteError: if a loss or a parameter of an active replica is NaN or infinite (a ValueError).
    """
    assert progress.epoch_sums is not None  # called after at least one step
    sums, are_finite = replicas.fetch_sums(progress.epoch_sums), replicas.have_finite_params()
    for i in np.flatnonzero(active).tolist():
        step = progress.steps_taken(replicas.epoch_steps[i])
        check_finite(step, float(sums["loss"][i]), bool(are_finite[i]), replicas.replica_ids[i])
    return sums


def _explain_nonfinite(replicas: ReplicaSet, workdir: str, error: NonFiniteError) -> str:
    """Repeats the steps since the last save, and returns why the loss was not finite, as text.

    Without a save, the steps from the start are repeated. Writes `nonfinite.json` to `workdir`, with the
    clips of the first step that is not finite, or of all steps if all are finite.

    Args:
      replicas: newly created replicas.
      workdir: directory for `nonfinite.json`.
      error: names the replica and the step at which the loss was found not to be finite.

    Raises:
      TypeError, AttributeError: if a field in the metadata of the saved states is damaged.
      ValueError: if the saved states, a warm start, a record or a field of the config is invalid, or if
        stacked replicas are trained by several processes, which cannot repeat the steps.
      OSError: if a file is missing or cannot be read or written.
      jax.errors.JaxRuntimeError: if a device fails or runs out of memory.
    """
    replicas.restore_or_init()
    replica = replicas.take_replica(error.replica_id)
    return trace_nonfinite_step(
        replica.experiment, replica.state, replica.tx, replica.mesh, error.step, workdir
    )
