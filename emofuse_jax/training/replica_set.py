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
"""`EpochSums` as NumPy arrays, with one entry per replica."""


@dataclasses.dataclass
class RunProgress:
    """How far a set of replicas has been trained; saved in every checkpoint from which a run resumes."""

    trackers: list[EarlyStoppingTracker]
    """Best validation result of each replica."""
    finished_epochs: int = 0
    epoch_step: int = 0
    """Number of steps taken in the current epoch."""
    epoch_sums: EpochSums | None = None
    """Sums over these steps, on the devices; None before the first step."""
    epoch_start_time: float = dataclasses.field(default_factory=time.monotonic)
    """Time at which the epoch began or was resumed, in seconds (`time.monotonic`)."""

    def add(self, sums: EpochSums, step_count: int) -> None:
        """Adds the sums over `step_count` steps to those of the epoch."""
        self.epoch_sums = sums if self.epoch_sums is None else jax.tree.map(_add, self.epoch_sums, sums)
        self.epoch_step += step_count
        if jax.default_backend() == "cpu":  # queued steps keep their memory; fake devices can deadlock
            jax.block_until_ready(self.epoch_sums)

    def finish_epoch(self) -> None:
        """Counts the epoch as finished, and starts the next one without sums."""
        self.finished_epochs, self.epoch_step, self.epoch_sums = self.finished_epochs + 1, 0, None
        self.epoch_start_time = time.monotonic()

    def steps_taken(self, steps_per_epoch: int) -> int:
        """Returns the number of steps since the start of the run, for epochs of `steps_per_epoch` steps."""
        return self.finished_epochs * steps_per_epoch + min(self.epoch_step, steps_per_epoch)


def _add(a: jax.Array, b: jax.Array) -> jax.Array:
    return a + b


class ReplicaSet(Protocol):
    """Replicas that the engine trains together."""

    config: ConfigDict
    """Config of the first replica; the engine uses only fields that all replicas share."""
    save_seconds: float
    """Minimum time between two saves at the end of an epoch; 0 saves after every epoch."""
    stores_every_epoch: bool
    """True if the model of every epoch is stored and can be exported; False if only the best one is."""
    memory_hint: str
    """Advice for the message if a device runs out of memory."""

    @property
    def replica_ids(self) -> Sequence[ReplicaId]:
        """Fold, seed and, in a sweep, trial of each replica; empty tuples in `emofuse train`."""

    @property
    def epoch_steps(self) -> Sequence[int]:
        """Number of steps in an epoch of each replica."""

    @property
    def steps_per_call(self) -> int:
        """Maximum number of steps per call of `train_steps`; known after `prepare`."""

    def restore_or_init(self) -> RunProgress:
        """Restores the saved states, or initialises new ones; returns how far they have been trained.

        Raises:
          ValueError: if the saved states are damaged or belong to another run, or if a warm start is invalid.
          FileNotFoundError: if the workdir of a warm start has no checkpoint.
          OSError: if a file cannot be read or removed.
        """

    def prepare(self, progress: RunProgress) -> None:
        """Makes everything ready that training needs and `restore_or_init` does not, such as programs.

        Raises:
          ValueError: if a field of the config is invalid, or a record is damaged.
          OSError: if a file cannot be read or written.
        """

    def program_bytes(self) -> int:
        """Returns the bytes that the training program needs on each device."""

    def train_steps(
        self, progress: RunProgress, active: Sequence[bool], step_count: int
    ) -> tuple[EpochSums, StepMetrics]:
        """Trains the active replicas on the next `step_count` batches of the epoch; changes their states.

        Returns:
          The sums of `loss` and `confusion` over the steps, on the devices; and the metrics of the last step,
          or an empty dict if these replicas have no log of single steps.

        Raises:
          DamagedRecordError, OSError: if a record or file is damaged.
        """

    def log_steps(self, step: int, step_metrics: StepMetrics) -> None:
        """Writes the metrics of step number `step` to the log of the replica.

        Raises:
          NonFiniteError: if the loss is NaN or infinite (a ValueError).
          OSError: if the file cannot be written.
        """

    def fetch_sums(self, sums: EpochSums) -> HostSums:
        """Returns the sums as NumPy arrays with one entry per replica."""

    def have_finite_params(self) -> Bool[np.ndarray, " r"]:
        """Returns bool [r]: True for each replica whose parameters are all finite."""

    def predict_validation(self) -> list[Predictions]:
        """Predicts the validation clips of each replica, with averaged parameters if averaging is enabled.

        Raises:
          DamagedRecordError, OSError: if a record or file is damaged.
        """

    def get_fusion_states(self) -> list[PyTree]:
        """Returns the fusion's part of the model state of each replica, as NumPy arrays."""

    def set_fusion_states(self, fusion_states: list[PyTree]) -> None:
        """Replaces the fusion's part of the model state of each replica."""

    def record_epoch(
        self, i: int, step: int, row: EpochScores, confusion: Int[np.ndarray, "c c"] | None
    ) -> None:
        """Stores the row of an epoch of replica `i`; `confusion` is of its validation clips.

        Raises:
          OSError: if a file cannot be written.
        """

    def measure_epoch(self, seconds: float) -> EpochScores:
        """Returns fields for the row of an epoch that took `seconds`, such as its clips per second."""

    def keep_best(self, progress: RunProgress, is_best: Bool[np.ndarray, " r"]) -> None:
        """Stores the models of those replicas whose epoch is the best so far.

        Raises:
          OSError: if a file cannot be written.
        """

    def save(self, progress: RunProgress) -> None:
        """Saves everything from which `restore_or_init` resumes.

        Raises:
          OSError: if a file cannot be written.
        """

    def take_replica(self, replica_id: ReplicaId) -> "TracedReplica":
        """Returns one replica at the last save, after `restore_or_init`, to repeat its steps.

        Raises:
          ValueError: if this is not possible.
        """


@dataclasses.dataclass(frozen=True)
class TracedReplica:
    """A replica whose steps are repeated to find the first value that is not finite."""

    experiment: Experiment
    state: TrainState
    tx: optax.GradientTransformation
    mesh: Mesh
