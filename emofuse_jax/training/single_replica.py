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
from emofuse_jax.parallel.mesh import check_batch_size, make_mesh, replicated, state_sharding
from emofuse_jax.parallel.xla_options import single_use_options
from emofuse_jax.scoring import predict
from emofuse_jax.training.batch_source import make_batch_source
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.checkpoint.load import load_trained_model
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
from emofuse_jax.training.metric_writer import MetricWriter, read_epoch_rows
from emofuse_jax.training.nan_guard import check_finite, has_finite_params
from emofuse_jax.training.optimizer import evaluation_params, make_optimizer
from emofuse_jax.training.progress import compiled_flops, parameter_table
from emofuse_jax.training.replica_set import EpochScores, HostSums, ReplicaId, RunProgress, TracedReplica
from emofuse_jax.training.step import EpochSums, StepMetrics, init_state, jit_eval_step, make_train_step
from emofuse_jax.training.warm_start import WarmStart, load_warm_start
from emofuse_jax.types import PRNGKey, TrainState


class SingleReplica:
    """A `ReplicaSet` with one entry: the replica of `emofuse train`, or one of a cross-validation.

    Writes `checkpoints/last`, `checkpoints/best`, `metrics.jsonl` and `tensorboard/` to its workdir.
    """

    save_seconds = 0.0
    stores_every_epoch = True
    memory_hint = REDUCE_MEMORY_HINT

    def __init__(
        self,
        experiment: Experiment,
        workdir: str,
        describe_data: Callable[[str, Dataset], None],
        replica_id: ReplicaId = (),
    ) -> None:
        """Creates the mesh and the optimizer; `restore_or_init` creates the state.

        Args:
          experiment: experiment to train.
          workdir: directory of the run.
          describe_data: called as `describe_data(workdir, dataset)` in the first process when a new run
            starts, with the Dataset of `experiment`; its errors pass through.
          replica_id: fold, seed and, in a sweep, trial, for messages; empty in `emofuse train`.

        Raises:
          ValueError: if `config.mesh.data` or a field of `config.optimizer` is invalid, if a batch size does
            not fit the devices, if there are fewer training clips than one batch, or if the file of the fold
            is invalid.
          FileNotFoundError: if the file of the fold no longer exists.
          OSError: if the file of the fold cannot be read.
        """
        self._experiment, self._workdir, self._describe_data = experiment, workdir, describe_data
        self.config = config = experiment.config
        self.replica_ids, self.experiments = (replica_id,), (experiment,)
        self._mesh = make_mesh(config.mesh)
        check_batch_size(config.data.batch_size, "data.batch_size", self._mesh)
        check_batch_size(config.train.eval_batch_size, "train.eval_batch_size", self._mesh)
        self.steps_per_epoch = count_epoch_steps(experiment)
        self.epoch_steps = (self.steps_per_epoch,)
        self._tx = make_optimizer(config.optimizer, self.steps_per_epoch * config.train.epochs)
        self._run_metadata = make_metadata(experiment)

    def restore_or_init(self) -> RunProgress:
        """Restores `state` from `checkpoints/last`, or initialises a new one if there is no such checkpoint.

        Returns:
          The progress: `trackers` (one, with the best validation result: `best_ua`, `best_step`, `since_best`
          and `temperature`), `finished_epochs`, and of the unfinished epoch `epoch_step` (number of steps)
          and `epoch_sums` (of `loss` and `confusion` [c c] over these steps; None before the first step).

        Raises:
          ValueError: if the checkpoint is damaged, or belongs to another config or other data, or if a warm
            start (`config.init`), the input statistics or the file of the fold is invalid.
          TypeError, AttributeError: if a field in the metadata of the checkpoint is damaged.
          FileNotFoundError: if the workdir of a warm start has no checkpoint, or the file of the fold no
            longer exists.
          OSError: if the workdir cannot be created, or a file cannot be read.
          jax.errors.JaxRuntimeError: if a device fails or runs out of memory.
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
        saved_epoch = {f"epoch.{name}": value for name, value in saved_metadata["epoch"].items()}
        store.require_metadata_fields(workdir, "last", saved_epoch, ("epoch.steps", "epoch.sums"))
        with store.name_checkpoint_in_errors(workdir, "last"):
            run_config = saved_config(saved_metadata)
        check_same_config(workdir, run_config.to_dict(), config.to_dict())
        check_same_data(experiment, saved_metadata, (*MATCHING_DATA_FIELDS, "training_clips_sha256"))
        self.state = store.restore(workdir, store.abstract_like(shapes, sharding))
        epoch_step, sums = saved_metadata["epoch"]["steps"], saved_metadata["epoch"]["sums"]
        return RunProgress(
            [EarlyStoppingTracker(**saved_metadata["progress"])],
            finished_epochs=(int(self.state.step) - epoch_step) // self.steps_per_epoch,
            epoch_step=epoch_step,
            epoch_sums={name: jnp.asarray(x, jnp.float32) for name, x in sums.items()} if sums else None,
        )

    def prepare(self, progress: RunProgress) -> None:
        """Opens the batch source and the metrics, and compiles the training step, after `restore_or_init`.

        `progress` is the result of `restore_or_init`. At step 0, the first process also calls
        `describe_data`, whose errors pass through, and prints the table of parameters and the FLOPs of a step
        to stderr. Rows of an existing `metrics.jsonl` that are later than the step of `progress` are removed.

        Raises:
          DamagedRecordError: if a resident record is damaged and must not be skipped (a ValueError).
          ValueError: if a field of the config is invalid or does not fit the model or the clips, if the
            records lack a field of the batch or do not match prep.json, or if a row of `metrics.jsonl` is
            invalid.
          OSError: if a shard is missing or cannot be opened, or a file cannot be read or written.
          jax.errors.JaxRuntimeError: if a device fails or runs out of memory.
        """
        step = progress.steps_taken(self.steps_per_epoch)
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
        """Returns the bytes that the training program needs on each device; call `prepare` before."""
        return program_memory_bytes(self._compiled_step)

    def train_steps(
        self, progress: RunProgress, active: Sequence[bool], step_count: int
    ) -> tuple[EpochSums, StepMetrics]:
        """Trains on the next `step_count` batches; changes `state`. Call `prepare` before.

        Args:
          progress: position in the run; it is not changed.
          active: not used.
          step_count: number of batches, at most `steps_per_call`.

        Returns:
          A tuple of dicts of arrays on the devices: the sums of `loss` (scalar) and `confusion` [c c] over
          the steps; and the metrics of the last step: `loss`, each term of the loss by name, `gradient_norm`
          (scalars) and `confusion` [c c].

        Raises:
          DamagedRecordError: if batches are read from disk, and a record is damaged and must not be skipped
            (a ValueError).
          ValueError: if batches are read from disk, and `config.data.threads` is negative, `config.seed`,
            `config.data.balanced` or `config.data.labelled_share` is invalid, or a record lacks a field of
            the batch or does not match prep.json.
          OSError: if batches are read from disk, and a shard is missing or cannot be opened.
          jax.errors.JaxRuntimeError: if a device fails or runs out of memory, or another process is lost.
        """
        first_step = progress.steps_taken(self.steps_per_epoch)
        self.state, step_metrics, sums = self._batch_source.step(self.state, first_step, step_count)
        return sums, step_metrics

    def log_steps(self, step: int, step_metrics: StepMetrics) -> None:
        """Appends the scalar metrics of one step to `metrics.jsonl`, and adds them to TensorBoard.

        `step` is the number of steps since the start of the run, this one included. `step_metrics` are those
        of `train_steps`.

        Raises:
          NonFiniteError: if the loss is NaN or infinite (a ValueError).
          OSError: if the files cannot be written.
        """
        scalars = {name: float(value) for name, value in step_metrics.items() if value.ndim == 0}
        check_finite(step, scalars["loss"])
        self._writer.write(step, "step", scalars)

    def fetch_sums(self, sums: EpochSums) -> HostSums:
        """Returns sums over steps as a dict of NumPy arrays with a first axis of one entry.

        From `loss` and `confusion` [c c], it makes `loss` [1] and `confusion` [1 c c].
        """
        return {name: np.asarray(x)[None] for name, x in sums.items()}

    def have_finite_params(self) -> Bool[np.ndarray, " r"]:
        """Returns bool [1]: True if all parameters are finite, False if one is NaN or infinite."""
        return np.array([has_finite_params(self.state.params)])

    def predict_validation(self) -> list[predict.Predictions]:
        """Predicts the validation clips, with averaged parameters if averaging is enabled.

        Call `prepare` before. Every process must call this function.

        Returns:
          A list with one Predictions, which has NumPy arrays with a row for each of n clips: `clips` (record
          indices), `labels` (-1 without a label), `speakers` (indices), `probabilities` [n c] (without a
          temperature) and `levels` [n m c] (of the m levels of the fusion; None without levels). Its `loss`
          is the mean cross-entropy of the labelled clips. The rows have the order of
          `experiment.clips["validation"]`; with several buckets, short clips come first.

        Raises:
          DamagedRecordError: if batches are read from disk, and a record is damaged (a ValueError).
          ValueError: if there are no validation clips; or if batches are read from disk, and a record lacks a
            field of the batch or does not match prep.json.
          OSError: if batches are read from disk, and a shard is missing or cannot be opened.
          jax.errors.JaxRuntimeError: if a device fails or runs out of memory, or another process is lost.
        """
        params = evaluation_params(self.state.params, self.state.opt_state)
        batches = self._batch_source.validation_batches()
        return [predict.predict(self._eval_step, params, self.state.model_state, batches)]

    def get_fusion_states(self) -> list[PyTree]:
        """Returns a list with the fusion's part of the model state, a tree of NumPy arrays.

        Raises:
          ValueError: if the model state has no part of the fusion.
        """
        return [jax.tree.map(np.asarray, get_fusion_state(self.state.model_state))]

    def set_fusion_states(self, fusion_states: list[PyTree]) -> None:
        """Replaces the fusion's part of the model state by the only tree in `fusion_states`.

        It has the names, shapes and dtypes of that of `get_fusion_states`, and is the same on every process.

        Raises:
          ValueError: if the model state has no part of the fusion, if the tree has other names, or if there
            is not exactly one tree.
        """
        (fusion_state,) = fusion_states
        self.state = replace_fusion_state(self.state, fusion_state)

    def record_epoch(
        self, i: int, step: int, row: EpochScores, confusion: Int[np.ndarray, "c c"] | None
    ) -> None:
        """Appends the row of an epoch to `metrics.jsonl`, and adds it to TensorBoard if that is installed.

        Args:
          i: not used; the only replica is 0.
          step: number of steps since the start of the run.
          row: numbers by name, such as `epoch`, `train_loss` and `validation_ua`.
          confusion: confusion matrix of the validation clips, rows true classes, which becomes an image in
            TensorBoard; None without validation clips.

        Raises:
          OSError: if the files cannot be written.
        """
        self._writer.write_epoch(step, row, confusion, self._experiment.dataset.classes)

    def measure_epoch(self, seconds: float) -> EpochScores:
        """Returns a dict of `clips_per_second` and `waiting` of an epoch that took `seconds`.

        `waiting` is the fraction of the time that was spent waiting for data since the last call. With
        `config.data.on_corrupt=skip`, there is also `damaged`: the number of training clips that this process
        has skipped so far.
        """
        clips = self.steps_per_epoch * self.config.data.batch_size
        measurements: EpochScores = {
            "clips_per_second": clips / seconds,
            "waiting": self._batch_source.data_wait_seconds / seconds,
        }
        if self.config.data.on_corrupt == "skip":
            measurements["damaged"] = len(self._batch_source.skip_policy.skipped_clips)
        self._batch_source.data_wait_seconds = 0.0
        return measurements

    def keep_best(self, progress: RunProgress, is_best: Bool[np.ndarray, " r"]) -> None:
        """Writes `checkpoints/best` with the current state if the only entry of `is_best` is True.

        The previous one is removed then. Its metadata have the step, the best result and the temperature of
        `progress`. Every process must call this function.

        Raises:
          OSError: if the checkpoint cannot be written.
          jax.errors.JaxRuntimeError: if a device fails or another process is lost.
        """
        if is_best.any():
            self._save("best", progress)

    def save(self, progress: RunProgress) -> None:
        """Writes `checkpoints/last`: the current state and `progress`, from which `restore_or_init` resumes.

        The previous one is removed then. Every process must call this function.

        Raises:
          OSError: if the checkpoint cannot be written.
          jax.errors.JaxRuntimeError: if a device fails or another process is lost.
        """
        self._save("last", progress)

    def _save(self, kind: str, progress: RunProgress) -> None:
        (tracker,) = progress.trackers
        metadata: CheckpointMetadata = {
            **self._run_metadata,
            "step": progress.steps_taken(self.steps_per_epoch),
            "temperature": tracker.temperature,
            "progress": tracker.to_json(),
            "epoch": _epoch_fields(progress),
        }
        store.save(self._workdir, kind, self.state, metadata)

    def take_replica(self, replica_id: ReplicaId) -> TracedReplica:
        """Returns the replica with its current state, to repeat its steps.

        The result has the `experiment`, the `state`, the optimizer (`tx`) and the `mesh`. After
        `restore_or_init`, the state is that of the last save. `replica_id` is not used.
        """
        return TracedReplica(self._experiment, self.state, self._tx, self._mesh)

    def read_histories(self) -> list[list[EpochScores]]:
        """Returns a list with the rows of all epochs: dicts with `step`, `epoch` and the scores.

        Raises:
          ValueError: if `metrics.jsonl` is damaged.
          OSError: if `metrics.jsonl` cannot be read.
        """
        rows = cast(list[EpochScores], read_epoch_rows(self._workdir))
        return [[{name: value for name, value in row.items() if name != "split"} for row in rows]]

    def predict_test(self) -> list[predict.Predictions]:
        """Predicts the test clips with `checkpoints/best`; reads them from disk.

        Call `prepare` before. Every process must call this function.

        Returns:
          A list with one Predictions, with NumPy arrays as those of `predict_validation`: a row for each of
          the n test clips, in their order.

        Raises:
          DamagedRecordError: if a record is damaged (a ValueError).
          ValueError: if there are no test clips, if the checkpoint is damaged or has another schema, or if a
            record lacks a field of the batch or does not match prep.json.
          FileNotFoundError: if there is no `best` checkpoint.
          OSError: if a shard or a file of the checkpoint is missing or cannot be read.
          jax.errors.JaxRuntimeError: if a device fails or runs out of memory, or another process is lost.
        """
        _, params, model_state, _ = load_trained_model(self._workdir, "best", replicated(self._mesh))
        batches = predict.sharded_batches(
            self._experiment.dataset,
            self._experiment.clips["test"],
            self._experiment.choose_spec,
            self._mesh,
            batch_size=self.config.train.eval_batch_size,
        )
        return [predict.predict(self._eval_step, params, model_state, batches)]

    def write_models(self, directories: Sequence[str], progress: RunProgress) -> None:
        """Does nothing: `checkpoints/best` and `metrics.jsonl` are written during training."""

    def close(self, progress: RunProgress) -> None:
        """Closes TensorBoard's file, and adds the run to its table of hyperparameters; call `prepare` before.

        The row has `best_step` and, unless it is None, `best_ua` of the tracker, and all fields of the config
        by dotted name. Does nothing if tensorboardX is not installed.

        Raises:
          OSError: if the files cannot be written.
        """
        (tracker,) = progress.trackers
        scores: dict[str, float] = {"best_step": tracker.best_step}
        if tracker.best_ua is not None:
            scores["best_ua"] = tracker.best_ua
        self._writer.close(scores, flatten_fields(self.config.to_dict()))


def _epoch_fields(progress: RunProgress) -> EpochFields:
    """Returns the part of the progress that is in the unfinished epoch, as a dict for JSON.

    It has `steps`, the number of steps in it, and `sums` over these steps: a dict of `loss` (a float) and
    `confusion` (nested lists), or None before the first step. Floats of Python hold those of float32 exactly.
    """
    sums = progress.epoch_sums
    host_sums = None if sums is None else {name: np.asarray(x).tolist() for name, x in sums.items()}
    return cast(EpochFields, {"steps": progress.epoch_step, "sums": host_sums})
