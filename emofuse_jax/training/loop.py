"""The training loop of one model on one fold."""

import dataclasses
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

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
from emofuse_jax.training.step import init_state, jit_eval_step, make_train_step
from emofuse_jax.training.warm_start import load_warm_start
from emofuse_jax.types import TrainState
from emofuse_jax.utils.progress_bar import console


def skip_data_description(directory: str, dataset: Dataset) -> None:
    """Writes nothing."""


def train(
    experiment: Experiment,
    workdir: str,
    *,
    describe_data: Callable[[str, Dataset], None] = skip_data_description,
) -> EarlyStoppingTracker:
    """Trains to the end or until validation UA stops rising; started again, it goes on bit for bit.

    Writes `checkpoints/last` and `checkpoints/best`, `metrics.jsonl` and `tensorboard/` under `workdir`.
    After a SIGTERM it saves and raises Preempted. ValueError where another process trains there, and where
    the loss is not a number any more: `nonfinite.json` then names the step's clips. `describe_data` is called
    with the workdir and the dataset when a run begins.
    """
    with exclusive_workdir(workdir), explain_oom():
        try:
            return run_training(experiment, workdir, describe_data)
        except NonFiniteError as error:
            nonfinite_error = error.with_traceback(None)  # whose frames hold the arrays
        raise with_explanation(
            nonfinite_error, lambda: explain_nan(experiment, workdir, nonfinite_error.step)
        )


def run_training(
    experiment: Experiment, workdir: str, describe_data: Callable[[str, Dataset], None]
) -> EarlyStoppingTracker:
    """`train`, alone in its workdir."""
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
                for kind in ("best", "last") if is_best else ("last",):  # a run goes on from the last
                    store.save(
                        workdir,
                        kind,
                        state,
                        {**run_metadata, **progress_metadata(step, tracker, epoch_totals)},
                    )
                saved_step = step
            if step >= total_steps or tracker.should_stop_early(config.train.patience):
                break
            if should_stop():
                if step > saved_step:  # a save over the same step would first remove it
                    check_epoch(step, state, epoch_totals)
                    store.save(
                        workdir,
                        "last",
                        state,
                        {**run_metadata, **progress_metadata(step, tracker, epoch_totals)},
                    )
                raise Preempted(f"{workdir}: saved at step {step}")
            # 4. Next steps, on the next batches: the number of a batch is that of its step.
            step_count = min(batch_source.steps_per_call, steps_per_epoch - epoch_totals.steps)
            state, step_metrics, sums = batch_source.step(state, step, step_count)
            step += step_count
            # 5. Log.
            epoch_totals.add(sums, step_count)
            if config.train.log_every and step % config.train.log_every < step_count:
                log_step(writer, step, step_metrics)
            report_progress(step)
    scores = {"best_step": tracker.best_step} | ({"best_ua": tracker.best_ua} if config.data.hold_out else {})
    writer.close(scores, flatten_fields(config.to_dict()))
    return tracker


def progress_metadata(step: int, tracker: EarlyStoppingTracker, epoch_totals: "EpochTotals") -> dict:
    """Where a run stands, as JSON."""
    tracker_fields = dataclasses.asdict(tracker)
    return {
        "step": step,
        "temperature": tracker.temperature,
        "progress": tracker_fields,
        "epoch": epoch_totals.to_json(),
    }


class EpochTotals:
    """Sums over an epoch, left on the device until its end."""

    def __init__(self, steps: int = 0, sums: dict | None = None):
        self.start_time, self.steps = time.monotonic(), steps
        self.sums = sums and {name: jnp.asarray(x, jnp.float32) for name, x in sums.items()}

    def add(self, sums: dict, step_count: int) -> None:
        """Adds the loss and the confusion matrix of `step_count` steps."""
        self.sums = (
            sums
            if self.sums is None
            else jax.tree.map(lambda total, increment: total + increment, self.sums, sums)
        )
        self.steps += step_count
        if jax.default_backend() == "cpu":  # fake CPU devices can deadlock on steps queued behind each other
            jax.block_until_ready(self.sums)

    def to_json(self) -> dict:
        """As JSON, for `EpochTotals(**saved)`; float32 survives it bit for bit."""
        sums = self.sums and {name: np.asarray(x).tolist() for name, x in self.sums.items()}
        return {"steps": self.steps, "sums": sums}


def restore_or_init(
    experiment: Experiment, workdir: str, tx, mesh: Mesh
) -> tuple[TrainState, EarlyStoppingTracker, EpochTotals]:
    """The last checkpoint's state, or a fresh one; progress, and the sums of the epoch that it stands in."""
    config = experiment.config

    def init(key, warm_start=({}, {})):
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
    """Why the loss was not finite at step `last_step`, from the last checkpoint on."""
    config, mesh = experiment.config, make_mesh(experiment.config.mesh)
    tx = make_optimizer(config.optimizer, count_epoch_steps(experiment) * config.train.epochs)
    state, _, _ = restore_or_init(experiment, workdir, tx, mesh)
    return trace_nonfinite_step(experiment, state, tx, mesh, last_step, workdir)


def compile_steps(
    experiment: Experiment,
    batch_source: BatchSource,
    tx,
    state: TrainState,
    mesh: Mesh,
    *,
    should_report: bool,
):
    """The compiled training step and the jitted scoring step; reports parameters and FLOPs if asked to."""
    train_step = make_train_step(experiment.model, tx, experiment.config)
    compiled_step = batch_source.compile(train_step, state)
    if should_report:
        console.print(progress.parameter_table(state.params))
        flops = progress.compiled_flops(compiled_step)
        if flops:
            console.print(f"compiled step: {flops / 1e9:.2f} GFLOP per device")
    return compiled_step, jit_eval_step(experiment.model, mesh)


def evaluate_epoch(
    experiment, batch_source, eval_step, state, epoch_totals, step
) -> tuple[TrainState, dict, np.ndarray | None]:
    """Scores validation, where there is one; gives state, row and confusion matrix."""
    config = experiment.config
    epoch_seconds = time.monotonic() - epoch_totals.start_time
    check_epoch(step, state, epoch_totals)
    sums = jax.tree.map(np.asarray, epoch_totals.sums)
    validation_row, confusion = {"temperature": config.train.temperature}, None
    if config.data.hold_out:
        state, validation_row, confusion = score_validation(config, batch_source, eval_step, state)
    row = {
        "epoch": step // epoch_totals.steps,
        "train_loss": float(sums["loss"] / epoch_totals.steps),
        "train_ua": metrics.compute_scores(sums["confusion"])["ua"],
        **validation_row,
        "clips_per_second": epoch_totals.steps * config.data.batch_size / epoch_seconds,
        "waiting": batch_source.data_wait_seconds / epoch_seconds,  # share of the time
    }
    if config.data.on_corrupt == "skip":
        # training clips left out by this process
        row["damaged"] = len(batch_source.skip_policy.skipped_clips)
    batch_source.data_wait_seconds = 0.0
    return state, row, confusion


def score_validation(
    config, batch_source: BatchSource, eval_step, state: TrainState
) -> tuple[TrainState, dict, np.ndarray]:
    """Scores the validation clips, after what the fusion sets from them."""
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


def predict_validation(batch_source: BatchSource, eval_step, state: TrainState) -> predict.Predictions:
    """The answers of a state, averaged where it is, for the validation clips."""
    params = evaluation_params(state.params, state.opt_state)
    return predict.predict(eval_step, params, state.model_state, batch_source.validation_batches())


def log_step(writer: MetricWriter, step: int, step_metrics: dict) -> None:
    """Writes one step's scalars; ValueError where the loss is not a number."""
    scalars = {name: float(value) for name, value in step_metrics.items() if value.ndim == 0}
    check_finite(step, scalars["loss"])
    writer.write(step, "step", scalars)


def check_epoch(step: int, state: TrainState, epoch_totals: EpochTotals) -> None:
    """NonFiniteError where a loss since the epoch's start, or a parameter, is not a number: it is not
    saved."""
    check_finite(step, float(epoch_totals.sums["loss"]), has_finite_params(state.params))
