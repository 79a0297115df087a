"""One model on all devices: batches are split over them, and every epoch is stored as a checkpoint."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, PyTree

from emofuse_jax.data.dataset import Dataset
from emofuse_jax.parallel.distributed import is_first_process
from emofuse_jax.parallel.memory import REDUCE_MEMORY_HINT, program_memory_bytes
from emofuse_jax.parallel.mesh import check_batch_size, make_mesh, state_sharding
from emofuse_jax.parallel.xla_options import single_use_options
from emofuse_jax.scoring import predict
from emofuse_jax.training.batch_source import make_batch_source
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.checkpoint.metadata import CheckpointMetadata, EpochFields
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
from emofuse_jax.training.fusion_state import get_fusion_state, replace_fusion_state
from emofuse_jax.training.metric_writer import MetricWriter
from emofuse_jax.training.nan_guard import check_finite, has_finite_params
from emofuse_jax.training.optimizer import evaluation_params, make_optimizer
from emofuse_jax.training.progress import compiled_flops, parameter_table
from emofuse_jax.training.replica_set import EpochScores, HostSums, ReplicaId, RunProgress, TracedReplica
from emofuse_jax.training.step import EpochSums, StepMetrics, init_state, jit_eval_step, make_train_step
from emofuse_jax.training.warm_start import WarmStart, load_warm_start
from emofuse_jax.types import PRNGKey, TrainState


class SingleReplica:
    """The replica of `emofuse train`: a `ReplicaSet` with one entry.

    Writes `checkpoints/last`, `checkpoints/best`, `metrics.jsonl` and `tensorboard/` to its workdir.
    """

    replica_ids: Sequence[ReplicaId] = ((),)
    save_seconds = 0.0
    stores_every_epoch = True
    memory_hint = REDUCE_MEMORY_HINT

    def __init__(
        self, experiment: Experiment, workdir: str, describe_data: Callable[[str, Dataset], None]
    ) -> None:
        """Creates the mesh and the optimizer; `describe_data(workdir, dataset)` is called for a new run.

        Raises:
          ValueError: if a field of the config is invalid, if a batch size does not fit the devices, or if
            there are fewer training clips than one batch.
        """
        self._experiment, self._workdir, self._describe_data = experiment, workdir, describe_data
        self.config = config = experiment.config
        self._mesh = make_mesh(config.mesh)
        check_batch_size(config.data.batch_size, "data.batch_size", self._mesh)
        check_batch_size(config.train.eval_batch_size, "train.eval_batch_size", self._mesh)
        self.epoch_steps = (count_epoch_steps(experiment),)
        self.total_steps = self.epoch_steps[0] * config.train.epochs
        self._tx = make_optimizer(config.optimizer, self.total_steps)
        self._run_metadata = make_metadata(experiment)

    def restore_or_init(self) -> RunProgress:
        """Restores `checkpoints/last`, or initialises a new state if there is none; returns the progress.

        Raises:
          ValueError: if the checkpoint is damaged, or belongs to another config or other data, or if a warm
            start is invalid.
          FileNotFoundError: if the workdir of a warm start has no checkpoint.
          OSError: if the workdir cannot be created, or a file cannot be read.
        """
        experiment, config, workdir = self._experiment, self.config, self._workdir

        def init(key: PRNGKey, warm_start: WarmStart = ({}, {})) -> TrainState:
            return init_state(experiment.model, self._tx, key, experiment.statistics, warm_start)

        key = jax.random.key(config.seed)
        shapes = jax.eval_shape(init, key)
        sharding = state_sharding(shapes, self._mesh, fsdp=config.mesh.fsdp)
        saved_metadata = store.read_metadata(workdir, "last", missing_ok=True)
        if saved_metadata is None:
            os.makedirs(workdir, exist_ok=True)
            jitted_init = jax.jit(
                init, out_shardings=sharding, compiler_options=single_use_options(self._mesh)
            )
            self.state = jitted_init(key, load_warm_start(experiment))
            return RunProgress([EarlyStoppingTracker()])
        store.require_metadata_fields(workdir, "last", saved_metadata, store.RUN_METADATA_FIELDS)
        check_same_config(workdir, saved_config(saved_metadata).to_dict(), config.to_dict())
        check_same_data(experiment, saved_metadata, (*MATCHING_DATA_FIELDS, "training_clips_sha256"))
        self.state = store.restore(workdir, store.abstract_like(shapes, sharding))
        epoch_step, sums = saved_metadata["epoch"]["steps"], saved_metadata["epoch"]["sums"]
        return RunProgress(
            [EarlyStoppingTracker(**saved_metadata["progress"])],
            finished_epochs=(int(self.state.step) - epoch_step) // self.epoch_steps[0],
            epoch_step=epoch_step,
            epoch_sums={name: jnp.asarray(x, jnp.float32) for name, x in sums.items()} if sums else None,
        )

    def prepare(self, progress: RunProgress) -> None:
        """Opens the batch source and the metrics, and compiles the training and scoring steps.

        For a new run, also calls `describe_data`, and prints the table of parameters and the FLOPs of a step
        to stderr.

        Raises:
          ValueError: if a field of the config is invalid, or a resident record is damaged.
          OSError: if a file cannot be read or written.
        """
        step = progress.steps_taken(self.epoch_steps[0])
        is_reporting = is_first_process() and step == 0
        if is_reporting:
            self._describe_data(self._workdir, self._experiment.dataset)
        self._batch_source = make_batch_source(self._experiment, self._mesh)
        self.steps_per_call = self._batch_source.steps_per_call
        train_step = make_train_step(self._experiment.model, self._tx, self.config)
        self._compiled_step = self._batch_source.compile(train_step, self.state)
        if is_reporting:
            print(parameter_table(self.state.params), file=sys.stderr)
            if flops := compiled_flops(self._compiled_step):
                print(f"compiled step: {flops / 1e9:.2f} GFLOP per device", file=sys.stderr)
        self._eval_step = jit_eval_step(self._experiment.model, self._mesh)
        self._writer = MetricWriter(self._workdir, resume_step=step, active=is_first_process())

    def program_bytes(self) -> int:
        """Returns the bytes that the training step needs on each device."""
        return program_memory_bytes(self._compiled_step)

    def train_steps(
        self, progress: RunProgress, active: Sequence[bool], step_count: int
    ) -> tuple[EpochSums, StepMetrics]:
        """Trains on the next `step_count` batches; returns their sums and the metrics of the last step.

        Raises:
          DamagedRecordError, OSError: if batches are read from disk and a record or file is damaged.
        """
        first_step = progress.steps_taken(self.epoch_steps[0])
        self.state, step_metrics, sums = self._batch_source.step(self.state, first_step, step_count)
        return sums, step_metrics

    def log_steps(self, step: int, step_metrics: StepMetrics) -> None:
        """Appends the scalar metrics of one step to `metrics.jsonl`, and adds them to TensorBoard.

        Raises:
          NonFiniteError: if the loss is NaN or infinite (a ValueError).
          OSError: if the files cannot be written.
        """
        scalars = {name: float(value) for name, value in step_metrics.items() if value.ndim == 0}
        check_finite(step, scalars["loss"])
        self._writer.write(step, "step", scalars)

    def fetch_sums(self, sums: EpochSums) -> HostSums:
        """Returns the sums as NumPy arrays with one entry."""
        return {name: np.asarray(x)[None] for name, x in sums.items()}

    def have_finite_params(self) -> Bool[np.ndarray, " r"]:
        """Returns bool [1]: True if all parameters are finite."""
        return np.array([has_finite_params(self.state.params)])

    def predict_validation(self) -> list[predict.Predictions]:
        """Predicts the validation clips, with averaged parameters if averaging is enabled.

        Raises:
          DamagedRecordError, OSError: if batches are read from disk and a record or file is damaged.
        """
        params = evaluation_params(self.state.params, self.state.opt_state)
        batches = self._batch_source.validation_batches()
        return [predict.predict(self._eval_step, params, self.state.model_state, batches)]

    def get_fusion_states(self) -> list[PyTree]:
        """Returns a list with the fusion's part of the model state, as NumPy arrays."""
        return [jax.tree.map(np.asarray, get_fusion_state(self.state.model_state))]

    def set_fusion_states(self, fusion_states: list[PyTree]) -> None:
        """Replaces the fusion's part of the model state by that in the list."""
        (fusion_state,) = fusion_states
        self.state = replace_fusion_state(self.state, fusion_state)

    def record_epoch(
        self, i: int, step: int, row: EpochScores, confusion: Int[np.ndarray, "c c"] | None
    ) -> None:
        """Appends the row of the epoch to `metrics.jsonl`, and adds it to TensorBoard.

        Raises:
          OSError: if the files cannot be written.
        """
        self._writer.write_epoch(step, row, confusion, self._experiment.dataset.classes)

    def measure_epoch(self, seconds: float) -> EpochScores:
        """Returns `clips_per_second` and `waiting` (fraction of the time spent waiting for data) of an epoch.

        With `config.data.on_corrupt=skip`, also `damaged`: the number of training clips that this process has
        skipped.
        """
        clips = self.epoch_steps[0] * self.config.data.batch_size
        measurements: EpochScores = {
            "clips_per_second": clips / seconds,
            "waiting": self._batch_source.data_wait_seconds / seconds,
        }
        if self.config.data.on_corrupt == "skip":
            measurements["damaged"] = len(self._batch_source.skip_policy.skipped_clips)
        self._batch_source.data_wait_seconds = 0.0
        return measurements

    def keep_best(self, progress: RunProgress, is_best: Bool[np.ndarray, " r"]) -> None:
        """Writes `checkpoints/best` if the epoch is the best so far.

        Raises:
          OSError: if the checkpoint cannot be written.
        """
        if is_best.any():
            self._save("best", progress)

    def save(self, progress: RunProgress) -> None:
        """Writes `checkpoints/last`, from which `restore_or_init` resumes.

        Raises:
          OSError: if the checkpoint cannot be written.
        """
        self._save("last", progress)

    def _save(self, kind: str, progress: RunProgress) -> None:
        (tracker,) = progress.trackers
        metadata: CheckpointMetadata = {
            **self._run_metadata,
            "step": progress.steps_taken(self.epoch_steps[0]),
            "temperature": tracker.temperature,
            "progress": tracker.to_json(),
            "epoch": _epoch_fields(progress),
        }
        store.save(self._workdir, kind, self.state, metadata)

    def take_replica(self, replica_id: ReplicaId) -> TracedReplica:
        """Returns the experiment, the current state, the optimizer and the mesh."""
        return TracedReplica(self._experiment, self.state, self._tx, self._mesh)

    def close(self, tracker: EarlyStoppingTracker) -> None:
        """Closes TensorBoard's file, and adds the best epoch to its table of hyperparameters.

        Raises:
          OSError: if the files cannot be written.
        """
        scores: dict[str, float] = {"best_step": tracker.best_step}
        if tracker.best_ua is not None:
            scores["best_ua"] = tracker.best_ua
        self._writer.close(scores, flatten_fields(self.config.to_dict()))


def _epoch_fields(progress: RunProgress) -> EpochFields:
    """Returns the sums of the unfinished epoch for JSON; floats of Python hold those of float32 exactly."""
    sums = progress.epoch_sums
    host_sums = None if sums is None else {name: np.asarray(x).tolist() for name, x in sums.items()}
    return cast(EpochFields, {"steps": progress.epoch_step, "sums": host_sums})
