"""Interface between the training engine and the replicas that it trains, and the progress of a run.

A replica is one fold and seed. `emofuse train` has one (`single_replica.py`); a cross-validation trains
groups of them together (`crossval/stacked_replicas.py`).
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Protocol

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Bool, Int, PyTree
from ml_collections import ConfigDict

from emofuse_jax.scoring.predict import Predictions
from emofuse_jax.training.early_stopping import EarlyStoppingTracker
from emofuse_jax.training.experiment import Experiment
from emofuse_jax.training.step import EpochSums, StepMetrics
from emofuse_jax.types import TrainState

ReplicaId = tuple[int, ...]
"""Fold and seed; in a sweep also the trial number. Empty in `emofuse train`."""
EpochScores = dict[str, float]
"""Row of an epoch: `epoch` and scores (the fields of `EpochRow` in scoring/result_types.py)."""
HostSums = dict[str, np.ndarray]
"""Sums over the steps of an epoch as NumPy arrays: `loss` [r] and `confusion` [r c c] for r replicas."""


@dataclasses.dataclass
class RunProgress:
    """Progress of a set of replicas in training; saved in every checkpoint from which a run resumes."""

    trackers: list[EarlyStoppingTracker]
    """Best validation result of each replica, and the number of epochs since then."""
    finished_epochs: int = 0
    """Number of complete epochs."""
    epoch_step: int = 0
    """Number of steps taken in the current epoch."""
    epoch_sums: EpochSums | None = None
    """Sums of `loss` and `confusion` over these steps, on the devices; None before the first step."""
    epoch_start_time: float = dataclasses.field(default_factory=time.monotonic)
    """Time at which the epoch began or the run was restored, in seconds (`time.monotonic`)."""

    def add(self, sums: EpochSums, step_count: int) -> None:
        """Adds the sums over `step_count` steps to those of the epoch, and counts the steps.

        `sums` is a dict of `loss` and `confusion` on the devices, as `ReplicaSet.train_steps` returns them.
        On a CPU, waits until they are computed.
        """
        self.epoch_sums = sums if self.epoch_sums is None else jax.tree.map(_add, self.epoch_sums, sums)
        self.epoch_step += step_count
        if jax.default_backend() == "cpu":  # queued steps keep their memory; fake devices can deadlock
            jax.block_until_ready(self.epoch_sums)

    def finish_epoch(self) -> None:
        """Counts the epoch as finished, and starts the next one now, without steps and sums."""
        self.finished_epochs, self.epoch_step, self.epoch_sums = self.finished_epochs + 1, 0, None
        self.epoch_start_time = time.monotonic()

    def steps_taken(self, steps_per_epoch: int) -> int:
        """Returns the number of steps since the start of the run, for epochs of `steps_per_epoch` steps.

        Steps of the current epoch beyond this number are not counted.
        """
        return self.finished_epochs * steps_per_epoch + min(self.epoch_step, steps_per_epoch)


def _add(a: jax.Array, b: jax.Array) -> jax.Array:
    return a + b


class ReplicaSet(Protocol):
    """Replicas that the engine trains together."""

    config: ConfigDict
    """Config of the first replica; the engine uses only fields that all replicas share."""
    save_seconds: float
    """Minimum time between two saves at the end of an epoch, in seconds; 0 saves after every epoch."""
    stores_every_epoch: bool
    """True if the model of every epoch is stored and can be exported; False if only the best one is."""
    memory_hint: str
    """Advice for the message if a device runs out of memory; follows "to use less memory,"."""

    @property
    def replica_ids(self) -> Sequence[ReplicaId]:
        """Fold, seed and, in a sweep, trial of each replica; in `emofuse train` one empty tuple."""

    @property
    def epoch_steps(self) -> Sequence[int]:
        """Number of steps in an epoch of each replica, in the order of `replica_ids`."""

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps after which an epoch of all replicas is finished; at least that of each replica."""

    @property
    def steps_per_call(self) -> int:
        """Maximum number of steps per call of `train_steps`; read it only after `prepare`."""

    def restore_or_init(self) -> RunProgress:
        """Restores the saved states of the replicas, or initialises new ones; this object keeps them.

        Returns:
          How far the replicas have been trained: `trackers` (best validation result of each one: `best_ua`,
          `best_step`, `since_best` and `temperature`), `finished_epochs`, and of the unfinished epoch
          `epoch_step` (number of steps) and `epoch_sums` (of `loss` and `confusion` over these steps; None
          before the first step).

        Raises:
          ValueError: if the saved states are damaged or belong to another run, if a warm start
            (`config.init`), the input statistics, the file of the fold or a field of `config.optimizer` is
            invalid, or if the devices cannot share stacked replicas equally.
          TypeError, AttributeError: if a field in the metadata of the saved states is damaged.
          FileNotFoundError: if the workdir of a warm start has no checkpoint, or the file of the fold no
            longer exists.
          OSError: if a file or directory cannot be read, created or removed.
          jax.errors.JaxRuntimeError: if a device fails or runs out of memory.
        """

    def prepare(self, progress: RunProgress) -> None:
        """Makes everything ready that training needs and `restore_or_init` does not, such as programs.

        `progress` is the result of `restore_or_init`; it is not changed.

        Raises:
          DamagedRecordError: if a record is damaged and must not be skipped (a ValueError).
          ValueError: if a field of the config is invalid or does not fit the clips, if the records lack a
            field of the batch or do not match prep.json, or if an existing log is invalid.
          OSError: if a file cannot be read or written.
          jax.errors.JaxRuntimeError: if a device fails or runs out of memory.
        """

    def program_bytes(self) -> int:
        """Returns the bytes that the training program needs on each device; call it after `prepare`.

        Raises:
          ValueError, OSError: if initial states, whose shapes stacked replicas need for this, cannot be made.
        """

    def train_steps(
        self, progress: RunProgress, active: Sequence[bool], step_count: int
    ) -> tuple[EpochSums, StepMetrics]:
        """Trains the active replicas on the next `step_count` batches of the epoch; changes their states.

        Call `prepare` before.

        Args:
          progress: position in the run (`finished_epochs` and `epoch_step`); it is not changed.
          active: False for each replica that has stopped early, whose state must not change. Constant within
            an epoch.
          step_count: number of batches, at most `steps_per_call`.

        Returns:
          A tuple of two dicts. The sums over the steps, on the devices: `loss` and `confusion`, a scalar and
          [c c] in `emofuse train`, [r] and [r c c] for r stacked replicas (0 for one that is not active). And
          the metrics of the last step:
          `loss`, each term of the loss by name, `gradient_norm` and `confusion`; empty for stacked replicas,
          which have no log of single steps.

        Raises:
          DamagedRecordError: if a record is damaged and must not be skipped (a ValueError).
          ValueError: if a field of the config is invalid, or if a record lacks a field of the batch or does
            not match prep.json.
          OSError: if a shard is missing or cannot be opened.
          jax.errors.JaxRuntimeError: if a device fails or runs out of memory, or another process is lost.
        """

    def log_steps(self, step: int, step_metrics: StepMetrics) -> None:
        """Writes the metrics of a step, the second result of `train_steps`, to the log of the replica.

        `step` is the number of steps since the start of the run, this one included.

        Raises:
          NonFiniteError: if the loss is NaN or infinite (a ValueError).
          OSError: if the file cannot be written.
        """

    def fetch_sums(self, sums: EpochSums) -> HostSums:
        """Returns the sums that `train_steps` returned or `RunProgress` added, as NumPy arrays.

        They are a dict of `loss` [r] and `confusion` [r c c] for r replicas. Every process must call this
        function.
        """

    def have_finite_params(self) -> Bool[np.ndarray, " r"]:
        """Returns bool [r]: True for each of r replicas whose parameters are all finite."""

    def predict_validation(self) -> list[Predictions]:
        """Predicts the validation clips of each replica, with averaged parameters if averaging is enabled.

        Call `prepare` before. Every process must call this function.

        Returns:
          One Predictions per replica, with NumPy arrays that have a row for each of its n clips, in any
          order: `clips` (record indices), `labels` (-1 without a label), `speakers` (indices),
          `probabilities` [n c] (without a temperature) and `levels` [n m c] (of the m levels of the fusion;
          None without levels). Its `loss` is the mean cross-entropy of the labelled clips.

        Raises:
          DamagedRecordError: if a record is damaged (a ValueError).
          ValueError: if there are no validation clips, or if a record lacks a field of the batch or does not
            match prep.json.
          OSError: if a shard is missing or cannot be opened.
          jax.errors.JaxRuntimeError: if a device fails or runs out of memory, or another process is lost.
        """

    def get_fusion_states(self) -> list[PyTree]:
        """Returns the fusion's part of the model state of each replica: one tree of NumPy arrays per replica.

        Raises:
          ValueError: if the model state has no part of the fusion.
        """

    def set_fusion_states(self, fusion_states: list[PyTree]) -> None:
        """Replaces the fusion's part of the model state of each replica.

        `fusion_states` has one tree of arrays per replica, with the names, shapes and dtypes of those of
        `get_fusion_states`; every process must pass the same arrays.

        Raises:
          ValueError: if a single replica has no part of the fusion in its model state, or if the number of
            trees or the names in them are wrong.
        """

    def record_epoch(
        self, i: int, step: int, row: EpochScores, confusion: Int[np.ndarray, "c c"] | None
    ) -> None:
        """Stores the row of an epoch of replica `i`.

        Args:
          i: position of the replica in `replica_ids`.
          step: number of steps of this replica since the start of the run.
          row: numbers by name: `epoch` (its number, from 1), `train_loss`, scores and measurements.
          confusion: confusion matrix of its validation clips, rows true classes; None without such clips.

        Raises:
          OSError: if a file cannot be written.
        """

    def measure_epoch(self, seconds: float) -> EpochScores:
        """Returns measurements of an epoch that took `seconds`, such as its clips per second.

        They are a dict of numbers by the names of fields in the row of the epoch; it can be empty.
        """

    def keep_best(self, progress: RunProgress, is_best: Bool[np.ndarray, " r"]) -> None:
        """Stores the current model of each replica with `is_best` [r] True, in place of its best one so far.

        `progress` has the best step and the temperature of each replica, which can be stored too.

        Raises:
          OSError: if a file cannot be written.
          jax.errors.JaxRuntimeError: if a device fails or another process is lost.
        """

    def save(self, progress: RunProgress) -> None:
        """Saves the states and `progress`, from which `restore_or_init` resumes; replaces the previous save.

        Raises:
          OSError: if a file cannot be written.
          jax.errors.JaxRuntimeError: if a device fails or another process is lost.
        """

    def close(self, progress: RunProgress) -> None:
        """Closes the files of the trained replicas; `progress.trackers` have their best results.

        Raises:
          OSError: if a file cannot be written.
        """

    def take_replica(self, replica_id: ReplicaId) -> "TracedReplica":
        """Returns one replica with its current state, to repeat its steps.

        After `restore_or_init`, this is the state of the last save. The result has the `experiment`, the
        `state`, the optimizer (`tx`) and a `mesh` to run on. `replica_id` is one of `replica_ids`.

        Raises:
          ValueError: if stacked replicas are trained by several processes, or do not include `replica_id`.
          KeyError: if the cross-validation has no replica `replica_id`.
        """


@dataclasses.dataclass(frozen=True)
class TracedReplica:
    """A replica whose steps are repeated to find the first value that is not finite."""

    experiment: Experiment
    """Config, data and model of the replica."""
    state: TrainState
    """State from which the steps are repeated."""
    tx: optax.GradientTransformation
    """Optimizer of the replica."""
    mesh: Mesh
    """Devices on which the steps are repeated."""


class TestedReplicas(ReplicaSet, Protocol):
    """Replicas of a cross-validation, which are tested when they are trained."""

    @property
    def experiments(self) -> Sequence[Experiment]:
        """Experiment (config, data and model) of each replica, in the order of `replica_ids`."""

    def read_histories(self) -> Sequence[Sequence[EpochScores]]:
        """Returns the rows of all epochs of each replica, dicts with `step`, `epoch` and the scores.

        Raises:
          ValueError: if a file with rows is damaged.
          OSError: if a file with rows cannot be read.
        """

    def predict_test(self) -> list[Predictions]:
        """Predicts the test clips of each replica with its best model.

        Call `prepare` before. Every process must call this function.

        Returns:
          One Predictions per replica, with NumPy arrays as those of `predict_validation`: a row for each of
          its n test clips, in their order.

        Raises:
          DamagedRecordError: if a record is damaged (a ValueError).
          ValueError: if there are no test clips, if the checkpoint of the best model is damaged, or if a
            record lacks a field of the batch or does not match prep.json.
          FileNotFoundError: if the best model was stored in a checkpoint that no longer exists.
          OSError: if a shard or a file of this checkpoint is missing or cannot be read.
          jax.errors.JaxRuntimeError: if a device fails or runs out of memory, or another process is lost.
        """

    def write_models(self, directories: Sequence[str], progress: RunProgress) -> None:
        """Writes `checkpoints/best` and `metrics.jsonl` of each replica to its directory.

        Older ones are replaced. If tensorboardX is installed, stacked replicas also write `tensorboard/`.
        Every process must call this function.

        Args:
          directories: one directory for each different replica, in their order. A replica that is repeated
            to fill the devices has only one.
          progress: its `trackers` have the step and the temperature of the best model.

        Raises:
          ValueError: if an existing `metrics.jsonl` or the file of a fold is invalid.
          OSError: if a file cannot be written, or the file of a fold is missing or cannot be read.
          jax.errors.JaxRuntimeError: if a device fails or another process is lost.
        """
