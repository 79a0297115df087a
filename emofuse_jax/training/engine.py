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
"""Called before training, after every call of a program, and after every epoch with its rows."""


def train_replicas(
    make_replicas: Callable[[], Replicas],
    workdir: str,
    *,
    report_progress: ReportProgress,
    should_stop: Callable[[], bool],
) -> tuple[Replicas, RunProgress]:
    """Trains replicas until each has reached the last epoch or stopped early; resumes a saved run.

    Args:
      make_replicas: creates the replicas; called a second time to find the cause of a loss that is NaN.
      workdir: directory of the run, for messages and `nonfinite.json`.
      report_progress: shows the progress.
      should_stop: `should_stop` of parallel/preemption.py, called before each call of a program.

    Returns:
      The trained replicas and their progress.

    Raises:
      Preempted: after `should_stop` returned True and the states were saved.
      NonFiniteError: if the loss or a parameter is NaN or infinite; `nonfinite.json` then lists the clips of
        the step (a ValueError).
      ValueError: if a field of the config is invalid, if saved states are damaged or belong to another run,
        if a device runs out of memory, if no training or validation clip has a label, if a record is damaged,
        or if the fusion returns an invalid state.
      FileNotFoundError: if the workdir of a warm start has no checkpoint.
      OSError: if a file cannot be read or written.
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
    config, steps_per_epoch = replicas.config, max(replicas.epoch_steps)
    # 1. Restore, or start.
    progress = replicas.restore_or_init()
    replicas.prepare(progress)
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
    """Returns True for each replica that is still in training, False for one that has stopped early.

    `patience` is the number of epochs without improvement after which a replica stops; 0 never stops.
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

    A fusion can set a part of its state from the validation clips. Changes `replicas` and `progress`.

    Returns:
      The rows of the active replicas: `epoch`, `train_loss`, `train_ua`; with held-out clips also
      `validation_loss`, `validation_ua` and `validation_wa` (scores are fractions); `temperature`, if the
      model of every epoch is stored; and the fields of `measure_epoch`. And bool [r]: True for each replica
      whose epoch is the best so far.

    Raises:
      NonFiniteError: if a loss or a parameter of an active replica is NaN or infinite (a ValueError).
      ValueError: if no training or validation clip of an active replica has a label, or if the fusion returns
        an invalid state.
      DamagedRecordError, OSError: if a record or file of a validation clip is damaged.
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

    Changes the states of the replicas if it does.

    Raises:
      ValueError: if the fusion returns no level probabilities, or an invalid state.
      DamagedRecordError, OSError: if a record or file of a validation clip is damaged.
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

    Returns:
      The sums over the steps of the epoch, `loss` and `confusion`, with one entry per replica.

    Raises:
      NonFiniteError: if a loss or a parameter is NaN or infinite (a ValueError).
    """
    assert progress.epoch_sums is not None  # called after at least one step
    sums, are_finite = replicas.fetch_sums(progress.epoch_sums), replicas.have_finite_params()
    for i in np.flatnonzero(active).tolist():
        step = progress.steps_taken(replicas.epoch_steps[i])
        check_finite(step, float(sums["loss"][i]), bool(are_finite[i]), replicas.replica_ids[i])
    return sums


def _explain_nonfinite(replicas: ReplicaSet, workdir: str, error: NonFiniteError) -> str:
    """Repeats the steps since the last save, and returns why the loss was not finite, as text.

    Writes `nonfinite.json` to `workdir` (`trace_nonfinite_step`).

    Raises:
      ValueError: if the saved states are damaged, a record is damaged, or the steps cannot be repeated.
      OSError: if a file cannot be read or written.
    """
    replicas.restore_or_init()
    replica = replicas.take_replica(error.replica_id)
    return trace_nonfinite_step(
        replica.experiment, replica.state, replica.tx, replica.mesh, error.step, workdir
    )
