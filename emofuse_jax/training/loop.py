"""Trains one model on one fold."""

import os
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Int
from ml_collections import ConfigDict

from emofuse_jax.data.dataset import Dataset
from emofuse_jax.models.registry import get_calibrator
from emofuse_jax.parallel.distributed import exclusive_workdir
from emofuse_jax.parallel.memory import explain_oom, program_memory_bytes
from emofuse_jax.parallel.mesh import check_batch_size, make_mesh, state_sharding
from emofuse_jax.parallel.preemption import Preempted, watch_preemption
from emofuse_jax.parallel.xla_options import single_use_options
from emofuse_jax.scoring import metrics, predict
from emofuse_jax.scoring.calibration import fit_temperature
from emofuse_jax.training import progress
from emofuse_jax.training.batch_source import BatchSource, make_batch_source
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.checkpoint.metadata import (
    CheckpointMetadata,
    EpochFields,
    RunMetadata,
    SavedEpochSums,
)
from emofuse_jax.training.checkpoint.saved_config import saved_config
from emofuse_jax.training.early_stopping import EarlyStoppingTracker
from emofuse_jax.training.experiment import (
    MATCHING_DATA_FIELDS,
    Experiment,
    check_same_config,
    check_same_data,
    count_epoch_steps,
    flatten_fields,
    make_metadata,
)
from emofuse_jax.training.fusion_state import update_fusion_state
from emofuse_jax.training.metric_writer import MetricWriter
from emofuse_jax.training.nan_guard import (
    NonFiniteError,
    check_finite,
    has_finite_params,
    trace_nonfinite_step,
    with_explanation,
)
from emofuse_jax.training.optimizer import evaluation_params, make_optimizer
from emofuse_jax.training.step import EpochSums, StepMetrics, init_state, jit_eval_step, make_train_step
from emofuse_jax.training.warm_start import WarmStart, load_warm_start
from emofuse_jax.types import PRNGKey, TrainState


def skip_data_description(directory: str, dataset: Dataset) -> None:
    """Does nothing, and returns None: the default of `describe_data` in `train` and `crossval`."""


def train(
    experiment: Experiment,
    workdir: str,
    *,
    describe_data: Callable[[str, Dataset], None] = skip_data_description,
) -> EarlyStoppingTracker:
    """Trains a model to the last epoch or until validation UA stops improving; resumes an interrupted run.

    Writes `checkpoints/last`, `checkpoints/best`, `metrics.jsonl` and `tensorboard/` to `workdir`. A resumed
    run gives the same numbers bit for bit.

    Args:
      experiment: experiment to train.
      workdir: output directory; resumed if it contains a checkpoint.
      describe_data: called with `workdir` and the dataset when a new run starts.

    Returns:
      The tracker: the best validation UA (`best_ua`, a fraction; None if no clips are held out), its step
      (`best_step`), the number of epochs since then (`since_best`), and the `temperature` for predictions.

    Raises:
      Preempted: after SIGTERM, once the state is saved.
      ValueError: if another process trains in `workdir`, if a config field is invalid, if the checkpoint or
        `metrics.jsonl` in `workdir` is damaged or belongs to another config or other data, if a warm start
        (`config.init`) is invalid, if a batch size does not fit the devices or there are fewer training clips
        than one batch, if the records lack a field of the batch or do not match prep.json, if no training or
        validation clip has a label, or if a device runs out of memory.
      NonFiniteError: if the loss or a parameter is NaN or infinite (a ValueError); `nonfinite.json` in
        `workdir` then lists the clips of the step.
      DamagedRecordError: if a record is damaged and must not be skipped (a ValueError).
      FileNotFoundError: if the workdir of a warm start has no checkpoint.
      OSError: if a file cannot be read or written.
      jax.errors.JaxRuntimeError: if another process of the run is lost or a device fails.
    """
    with exclusive_workdir(workdir), explain_oom():
        try:
            return run_training(experiment, workdir, describe_data)
        except NonFiniteError as error:
            nonfinite_error = error.with_traceback(None)  # frees the arrays of its frames
        raise with_explanation(
            nonfinite_error, lambda: explain_nan(experiment, workdir, nonfinite_error.step)
        )


def run_training(
    experiment: Experiment, workdir: str, describe_data: Callable[[str, Dataset], None]
) -> EarlyStoppingTracker:
    """Trains in a workdir that is already locked, or resumes a run in it.

    Writes `checkpoints/last`, `checkpoints/best`, `metrics.jsonl` and `tensorboard/` to `workdir`.

    Args:
      experiment: experiment to train.
      workdir: output directory; resumed if it contains a checkpoint.
      describe_data: called with `workdir` and the dataset when a new run starts.

    Returns:
      The tracker: the best validation UA (`best_ua`, a fraction; None if no clips are held out), its step
      (`best_step`), the number of epochs since then (`since_best`), and the `temperature` for predictions.

    Raises:
      Preempted: after SIGTERM, once the state is saved.
      ValueError: if a config field is invalid, if the checkpoint or `metrics.jsonl` in `workdir` is damaged
        or belongs to another config or other data, if a warm start (`config.init`) is invalid, if a batch
        size does not fit the devices or there are fewer training clips than one batch, if the records lack a
        field of the batch or do not match prep.json, if no training or validation clip has a label, or if a
        device runs out of memory.
      NonFiniteError: if the loss or a parameter is NaN or infinite (a ValueError).
      DamagedRecordError: if a record is damaged and must not be skipped (a ValueError).
      FileNotFoundError: if the workdir of a warm start has no checkpoint.
      OSError: if a file cannot be read or written.
      jax.errors.JaxRuntimeError: if another process of the run is lost or a device fails.
    """
    config, is_first_process = experiment.config, jax.process_index() == 0
    mesh = make_mesh(config.mesh)
    check_batch_size(config.data.batch_size, "data.batch_size", mesh)
    check_batch_size(config.train.eval_batch_size, "train.eval_batch_size", mesh)
    total_steps = (steps_per_epoch := count_epoch_steps(experiment)) * config.train.epochs
    # 1. Restore, or start.
    tx = make_optimizer(config.optimizer, total_steps)
    state, tracker, epoch_totals = restore_or_init(experiment, workdir, tx, mesh)
    saved_step = step = int(state.step)
    if is_first_process and step == 0:
        describe_data(workdir, experiment.dataset)
    run_metadata = make_metadata(experiment)
    batch_source = make_batch_source(experiment, mesh)
    compiled_step, eval_step = compile_steps(
        experiment, batch_source, tx, state, mesh, should_report=is_first_process and step == 0
    )
    writer = MetricWriter(workdir, resume_step=step, active=is_first_process)
    progress_line = progress.show_progress(
        total_steps, step, config.data.batch_size, config.name, active=is_first_process
    )
    with (
        watch_preemption() as should_stop,
        progress_line as report_progress,
        explain_oom(lambda: program_memory_bytes(compiled_step)),
    ):
        while True:
            if epoch_totals.steps == steps_per_epoch:
                # 2. Evaluate.
                state, row, confusion = evaluate_epoch(
                    experiment, batch_source, eval_step, state, epoch_totals, step
                )
                is_best = tracker.update(row.get("validation_ua"), step)
                tracker.temperature = row["temperature"]
                epoch_totals = EpochTotals()
                writer.write_epoch(step, row, confusion, experiment.dataset.classes)
                report_progress(
                    step,
                    **{
                        name: row[name] for name in ("train_loss", "train_ua", "validation_ua") if name in row
                    },
                )
                # 3. Save.
                # "last" is written after "best", because a run resumes from "last"
                for kind in ("best", "last") if is_best else ("last",):
                    store.save(
                        workdir,
                        kind,
                        state,
                        checkpoint_metadata(run_metadata, step, tracker, epoch_totals),
                    )
                saved_step = step
            if step >= total_steps or tracker.should_stop_early(config.train.patience):
                break
            if should_stop():
                if step > saved_step:  # saving the same step again would first remove it
                    check_epoch(step, state, epoch_totals)
                    store.save(
                        workdir,
                        "last",
                        state,
                        checkpoint_metadata(run_metadata, step, tracker, epoch_totals),
                    )
                raise Preempted(
                    f"{workdir}: stopped, state saved at step {step}; start the run again to resume"
                )
            # 4. Train on the next batches; batch i belongs to step i.
            step_count = min(batch_source.steps_per_call, steps_per_epoch - epoch_totals.steps)
            state, step_metrics, sums = batch_source.step(state, step, step_count)
            step += step_count
            # 5. Log.
            epoch_totals.add(sums, step_count)
            if config.train.log_every and step % config.train.log_every < step_count:
                log_step(writer, step, step_metrics)
            report_progress(step)
    scores: dict[str, float] = {"best_step": tracker.best_step}
    if config.data.hold_out:
        assert tracker.best_ua is not None  # of every epoch's validation
        scores["best_ua"] = tracker.best_ua
    writer.close(scores, flatten_fields(config.to_dict()))
    return tracker


def checkpoint_metadata(
    run_metadata: RunMetadata, step: int, tracker: EarlyStoppingTracker, epoch_totals: "EpochTotals"
) -> CheckpointMetadata:
    """Returns the metadata of a checkpoint for JSON.

    Its keys are those of `run_metadata`, and `step`, `temperature`, `progress` (a dict of `best_ua`,
    `best_step`, `since_best` and `temperature`) and `epoch` (a dict of `steps` and `sums` of the unfinished
    epoch).
    """
    return {
        **run_metadata,
        "step": step,
        "temperature": tracker.temperature,
        "progress": tracker.to_json(),
        "epoch": epoch_totals.to_json(),
    }


class EpochTotals:
    """Number of steps, loss and confusion matrix, summed over an epoch on the device."""

    def __init__(self, steps: int = 0, sums: SavedEpochSums | None = None) -> None:
        self.start_time, self.steps = time.monotonic(), steps
        self.sums: EpochSums | None = None
        if sums:
            self.sums = {name: jnp.asarray(x, jnp.float32) for name, x in sums.items()}

    def add(self, sums: EpochSums, step_count: int) -> None:
        """Adds the sums of loss and confusion matrix over `step_count` steps to the totals."""
        self.sums = (
            sums
            if self.sums is None
            else jax.tree.map(lambda total, increment: total + increment, self.sums, sums)
        )
        self.steps += step_count
        if jax.default_backend() == "cpu":  # fake CPU devices can deadlock on queued steps
            jax.block_until_ready(self.sums)

    def to_json(self) -> EpochFields:
        """Returns the dict `{"steps": ..., "sums": ...}` for JSON.

        `steps` is the number of steps. `sums` is a dict of `loss` (a number) and `confusion` (rows of
        numbers), or None before the first step. `EpochTotals(**saved)` restores both bit for bit.
        """
        sums = None if self.sums is None else {name: np.asarray(x).tolist() for name, x in self.sums.items()}
        return {"steps": self.steps, "sums": sums}


def restore_or_init(
    experiment: Experiment, workdir: str, tx: optax.GradientTransformation, mesh: Mesh
) -> tuple[TrainState, EarlyStoppingTracker, EpochTotals]:
    """Restores the last checkpoint, or initialises a new run if there is none.

    Args:
      experiment: experiment of the run.
      workdir: workdir of the run; created if there is no checkpoint.
      tx: optimizer of `make_optimizer`.
      mesh: mesh on which the state is placed.

    Returns:
      A tuple: the training state (step, parameters, model state, optimizer state); the tracker of the best
      validation result (`best_ua`, `best_step`, `since_best`, `temperature`); and the `steps` and `sums` of
      the epoch that was interrupted (0 and None at the start of an epoch).

    Raises:
      ValueError: if the checkpoint is damaged, or belongs to another config or other data, if a warm start is
        invalid, or if the file of the fold is not valid JSON.
      FileNotFoundError: if the workdir of a warm start has no checkpoint, or the file of the fold no longer
        exists.
      OSError: if the workdir cannot be created, or a file cannot be read.
    """
    config = experiment.config

    def init(key: PRNGKey, warm_start: WarmStart = ({}, {})) -> TrainState:
        return init_state(experiment.model, tx, key, experiment.statistics, warm_start)

    key = jax.random.key(config.seed)
    shapes = jax.eval_shape(init, key)
    sharding = state_sharding(shapes, mesh, fsdp=config.mesh.fsdp)
    saved_metadata = store.read_metadata(workdir, "last", missing_ok=True)
    if saved_metadata is None:
        os.makedirs(workdir, exist_ok=True)
        jitted_init = jax.jit(init, out_shardings=sharding, compiler_options=single_use_options(mesh))
        return jitted_init(key, load_warm_start(experiment)), EarlyStoppingTracker(), EpochTotals()
    store.require_metadata_fields(workdir, "last", saved_metadata, store.RUN_METADATA_FIELDS)
    check_same_config(workdir, saved_config(saved_metadata).to_dict(), config.to_dict())
    check_same_data(experiment, saved_metadata, (*MATCHING_DATA_FIELDS, "training_clips_sha256"))
    state = store.restore(workdir, store.abstract_like(shapes, sharding))
    return (
        state,
        EarlyStoppingTracker(**saved_metadata["progress"]),
        EpochTotals(**saved_metadata["epoch"]),
    )


def explain_nan(experiment: Experiment, workdir: str, last_step: int) -> str:
    """Repeats the steps from the last checkpoint up to `last_step`, and writes `nonfinite.json`.

    If there is no checkpoint, the steps are repeated from the start of the run.

    Returns:
      The reason why the loss was not finite, as text: the step, the first value that was not finite, and the
      path of `nonfinite.json`; or that all repeated steps were finite.

    Raises:
      ValueError: if the checkpoint is damaged, a config field or a warm start is invalid, a record lacks a
        field of the batch, or the records do not match prep.json.
      DamagedRecordError: if a record is damaged and must not be skipped (a ValueError).
      OSError: if a file does not exist, or cannot be read or written.
    """
    config, mesh = experiment.config, make_mesh(experiment.config.mesh)
    tx = make_optimizer(config.optimizer, count_epoch_steps(experiment) * config.train.epochs)
    state, _, _ = restore_or_init(experiment, workdir, tx, mesh)
    return trace_nonfinite_step(experiment, state, tx, mesh, last_step, workdir)


def compile_steps(
    experiment: Experiment,
    batch_source: BatchSource,
    tx: optax.GradientTransformation,
    state: TrainState,
    mesh: Mesh,
    *,
    should_report: bool,
) -> tuple[jax.stages.Compiled, predict.EvalStep]:
    """Compiles the training step and prepares the scoring step.

    With `should_report`, prints the table of parameters and the FLOPs of the training step to stderr.

    Returns:
      A tuple: the compiled training step, from which its memory use can be read, and the jitted scoring step
      `(params, model_state, batch) -> outputs`.

    Raises:
      ValueError: if the config does not fit the model or the clips, for example an objective is unknown or
        needs an output that the network lacks, or if `config.data.batch_size` is not a multiple of the
        devices.
    """
    train_step = make_train_step(experiment.model, tx, experiment.config)
    compiled_step = batch_source.compile(train_step, state)
    if should_report:
        print(progress.parameter_table(state.params), file=sys.stderr)
        flops = progress.compiled_flops(compiled_step)
        if flops:
            print(f"compiled step: {flops / 1e9:.2f} GFLOP per device", file=sys.stderr)
    return compiled_step, jit_eval_step(experiment.model, mesh)


def evaluate_epoch(
    experiment: Experiment,
    batch_source: BatchSource,
    eval_step: predict.EvalStep,
    state: TrainState,
    epoch_totals: EpochTotals,
    step: int,
) -> tuple[TrainState, dict[str, float], Int[np.ndarray, "c c"] | None]:
    """Computes the scores at the end of an epoch, with validation scores if clips are held out.

    Sets `batch_source.data_wait_seconds` to 0.

    Returns:
      The state (a fusion can set a part of it from the validation clips); the row of the epoch for
      `metrics.jsonl`; and the validation confusion matrix (rows are true classes), or None if no clips are
      held out. The row is a dict: `epoch`, `train_loss`, `train_ua` (a fraction), `temperature`,
      `clips_per_second` and `waiting` (fraction of the time spent waiting for data); with held-out clips also
      `validation_loss`, `validation_ua` and `validation_wa`; and with `config.data.on_corrupt=skip` also
      `damaged`, the number of clips that this process skipped.

    Raises:
      NonFiniteError: if a loss of the epoch or a parameter is NaN or infinite (a ValueError).
      ValueError: if no training or validation clip has a label, if the fusion sets its state from validation
        clips but lacks level probabilities, a state, or arrays of the same shapes, or if a record of a
        validation clip lacks a field or does not match prep.json.
      DamagedRecordError: if a record of a validation clip is damaged (a ValueError).
      OSError: if a shard is missing or cannot be opened.
    """
    config = experiment.config
    epoch_seconds = time.monotonic() - epoch_totals.start_time
    check_epoch(step, state, epoch_totals)
    sums = jax.tree.map(np.asarray, epoch_totals.sums)
    validation_row, confusion = {"temperature": config.train.temperature}, None
    if config.data.hold_out:
        state, validation_row, confusion = score_validation(config, batch_source, eval_step, state)
    row: dict[str, float] = {
        "epoch": step // epoch_totals.steps,
        "train_loss": float(sums["loss"] / epoch_totals.steps),
        "train_ua": metrics.compute_scores(sums["confusion"])["ua"],
        **validation_row,
        "clips_per_second": epoch_totals.steps * config.data.batch_size / epoch_seconds,
        "waiting": batch_source.data_wait_seconds / epoch_seconds,  # fraction of the time
    }
    if config.data.on_corrupt == "skip":
        # number of training clips that this process skipped
        row["damaged"] = len(batch_source.skip_policy.skipped_clips)
    batch_source.data_wait_seconds = 0.0
    return state, row, confusion


def score_validation(
    config: ConfigDict, batch_source: BatchSource, eval_step: predict.EvalStep, state: TrainState
) -> tuple[TrainState, dict[str, float], Int[np.ndarray, "c c"]]:
    """Computes the scores of the validation clips; a fusion that sets its state from them does this first.

    Returns:
      A tuple: the state; a dict of `validation_loss` (mean cross-entropy in nats), `validation_ua`,
      `validation_wa` (fractions) and `temperature`; and the confusion matrix (rows are true classes).

    Raises:
      ValueError: if no validation clip has a label, if the fusion sets its state from validation clips but
        lacks level probabilities, a state, or arrays of the same shapes, or if a record lacks a field of the
        batch or does not match prep.json.
      DamagedRecordError: if a record is damaged (a ValueError).
      OSError: if a shard is missing or cannot be opened.
      TypeError: if there are no validation clips.
    """
    validation_predictions = predict_validation(batch_source, eval_step, state)
    if calibrate := get_calibrator(config.model.fusion.name):
        state = update_fusion_state(state, calibrate, validation_predictions)
        validation_predictions = predict_validation(batch_source, eval_step, state)
    scores = predict.score_predictions(validation_predictions, with_intervals=False)
    validation_row = {
        "validation_loss": validation_predictions.loss,
        "validation_ua": scores["ua"],
        "validation_wa": scores["wa"],
        "temperature": fit_temperature(validation_predictions.probabilities, validation_predictions.labels),
    }
    return state, validation_row, np.array(scores["confusion"])


def predict_validation(
    batch_source: BatchSource, eval_step: predict.EvalStep, state: TrainState
) -> predict.Predictions:
    """Predicts the validation clips, with averaged parameters if averaging is enabled.

    Returns:
      The predictions, NumPy arrays with one row per clip: `clips` (record indices), `labels` (-1 without a
      label), `speakers` (indices), `probabilities` [n c], and `levels` [n m c], the probabilities of each
      level of the fusion, or None if it has no levels. Also `loss`, the mean cross-entropy of the labelled
      clips.

    Raises:
      DamagedRecordError: if a record is damaged (a ValueError).
      ValueError: if a record lacks a field of the batch or does not match prep.json.
      OSError: if a shard is missing or cannot be opened.
      TypeError: if there are no validation clips.
    """
    params = evaluation_params(state.params, state.opt_state)
    return predict.predict(eval_step, params, state.model_state, batch_source.validation_batches())


def log_step(writer: MetricWriter, step: int, step_metrics: StepMetrics) -> None:
    """Appends the scalar metrics of one step to `metrics.jsonl`, and adds them to TensorBoard.

    Raises:
      NonFiniteError: if the loss is NaN or infinite (a ValueError).
      OSError: if the files cannot be written.
    """
    scalars = {name: float(value) for name, value in step_metrics.items() if value.ndim == 0}
    check_finite(step, scalars["loss"])
    writer.write(step, "step", scalars)


def check_epoch(step: int, state: TrainState, epoch_totals: EpochTotals) -> None:
    """Checks the losses of this epoch and the parameters before a save.

    Raises:
      NonFiniteError: if a loss or a parameter is NaN or infinite (a ValueError).
    """
    assert epoch_totals.sums is not None  # called after at least one step
    check_finite(step, float(epoch_totals.sums["loss"]), has_finite_params(state.params))
