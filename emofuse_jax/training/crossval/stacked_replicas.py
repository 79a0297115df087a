"""A group of replicas whose states are stacked; their clips are resident on the devices."""

import dataclasses
from collections.abc import Sequence
from typing import TypedDict, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, PyTree

from emofuse_jax.data.resident import row_numbers
from emofuse_jax.data.sampler import Sampler
from emofuse_jax.parallel.distributed import is_first_process
from emofuse_jax.parallel.mesh import broadcast_decision, put_with_sharding, replica_mesh, replicated, to_host
from emofuse_jax.scoring.predict import Predictions
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.checkpoint.metadata import CheckpointMetadata, TrackerFields
from emofuse_jax.training.crossval.context import (
    CrossvalContext,
    put_replicas,
    stack_trees,
    take_replica,
)
from emofuse_jax.training.crossval.replica_packing import CROSSVAL_MEMORY_HINT, estimate_device_bytes
from emofuse_jax.training.crossval.replicas import replica_sharding, select_better
from emofuse_jax.training.early_stopping import EarlyStoppingTracker
from emofuse_jax.training.experiment import Experiment, make_experiment_sampler, make_metadata
from emofuse_jax.training.fusion_state import get_fusion_state
from emofuse_jax.training.metric_writer import MetricWriter
from emofuse_jax.training.nan_guard import are_replicas_finite
from emofuse_jax.training.optimizer import evaluation_params, make_optimizer
from emofuse_jax.training.replica_set import EpochScores, HostSums, ReplicaId, RunProgress, TracedReplica
from emofuse_jax.training.step import EpochSums, StepMetrics
from emofuse_jax.types import Params
from emofuse_jax.utils.files import JsonValue

GROUP_CHECKPOINT = "replicas"
"""Name of the checkpoint of a group, below `checkpoints/`."""


EpochPlan = tuple[Int[np.ndarray, "*r k b"], Bool[np.ndarray, "*r k"]]
"""Rows of the resident clips for the k steps of an epoch, and a mask of the steps: False changes nothing."""


class GroupMetadata(TypedDict):
    """Metadata of a saved replica group."""

    runs: Sequence[Sequence[int]]
    """Fold, seed and, in a sweep, trial of each replica."""
    epochs: int
    """Number of finished epochs."""
    steps: int
    """Number of steps taken in the current epoch."""
    sums: dict[str, list[JsonValue]] | None
    """Sums of `loss` and `confusion` over these steps, for each replica; None before the first step."""
    trackers: list[TrackerFields]
    """Best validation result of each replica."""
    histories: list[list[EpochScores]]
    """Rows of the epochs of each replica."""


class StackedReplicas:
    """A `ReplicaSet` whose training states are stacked along the first axis, one or several on each device.

    The replicas of a device run in parallel (vmapped) or one after the other (looped), as the programs of
    `context` say. The last replica is repeated if they do not fill the devices. The best models stay on the
    devices until the group is trained; `checkpoints/replicas` in the workdir holds everything to resume.
    """

    stores_every_epoch = False
    memory_hint = CROSSVAL_MEMORY_HINT

    def __init__(self, context: CrossvalContext, replica_ids: list[ReplicaId], workdir: str) -> None:
        """Creates the samplers of the replicas; `restore_or_init` creates their states.

        Args:
          context: data and programs of the cross-validation, with the experiment of each replica.
          replica_ids: fold, seed and, in a sweep, trial of each replica; a multiple of the devices.
          workdir: directory of the cross-validation, for `checkpoints/replicas`.

        Raises:
          ValueError: if a replica has fewer training clips than one batch, or if `config.data.batch_size` or
            a field of the sampler (`seed`, `balanced`, `labelled_share`) is invalid.
        """
        self.context, self.config, self.replica_ids = context, context.config, replica_ids
        self.experiments = [context.experiments[replica_id] for replica_id in replica_ids]
        self._workdir, self.save_seconds = workdir, context.config.crossval.save_seconds
        self.epoch_steps = [context.count_epoch_steps(replica_id) for replica_id in replica_ids]
        # of all replicas of the context, so that all groups have programs of the same shape
        self.steps_per_epoch = context.max_epoch_steps
        self.steps_per_call = self.steps_per_epoch if context.is_vmapped else 1
        self._epoch_plan: tuple[int, EpochPlan] | None = None
        self._samplers = [make_experiment_sampler(experiment) for experiment in self.experiments]

    def restore_or_init(self) -> RunProgress:
        """Restores the saved group, or initialises a new one if no group with these replicas is saved.

        Sets `states`, `best_model` and `histories`. A saved group of other replicas is removed.

        Returns:
          The progress: `trackers` (best validation result of each replica), `finished_epochs`, and of the
          unfinished epoch `epoch_step` (number of steps) and `epoch_sums` (of `loss` [r] and `confusion`
          [r c c] over these steps for r replicas; None before the first step).

        Raises:
          TypeError, AttributeError: if a field in the metadata of the saved group is damaged.
          ValueError: if the saved group is damaged, if a warm start (`config.init`), the input statistics,
            the file of a fold or a field of `config.optimizer` is invalid, or if the devices cannot share the
            replicas equally.
          FileNotFoundError: if the workdir of a warm start has no checkpoint, or the file of a fold no longer
            exists.
          OSError: if a file cannot be read or removed.
          jax.errors.JaxRuntimeError: if a device fails or runs out of memory.
        """
        context, replica_ids = self.context, self.replica_ids
        metadata = cast(
            GroupMetadata | None, store.read_json_metadata(self._workdir, GROUP_CHECKPOINT, missing_ok=True)
        )
        if metadata is not None:
            store.require_metadata_fields(self._workdir, GROUP_CHECKPOINT, metadata, ("runs",))
        is_same = metadata is None or [tuple(replica_id) for replica_id in metadata["runs"]] == replica_ids
        # The saved group can be a finished one. All processes decide first: none may read a removed file.
        if not broadcast_decision(is_same):
            remove_group_checkpoint(self._workdir)
            metadata = None
        self._inputs = put_replicas(context, context.make_replica_inputs(replica_ids))
        self.states = put_replicas(context, context.make_initial_states(replica_ids))
        self.best_model = jax.tree.map(jnp.copy, self._current_model())
        self.histories: list[list[EpochScores]] = [[] for _ in replica_ids]
        if metadata is None:
            return RunProgress([EarlyStoppingTracker() for _ in replica_ids])
        needed_fields = tuple(GroupMetadata.__annotations__)
        store.require_metadata_fields(self._workdir, GROUP_CHECKPOINT, metadata, needed_fields)
        trees = self._checkpoint_items()
        sharding = replica_sharding(context.mesh)
        abstract_trees = store.abstract_like(trees, jax.tree.map(lambda _: sharding, trees))
        items = store.restore_items(self._workdir, GROUP_CHECKPOINT, abstract_trees)
        self.states, self.histories = items["states"], metadata["histories"]
        self.best_model = (items["best"]["params"], items["best"]["model_state"])
        progress = RunProgress(
            [EarlyStoppingTracker(**tracker) for tracker in metadata["trackers"]],
            finished_epochs=metadata["epochs"],
        )
        if metadata["steps"] and metadata["sums"] is not None:  # saved within an epoch
            sums = {name: np.asarray(value, np.float32) for name, value in metadata["sums"].items()}
            progress.epoch_step, progress.epoch_sums = metadata["steps"], put_replicas(context, sums)
        return progress

    def prepare(self, progress: RunProgress) -> None:
        """Does nothing: all groups share the data and the programs of their context."""

    def program_bytes(self) -> int:
        """Returns the bytes that a device needs for the data, the training program and the best parameters.

        Raises:
          ValueError: if a warm start or a field of the config is invalid.
          FileNotFoundError: if the workdir of a warm start has no checkpoint, or the file of a fold no longer
            exists.
          OSError: if a file of a warm start or of a fold cannot be read.
        """
        replicas_per_device = (
            len(self.replica_ids) // self.context.mesh.size if self.context.is_vmapped else 1
        )
        return estimate_device_bytes(self.context, replicas_per_device)

    def train_steps(
        self, progress: RunProgress, active: Sequence[bool], step_count: int
    ) -> tuple[EpochSums, StepMetrics]:
        """Trains the active replicas on their next batches; changes `states`.

        A replica with a shorter epoch than the longest one does nothing in the steps beyond its own.

        Args:
          progress: position in the run (`finished_epochs` and `epoch_step`); it is not changed.
          active: False for each replica whose state must not change; read only at the first step of an epoch.
          step_count: number of steps, at most the attribute `steps_per_call`.

        Returns:
          A tuple: the sums over the steps for the r replicas, a dict of `loss` [r] and `confusion` [r c c] on
          the devices; and an empty dict, because there are no metrics of single steps.

        Raises:
          ValueError: on the first call, if a field of a config is invalid or does not fit the model or the
            clips.
          jax.errors.JaxRuntimeError: if a device fails or runs out of memory, or another process is lost.
        """
        rows, step_mask = self._get_epoch_plan(progress.finished_epochs, active)
        step_slice = slice(progress.epoch_step, progress.epoch_step + step_count)
        inputs = put_replicas(self.context, (rows[:, step_slice], step_mask[:, step_slice]))
        self.states, sums = self.context.train_steps(self.context.data, self.states, self._inputs, *inputs)
        return sums, {}

    def _get_epoch_plan(self, epoch: int, active: Sequence[bool]) -> EpochPlan:
        """Returns the plan of an epoch for all r replicas, as NumPy arrays; computes it when an epoch begins.

        It is a tuple: the rows of the resident clips, int32 [r k b], for the k steps of the longest epoch;
        and a mask of the steps, bool [r k], False for steps beyond a replica's epoch and for inactive
        replicas. `epoch` is the number of finished epochs. `active` is ignored if the plan of this epoch
        exists.

        Raises:
          ValueError: if a replica of the context has fewer training clips than one batch.
        """
        if self._epoch_plan is None or self._epoch_plan[0] != epoch:
            plans = [
                plan_epoch(self.context, replica_id, sampler, is_active, epoch)
                for replica_id, sampler, is_active in zip(
                    self.replica_ids, self._samplers, active, strict=True
                )
            ]
            rows, step_mask = (np.stack(arrays) for arrays in zip(*plans, strict=True))
            self._epoch_plan = (epoch, (rows, step_mask))
        return self._epoch_plan[1]

    def log_steps(self, step: int, step_metrics: StepMetrics) -> None:
        """Does nothing: a cross-validation has no log of single steps."""

    def fetch_sums(self, sums: EpochSums) -> HostSums:
        """Returns the sums of all r replicas as NumPy arrays: a dict of `loss` [r] and `confusion` [r c c].

        Every process gets all of them, and must call this function.
        """
        return to_host(sums)

    def have_finite_params(self) -> Bool[np.ndarray, " r"]:
        """Returns bool [r]: True for each of r replicas whose parameters are all finite.

        Every process must call this function.
        """
        return to_host(are_replicas_finite(self.states.params))

    def predict_validation(self) -> list[Predictions]:
        """Predicts the validation clips of each replica with its current model.

        The parameters are the averaged ones if averaging is enabled.

        Returns:
          One Predictions per replica, with NumPy arrays that have a row for each of n clips: `clips` (record
          indices), `labels` (-1 without a label), `speakers` (indices), `probabilities` [n c] and `levels`
          [n m c] (of the m levels of the fusion; None without levels). Its `loss` is the mean cross-entropy
          of the labelled clips.

        Raises:
          ValueError: if no replica has validation clips.
          jax.errors.JaxRuntimeError: if a device fails or runs out of memory, or another process is lost.
        """
        return predict_split(self.context, self.replica_ids, self._current_model(), "validation")

    def predict_test(self) -> list[Predictions]:
        """Predicts the test clips of each replica with its best model (the initial one before any epoch).

        Returns:
          One Predictions per replica, with NumPy arrays that have a row for each of n clips: `clips` (record
          indices), `labels` (-1 without a label), `speakers` (indices), `probabilities` [n c] and `levels`
          [n m c] (of the m levels of the fusion; None without levels). Its `loss` is the mean cross-entropy
          of the labelled clips.

        Raises:
          ValueError: if no replica has test clips.
          jax.errors.JaxRuntimeError: if a device fails or runs out of memory, or another process is lost.
        """
        return predict_split(self.context, self.replica_ids, self.best_model, "test")

    def read_histories(self) -> list[list[EpochScores]]:
        """Returns the rows of all epochs of each replica, dicts with `step`, `epoch` and the scores."""
        return self.histories

    def write_models(self, directories: Sequence[str], progress: RunProgress) -> None:
        """Writes `checkpoints/best` and `metrics.jsonl` of each replica to its directory.

        Older files are replaced; an older `metrics.jsonl` is read before. If tensorboardX is installed, also
        writes `tensorboard/`. Every process must call this function.

        Args:
          directories: one directory for each different replica, in their order. A replica that is repeated
            to fill the devices has only one.
          progress: its `trackers` have the step and the temperature of the best model.

        Raises:
          ValueError: if an existing `metrics.jsonl` or the file of a fold is invalid.
          OSError: if a file cannot be written, or the file of a fold is missing or cannot be read.
          jax.errors.JaxRuntimeError: if a device fails or another process is lost.
        """
        best_model = to_host(self.best_model)
        for i, directory in enumerate(directories):
            model = put_with_sharding(take_replica(best_model, i), replicated(self.context.mesh))
            _write_model(self.experiments[i], progress.trackers[i], self.histories[i], model, directory)

    def get_fusion_states(self) -> list[PyTree]:
        """Returns the fusion's part of the model state of each replica: one tree of NumPy arrays per replica.

        Raises:
          ValueError: if the model state has no part of the fusion.
        """
        fusion_states = to_host(get_fusion_state(self.states.model_state))
        return [take_replica(fusion_states, i) for i in range(len(self.replica_ids))]

    def set_fusion_states(self, fusion_states: list[PyTree]) -> None:
        """Replaces the fusion's part of the model state of each replica.

        `fusion_states` has one tree of arrays per replica, with the names, shapes and dtypes of those of
        `get_fusion_states`; every process must pass the same arrays.

        Raises:
          ValueError: if the trees differ in structure or shapes, or the devices cannot share them equally.
        """
        fusion_state = put_replicas(self.context, stack_trees(fusion_states))
        model_state = self.states.model_state | {"fusion": fusion_state}
        self.states = dataclasses.replace(self.states, model_state=model_state)

    def record_epoch(
        self, i: int, step: int, row: EpochScores, confusion: Int[np.ndarray, "c c"] | None
    ) -> None:
        """Adds `{"step": step, **row}` to the history of replica `i`, a position in `replica_ids`.

        `step` is the number of steps of this replica since the start; `row` has numbers by name, such as
        `epoch`, `train_loss` and `validation_ua`. `confusion` is not used.
        """
        self.histories[i].append({"step": step, **row})

    def measure_epoch(self, seconds: float) -> EpochScores:
        """Returns an empty dict: the replicas of a group share the time."""
        return {}

    def keep_best(self, progress: RunProgress, is_best: Bool[np.ndarray, " r"]) -> None:
        """Copies the current model of each replica with `is_best` [r] True to `best_model`, on the devices.

        `progress` is not used.
        """
        self.best_model = _select_better(
            put_replicas(self.context, is_best), self._current_model(), self.best_model
        )

    def save(self, progress: RunProgress) -> None:
        """Writes `checkpoints/replicas`, from which `restore_or_init` resumes; removes the previous one then.

        It has the states and the best models, and as metadata the replica ids, `progress` (without its
        `epoch_start_time`) and the histories. Every process must call this function.

        Raises:
          OSError: if the checkpoint cannot be written.
          jax.errors.JaxRuntimeError: if a device fails or another process is lost.
        """
        sums = None if progress.epoch_sums is None else to_host(progress.epoch_sums)
        metadata: GroupMetadata = {
            "runs": self.replica_ids,
            "epochs": progress.finished_epochs,
            "steps": progress.epoch_step,
            "sums": None if sums is None else {name: value.tolist() for name, value in sums.items()},
            "trackers": [tracker.to_json() for tracker in progress.trackers],
            "histories": self.histories,
        }
        step = progress.steps_taken(self.steps_per_epoch)
        store.save_items(self._workdir, GROUP_CHECKPOINT, step, self._checkpoint_items(), metadata)

    def close(self, progress: RunProgress) -> None:
        """Does nothing: no files are open."""

    def take_replica(self, replica_id: ReplicaId) -> TracedReplica:
        """Returns one replica with its current state and a mesh of one device, to repeat its steps.

        The result has its `experiment`, its `state` (of NumPy arrays), its optimizer (`tx`) and the `mesh`.
        After `restore_or_init`, the state is that of the last save.

        Raises:
          ValueError: if there are several processes, or if the group has no replica `replica_id`.
          KeyError: if the context has no such replica either.
        """
        if jax.process_count() > 1:
            fold, seed = replica_id[:2]
            raise ValueError(
                f"fold {fold}, seed {seed}: several processes cannot repeat the steps of a replica to find"
                f" the first value that is not finite; run emofuse train with config.data.fold={fold} and"
                f" config.seed={seed} in one process"
            )
        experiment = self.context.experiments[replica_id]
        i = self.replica_ids.index(replica_id)
        tx = make_optimizer(experiment.config.optimizer, experiment.config.train.epochs * self.epoch_steps[i])
        return TracedReplica(experiment, take_replica(to_host(self.states), i), tx, replica_mesh(1))

    def _current_model(self) -> tuple[Params, Params]:
        """Returns a tuple of the parameters and the model states, stacked over the replicas, on the devices.

        The parameters are the averaged ones if averaging is enabled.
        """
        params = evaluation_params(self.states.params, self.states.opt_state)
        return params, self.states.model_state

    def _checkpoint_items(self) -> dict[str, PyTree]:
        best_params, best_model_state = self.best_model
        return {
            "states": self.states,
            "best": {"params": best_params, "model_state": best_model_state},
        }


_select_better = jax.jit(select_better, donate_argnums=2)


def _write_model(
    experiment: Experiment,
    tracker: EarlyStoppingTracker,
    history: Sequence[EpochScores],
    model: tuple[Params, Params],
    directory: str,
) -> None:
    """Writes `checkpoints/best` and `metrics.jsonl` of a trained replica to `directory`.

    Older files are replaced; an older `metrics.jsonl` is read before. If tensorboardX is installed, also
    writes `tensorboard/`. Every process must call this function.

    Args:
      experiment: experiment of the replica.
      tracker: has the step and the temperature of its best epoch.
      history: one dict of numbers per epoch: `step`, `epoch`, `train_loss` and so on.
      model: (params, model_state) of its best epoch, nested dicts of arrays on the devices.
      directory: output directory.

    Raises:
      OSError: if the files cannot be written, or the file of the fold is missing or cannot be read.
      ValueError: if an existing `metrics.jsonl` or the file of the fold is invalid.
      jax.errors.JaxRuntimeError: if a device fails or another process is lost.
    """
    replica_metadata: CheckpointMetadata = {
        **make_metadata(experiment),
        "step": tracker.best_step,
        "temperature": tracker.temperature,
    }
    store.save_model(directory, *model, replica_metadata)
    writer = MetricWriter(directory, resume_step=0, active=is_first_process())
    for row in history:
        writer.write(
            int(row["step"]), "epoch", {name: value for name, value in row.items() if name != "step"}
        )
    writer.close()


def plan_epoch(
    context: CrossvalContext, replica_id: ReplicaId, sampler: Sampler, is_active: bool, epoch: int
) -> EpochPlan:
    """Plans the batches of one replica in an epoch; `epoch` is the number of finished epochs.

    Returns:
      A tuple of NumPy arrays for k steps, those of the longest epoch of all replicas: the rows of the
      resident clips of each batch, int32 [k b], and a mask of the steps, bool [k]. The mask is False, and the
      rows are 0, for steps beyond the replica's epoch, and for all steps if `is_active` is False.

    Raises:
      ValueError: if a replica of the context has fewer training clips than one batch.
    """
    rows = np.zeros((context.max_epoch_steps, context.config.data.batch_size), np.int32)
    step_mask = np.zeros(context.max_epoch_steps, bool)
    steps = context.count_epoch_steps(replica_id)
    if is_active:
        clip_indices = np.stack([sampler.batch(epoch * steps + i) for i in range(steps)])
        rows[:steps], step_mask[:steps] = row_numbers(context.clips, clip_indices), True
    return rows, step_mask


def predict_split(
    context: CrossvalContext, replica_ids: list[ReplicaId], model: tuple[Params, Params], split: str
) -> list[Predictions]:
    """Predicts the clips of one split of each replica's fold.

    Args:
      context: data and programs of the cross-validation.
      replica_ids: replicas to predict with.
      model: (params, model_state), nested dicts of arrays on the devices whose first axis has the replicas.
      split: `train`, `validation` or `test`.

    Returns:
      One Predictions per replica, with NumPy arrays that have a row for each of the n clips of its split, in
      their order: `clips` (record indices), `labels` (-1 without a label), `speakers` (indices),
      `probabilities` [n c] and `levels` [n m c] (of the m levels of the fusion; None without levels). Its
      `loss` is the mean cross-entropy of the labelled clips.

    Raises:
      ValueError: if no replica has clips in this split, or if the devices cannot share the replicas equally.
      jax.errors.JaxRuntimeError: if a device fails or runs out of memory, or another process is lost.
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
    loss, weight = (sum(outputs[name] for outputs in batch_outputs) for name in ("loss", "weight"))
    probabilities = _join_batches([outputs["probabilities"] for outputs in batch_outputs])
    has_levels = batch_outputs[0]["levels"] is not None
    levels = _join_batches([outputs["levels"] for outputs in batch_outputs]) if has_levels else None
    return [
        _take_predictions(
            context,
            context.experiments[replica_id].clips[split],
            probabilities[i],
            None if levels is None else levels[i],
            float(loss[i] / max(weight[i], 1.0)),
        )
        for i, replica_id in enumerate(replica_ids)
    ]


def _join_batches(arrays: list[Float[np.ndarray, "r k b *s"]]) -> Float[np.ndarray, "r n *s"]:
    """Returns the rows of all batches along one axis, for each of r replicas.

    Each array has the outputs of one call: k batches of b rows, with any further axes s. The result has the n
    rows of all calls in order, padded rows included.
    """
    joined = np.concatenate(arrays, axis=1)
    return joined.reshape(len(joined), -1, *joined.shape[3:])


def _take_predictions(
    context: CrossvalContext,
    clips: Int[np.ndarray, " n"],
    probabilities: Float[np.ndarray, "m c"],
    levels: Float[np.ndarray, "m l c"] | None,
    loss: float,
) -> Predictions:
    """Returns the Predictions of one replica for n clips, without padded rows.

    Args:
      context: context with the labels and speakers of the clips.
      clips: record indices.
      probabilities: probabilities of c classes; the first n of the m rows are those of `clips`, others
        padded.
      levels: probabilities of each of l levels of the fusion, with the same rows; None without levels.
      loss: mean cross-entropy of the labelled clips.
    """
    rows = row_numbers(context.clips, clips)
    return Predictions(
        clips=clips,
        labels=context.labels[rows],
        speakers=context.speakers[rows],
        probabilities=probabilities[: len(clips)],
        loss=loss,
        levels=None if levels is None else levels[: len(clips)],
    )


def remove_group_checkpoint(workdir: str) -> None:
    """Removes `checkpoints/replicas`, if it exists; every process waits until it is removed.

    Raises:
      OSError: in the first process, if the directory cannot be removed.
    """
    if is_first_process():
        store.remove(workdir, GROUP_CHECKPOINT)
    broadcast_decision(True)
