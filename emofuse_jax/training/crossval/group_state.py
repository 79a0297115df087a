"""A chunk of replicas as it stands: begun, saved, and restored to go on from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from emofuse_jax.data.sampler import Sampler
from emofuse_jax.parallel.distributed import is_first
from emofuse_jax.parallel.mesh import agreed, to_host
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.crossval.context import Job, Run, put
from emofuse_jax.training.crossval.replicas import Replica, stacked
from emofuse_jax.training.early_stopping import Tracker
from emofuse_jax.training.experiment import experiment_sampler
from emofuse_jax.training.optimizer import evaluation_params
from emofuse_jax.types import Params, TrainState


@dataclasses.dataclass
class Chunk:
    """Replicas in training; `runs` names them, the last one again where they do not fill the devices."""

    runs: list[Run]
    replicas: Replica
    samplers: list[Sampler]
    states: TrainState
    best: tuple[Params, Params]
    trackers: list[Tracker]
    histories: list[list[dict]]
    """Of each replica the rows of its epochs."""
    epochs: int = 0
    steps: int = 0
    """Taken of the epoch that they stand in."""
    sums: dict | None = None
    """Over these steps, left on the devices until the epoch's end."""


def position(job: Job, chunk: Chunk) -> int:
    """Steps taken since the chunk's start."""
    return chunk.epochs * job.steps + chunk.steps


def restore_or_init(job: Job, runs: list[Run], workdir: str) -> Chunk:
    """The chunk as it was saved, or its start."""
    about = store.read_metadata(workdir, "replicas", missing_ok=True)
    fits = about is None or [tuple(run) for run in about["runs"]] == runs
    if not agreed(fits):  # of a chunk that is finished; asked first, so that nobody reads what is removed
        forget_chunk(workdir)
        about = None
    states = put(job, job.first_states(runs))
    best = jax.tree.map(jnp.copy, (evaluation_params(states.params, states.opt_state), states.model_state))
    samplers = [experiment_sampler(job.experiments[run]) for run in runs]
    fixed = (runs, put(job, job.replicas(runs)), samplers)
    if about is None:
        return Chunk(*fixed, states, best, [Tracker() for _ in runs], [[] for _ in runs])
    trees = {"states": states, "best": {"params": best[0], "model_state": best[1]}}
    shapes = store.abstract_like(trees, jax.tree.map(lambda _: stacked(job.mesh), trees))
    items = store.restore_items(workdir, "replicas", shapes)
    trackers = [Tracker(**tracker) for tracker in about["trackers"]]
    found = (items["best"]["params"], items["best"]["model_state"])
    chunk = Chunk(*fixed, items["states"], found, trackers, about["histories"], about["epochs"])
    if about.get("steps"):  # of a save within an epoch
        sums = {name: np.asarray(value, np.float32) for name, value in about["sums"].items()}
        chunk.steps, chunk.sums = about["steps"], put(job, sums)
    return chunk


def save_chunk(job: Job, chunk: Chunk, workdir: str) -> None:
    """Writes all that `restore_or_init` needs to go on."""
    about = {
        "runs": chunk.runs,
        "epochs": chunk.epochs,
        "steps": chunk.steps,
        "sums": chunk.sums and {name: value.tolist() for name, value in to_host(chunk.sums).items()},
        "trackers": [dataclasses.asdict(tracker) for tracker in chunk.trackers],
        "histories": chunk.histories,
    }
    items = {"states": chunk.states, "best": dict(zip(("params", "model_state"), chunk.best, strict=True))}
    store.save_items(workdir, "replicas", position(job, chunk), items, about)


def forget_chunk(workdir: str) -> None:
    """Removes what `save_chunk` wrote; every process waits until it is gone."""
    if is_first():
        store.remove(workdir, "replicas")
    agreed(True)
