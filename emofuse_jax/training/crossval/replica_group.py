"""Creates, saves and restores the state of a replica group."""

import dataclasses
from collections.abc import Sequence
from typing import TypedDict, cast

import jax
import jax.numpy as jnp
import numpy as np

from emofuse_jax.data.sampler import Sampler
from emofuse_jax.parallel.distributed import is_first_process
from emofuse_jax.parallel.mesh import broadcast_decision, to_host
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.checkpoint.metadata import TrackerFields
from emofuse_jax.training.crossval.context import CrossvalContext, ReplicaId, put_replicas
from emofuse_jax.training.crossval.replicas import ReplicaInputs, replica_sharding
from emofuse_jax.training.early_stopping import EarlyStoppingTracker
from emofuse_jax.training.experiment import make_experiment_sampler
from emofuse_jax.training.optimizer import evaluation_params
from emofuse_jax.training.step import EpochSums
from emofuse_jax.types import Params, TrainState
from emofuse_jax.utils.files import JsonValue

EpochScores = dict[str, float]
"""Row of an epoch: `step`, `epoch`, and scores (scoring/result_types.py, EpochRow)."""


class GroupMetadata(TypedDict):
    """Metadata of a saved replica group."""

    runs: Sequence[Sequence[int]]
    """Fold, seed and, in a sweep, trial of each replica."""
    epochs: int
    """Number of finished epochs."""
    steps: int
    """Number of steps taken in the current epoch."""
    sums: dict[str, list[JsonValue]] | None
    """Sums over these steps, for each replica; None before the first step."""
    trackers: list[TrackerFields]
    """Best validation result of each replica."""
    histories: list[list[EpochScores]]
    """Rows of the epochs of each replica."""


@dataclasses.dataclass
class ReplicaGroup:
    """Replicas in training; the last replica is repeated if they do not fill the devices."""

    replica_ids: list[ReplicaId]
    """Fold, seed and, in a sweep, trial of each replica."""
    replica_inputs: ReplicaInputs
    """Inputs that differ between the replicas, stacked."""
    samplers: list[Sampler]
    """Sampler of each replica."""
    states: TrainState
    """Training states, stacked."""
    best_model: tuple[Params, Params]
    """Parameters and model states of the best epoch of each replica, stacked."""
    trackers: list[EarlyStoppingTracker]
    """Best validation result of each replica."""
    histories: list[list[EpochScores]]
    """Rows of the epochs of each replica."""
    finished_epochs: int = 0
    """Number of finished epochs."""
    epoch_step: int = 0
    """Number of steps taken in the current epoch."""
    epoch_sums: EpochSums | None = None
    """Sums over these steps, on the devices; None before the first step."""


def count_steps_taken(context: CrossvalContext, group: ReplicaGroup) -> int:
    """Returns the number of steps since the start of the group; all epochs count as long as the longest one.

    Raises:
      ValueError: if a replica has fewer training clips than one batch, or `config.data.batch_size` is below
        1.
    """
    return group.finished_epochs * context.max_epoch_steps + group.epoch_step


def restore_or_init_group(
    context: CrossvalContext, replica_ids: list[ReplicaId], workdir: str
) -> ReplicaGroup:
    """Restores the saved group, or creates a new one if no group with these replicas is saved.

    A saved group of other replicas is removed.

    Args:
      context: data and programs of the cross-validation.
      replica_ids: replicas of the group.
      workdir: directory with the group checkpoint.

    Returns:
      The group: the inputs, samplers, training states, best models, trackers and histories of the replicas,
      and the number of finished epochs and steps.

    Raises:
      ValueError: if the saved group is damaged, a replica has fewer training clips than one batch, a warm
        start is invalid, or a field of the sampler or of the optimizer in a config is invalid.
      FileNotFoundError: if the workdir of a warm start has no checkpoint.
      OSError: if a file cannot be read or removed.
    """
    metadata = cast(GroupMetadata | None, store.read_json_metadata(workdir, "replicas", missing_ok=True))
    if metadata is not None:
        store.require_metadata_fields(workdir, "replicas", metadata, ("runs",))
    matches_saved = metadata is None or [tuple(replica_id) for replica_id in metadata["runs"]] == replica_ids
    # The saved group can be a finished one. All processes decide first, so that none reads a removed file.
    if not broadcast_decision(matches_saved):
        remove_group_checkpoint(workdir)
        metadata = None
    states = put_replicas(context, context.make_initial_states(replica_ids))
    best_model = jax.tree.map(
        jnp.copy, (evaluation_params(states.params, states.opt_state), states.model_state)
    )
    samplers = [make_experiment_sampler(context.experiments[replica_id]) for replica_id in replica_ids]
    inputs = put_replicas(context, context.make_replica_inputs(replica_ids))
    if metadata is None:
        return ReplicaGroup(
            replica_ids,
            inputs,
            samplers,
            states,
            best_model,
            [EarlyStoppingTracker() for _ in replica_ids],
            [[] for _ in replica_ids],
        )
    store.require_metadata_fields(workdir, "replicas", metadata, tuple(GroupMetadata.__annotations__))
    trees = {"states": states, "best": {"params": best_model[0], "model_state": best_model[1]}}
    abstract_trees = store.abstract_like(trees, jax.tree.map(lambda _: replica_sharding(context.mesh), trees))
    items = store.restore_items(workdir, "replicas", abstract_trees)
    trackers = [EarlyStoppingTracker(**tracker) for tracker in metadata["trackers"]]
    restored_best = (items["best"]["params"], items["best"]["model_state"])
    group = ReplicaGroup(
        replica_ids,
        inputs,
        samplers,
        items["states"],
        restored_best,
        trackers,
        metadata["histories"],
        metadata["epochs"],
    )
    saved_sums = metadata["sums"]
    if metadata["steps"] and saved_sums is not None:  # saved within an epoch
        sums = {name: np.asarray(value, np.float32) for name, value in saved_sums.items()}
        group.epoch_step, group.epoch_sums = metadata["steps"], put_replicas(context, sums)
    return group


def save_replica_group(context: CrossvalContext, group: ReplicaGroup, workdir: str) -> None:
    """Writes `checkpoints/replicas`, from which an interrupted group resumes.

    It has the training states and best models, and as metadata the replicas, the numbers of finished epochs
    and steps, the sums of the current epoch, the trackers and the histories.

    Raises:
      OSError: if the checkpoint cannot be written.
      jax.errors.JaxRuntimeError: if a device fails or another process of the run is lost.
    """
    metadata: GroupMetadata = {
        "runs": group.replica_ids,
        "epochs": group.finished_epochs,
        "steps": group.epoch_step,
        "sums": None
        if group.epoch_sums is None
        else {name: value.tolist() for name, value in to_host(group.epoch_sums).items()},
        "trackers": [tracker.to_json() for tracker in group.trackers],
        "histories": group.histories,
    }
    items = {
        "states": group.states,
        "best": dict(zip(("params", "model_state"), group.best_model, strict=True)),
    }
    store.save_items(workdir, "replicas", count_steps_taken(context, group), items, metadata)


def remove_group_checkpoint(workdir: str) -> None:
    """Removes `checkpoints/replicas`, if it exists; every process waits until it is removed.

    Raises:
      OSError: in the first process, if the directory cannot be removed.
    """
    if is_first_process():
        store.remove(workdir, "replicas")
    broadcast_decision(True)
