"""The state of a replica group: begun, saved, and restored to go on from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from emofuse_jax.data.sampler import Sampler
from emofuse_jax.parallel.distributed import is_first_process
from emofuse_jax.parallel.mesh import broadcast_decision, to_host
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.crossval.context import CrossvalContext, ReplicaId, put_replicas
from emofuse_jax.training.crossval.replicas import ReplicaInputs, replica_sharding
from emofuse_jax.training.early_stopping import EarlyStoppingTracker
from emofuse_jax.training.experiment import make_experiment_sampler
from emofuse_jax.training.optimizer import evaluation_params
from emofuse_jax.types import Params, TrainState


@dataclasses.dataclass
class ReplicaGroup:
    """Replicas in training; `replica_ids` names them, the last one again where they do not fill the
    devices."""

    replica_ids: list[ReplicaId]
    replica_inputs: ReplicaInputs
    samplers: list[Sampler]
    states: TrainState
    best_model: tuple[Params, Params]
    trackers: list[EarlyStoppingTracker]
    histories: list[list[dict]]
    """Of each replica the rows of its epochs."""
    epochs: int = 0
    steps: int = 0
    """Taken of the epoch that they stand in."""
    epoch_sums: dict | None = None
    """Over these steps, left on the devices until the epoch's end."""


def count_steps_taken(context: CrossvalContext, group: ReplicaGroup) -> int:
    """Returns the steps taken since the group's start."""
    return group.epochs * context.steps + group.steps


def restore_or_init_group(
    context: CrossvalContext, replica_ids: list[ReplicaId], workdir: str
) -> ReplicaGroup:
    """Restores the group as it was saved, or begins it."""
    metadata = store.read_metadata(workdir, "replicas", missing_ok=True)
    matches_saved = metadata is None or [tuple(replica_id) for replica_id in metadata["runs"]] == replica_ids
    # What is saved may be of a finished group; all decide before, so that no process reads what is removed.
    if not broadcast_decision(matches_saved):
        remove_group_checkpoint(workdir)
        metadata = None
    states = put_replicas(context, context.make_initial_states(replica_ids))
    best_model = jax.tree.map(
        jnp.copy, (evaluation_params(states.params, states.opt_state), states.model_state)
    )
    samplers = [make_experiment_sampler(context.experiments[replica_id]) for replica_id in replica_ids]
    fixed_fields = (replica_ids, put_replicas(context, context.make_replica_inputs(replica_ids)), samplers)
    if metadata is None:
        return ReplicaGroup(
            *fixed_fields,
            states,
            best_model,
            [EarlyStoppingTracker() for _ in replica_ids],
            [[] for _ in replica_ids],
        )
    trees = {"states": states, "best": {"params": best_model[0], "model_state": best_model[1]}}
    abstract_trees = store.abstract_like(trees, jax.tree.map(lambda _: replica_sharding(context.mesh), trees))
    items = store.restore_items(workdir, "replicas", abstract_trees)
    trackers = [EarlyStoppingTracker(**tracker) for tracker in metadata["trackers"]]
    restored_best = (items["best"]["params"], items["best"]["model_state"])
    group = ReplicaGroup(
        *fixed_fields, items["states"], restored_best, trackers, metadata["histories"], metadata["epochs"]
    )
    if metadata["steps"]:  # of a save within an epoch
        sums = {name: np.asarray(value, np.float32) for name, value in metadata["sums"].items()}
        group.steps, group.epoch_sums = metadata["steps"], put_replicas(context, sums)
    return group


def save_replica_group(context: CrossvalContext, group: ReplicaGroup, workdir: str) -> None:
    """Writes all that `restore_or_init_group` needs to go on."""
    metadata = {
        "runs": group.replica_ids,
        "epochs": group.epochs,
        "steps": group.steps,
        "sums": group.epoch_sums
        and {name: value.tolist() for name, value in to_host(group.epoch_sums).items()},
        "trackers": [dataclasses.asdict(tracker) for tracker in group.trackers],
        "histories": group.histories,
    }
    items = {
        "states": group.states,
        "best": dict(zip(("params", "model_state"), group.best_model, strict=True)),
    }
    store.save_items(workdir, "replicas", count_steps_taken(context, group), items, metadata)


def remove_group_checkpoint(workdir: str) -> None:
    """Removes what `save_replica_group` wrote; every process waits until it is gone."""
    if is_first_process():
        store.remove(workdir, "replicas")
    broadcast_decision(True)
