"""A loss that is not a number: finds the first step, its clips, and the first value that was not finite."""

import math
import os

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from emofuse_jax.train.blame import first_not_finite
from emofuse_jax.train.distributed import is_first
from emofuse_jax.train.experiment import Experiment
from emofuse_jax.train.feed import make_batches, make_spare
from emofuse_jax.train.sharding import put_batch, to_host
from emofuse_jax.train.step import make_train_step
from emofuse_jax.train.writer import write_json
from emofuse_jax.types import Params, TrainState

REPORT = "nonfinite.json"


class NotFinite(ValueError):
    """The loss, or a parameter, is not a number any more at a step."""

    def __init__(self, words: str, step: int):
        super().__init__(words)
        self.step = step


def check_finite(step: int, loss: float, where: str = "") -> None:
    """NotFinite where the loss is not a number; nothing is saved after it."""
    if not math.isfinite(loss):
        words = f"{where}step {step}: the loss is {loss}; a lower optimizer.learning_rate may help"
        raise NotFinite(words, step)


def explain(experiment: Experiment, state: TrainState, tx, mesh: Mesh, until: int, workdir: str) -> str:
    """Takes the steps from `state` up to step `until` again, and stops at the first that is not finite.

    Writes `nonfinite.json` under `workdir`: the step, the loss, the ids of its clips, and which value first
    was not finite (of one process alone: of several nobody holds all values). Gives it in words.
    """
    step = make_train_step(experiment.model, tx, experiment.config)
    jitted, first = jax.jit(step), int(state.step)
    batches = make_batches(experiment, make_spare(experiment), start=first)
    for number in range(first, until):
        batch = put_batch(next(batches), mesh)
        after, measured = jitted(state, batch)
        if math.isfinite(float(measured["loss"])) and all_finite(after.params):
            state = after
            continue
        clips = to_host({"clip": batch.clip})["clip"]
        found = {
            "step": number + 1,
            "loss": str(float(measured["loss"])),
            "clips": [experiment.dataset.clip_ids[clip] for clip in clips if clip >= 0],
            "first": "",
        }
        path = os.path.join(workdir, REPORT)
        if is_first():
            write_json(path, found)  # before what may need more memory than there is
        if jax.process_count() == 1:
            found["first"] = first_not_finite(step, state, batch)
            write_json(path, found)
        return f"it began at step {number + 1}: {found['first']}; its clips are in {path}"
    return f"taken again from step {first}, all steps were finite"


def _all_finite(params: Params):
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]))


_jitted = jax.jit(_all_finite)
finite_replicas = jax.jit(jax.vmap(_all_finite))
"""bool [r]: of stacked parameters, whether every one of a replica is a number."""


def all_finite(params: Params) -> bool:
    """Whether every parameter is a number."""
    return bool(_jitted(params))
