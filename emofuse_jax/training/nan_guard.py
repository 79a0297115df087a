"""A loss that is not a number: finds the first step, its clips, and the first value that was not finite."""

import math
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from emofuse_jax.parallel.distributed import is_first
from emofuse_jax.parallel.mesh import put_batch, to_host
from emofuse_jax.training.batch_source import make_batches, make_spare
from emofuse_jax.training.experiment import Experiment
from emofuse_jax.training.nan_trace import first_not_finite
from emofuse_jax.training.step import make_train_step
from emofuse_jax.types import Params, TrainState
from emofuse_jax.utils.errors import to_one_line
from emofuse_jax.utils.files import write_json

REPORT = "nonfinite.json"


class NotFinite(ValueError):
    """The loss, or a parameter, is not a number any more at a step; of several replicas, in that run."""

    def __init__(self, words: str, step: int, run: tuple[int, ...] = ()):
        super().__init__(words)
        self.step, self.run = step, run


def check_finite(step: int, loss: float, params: bool = True, run: tuple[int, ...] = ()) -> None:
    """NotFinite where the loss, or one of the parameters, is not a number: it is not saved.

    `run`: fold, seed, and in a search the trial.
    """
    parts = zip(("fold", "seed", "trial"), run, strict=False)
    where = "".join(f"{name} {number}, " for name, number in parts) + f"step {step}"
    if not math.isfinite(loss):
        raise NotFinite(f"{where}: the loss is {loss}; a lower optimizer.learning_rate may help", step, run)
    if not params:
        raise NotFinite(f"{where}: a parameter is not finite", step, run)


def retold(failed: NotFinite, explained: Callable[[], str]) -> NotFinite:
    """The same with what `explained` finds of its origin."""
    try:
        told = explained()
    except Exception as error:  # of no weight beside what happened
        told = f"not traced: {to_one_line(error)}"
    return NotFinite(f"{failed}; {told}", failed.step, failed.run)


def explain(experiment: Experiment, state: TrainState, tx, mesh: Mesh, until: int, workdir: str) -> str:
    """Takes the steps from `state` up to step `until` again, and stops at the first that is not finite.

    Writes `nonfinite.json` under `workdir`: the step, the loss, the ids of its clips, and which value first
    was not finite (of one process alone: of several nobody holds all values). Where the steps, taken one by
    one, are all finite this time, the clips are those of all of them. Gives it in words.
    """
    step = make_train_step(experiment.model, tx, experiment.config)
    jitted, first, seen = jax.jit(step), int(state.step), []
    run = {"fold": experiment.config.data.fold, "seed": experiment.config.seed}
    batches = make_batches(experiment, make_spare(experiment), start=first)
    for number in range(first, until):
        batch = put_batch(next(batches), mesh)
        after, measured = jitted(state, batch)
        clips = to_host({"clip": batch.clip})["clip"]
        ids = [experiment.dataset.clip_ids[clip] for clip in clips if clip >= 0]
        if math.isfinite(float(measured["loss"])) and all_finite(after.params):
            state, seen = after, seen + ids
            continue
        found = run | {"step": number + 1, "loss": str(float(measured["loss"])), "clips": ids, "first": ""}
        path = _report(workdir, found)  # before what may need more memory than there is
        value = "one process alone can tell at which value"
        if jax.process_count() == 1:
            value = first_not_finite(step, state, batch)
            _report(workdir, found | {"first": value})
        return f"it began at step {number + 1}: {value}; its clips are in {path}"
    path = _report(workdir, run | {"step": until, "clips": list(dict.fromkeys(seen)), "first": ""})
    return f"taken again one by one, steps {first + 1} to {until} were finite; their clips are in {path}"


def _report(workdir: str, found: dict) -> str:
    """Writes it; gives its path."""
    path = os.path.join(workdir, REPORT)
    if is_first():
        write_json(path, found)
    return path


def _all_finite(params: Params):
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]))


_jitted = jax.jit(_all_finite)
finite_replicas = jax.jit(jax.vmap(_all_finite))
"""bool [r]: of stacked parameters, whether every one of a replica is a number."""


def all_finite(params: Params) -> bool:
    """Whether every parameter is a number."""
    return bool(_jitted(params))
