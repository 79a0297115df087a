"""A loss that is not a number: finds the first step, its clips, and the first value that was not finite."""

import math
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from emofuse_jax.parallel.distributed import is_first_process
from emofuse_jax.parallel.mesh import put_batch, to_host
from emofuse_jax.training.batch_source import make_skip_policy, make_train_batches
from emofuse_jax.training.experiment import Experiment
from emofuse_jax.training.nan_trace import find_first_nonfinite
from emofuse_jax.training.step import make_train_step
from emofuse_jax.types import Params, TrainState
from emofuse_jax.utils.errors import to_one_line
from emofuse_jax.utils.files import write_json

NONFINITE_REPORT_FILE = "nonfinite.json"


class NonFiniteError(ValueError):
    """The loss, or a parameter, is not a number any more at a step; of several replicas, in that run."""

    def __init__(self, message: str, step: int, replica_id: tuple[int, ...] = ()):
        super().__init__(message)
        self.step, self.replica_id = step, replica_id


def check_finite(
    step: int, loss: float, are_params_finite: bool = True, replica_id: tuple[int, ...] = ()
) -> None:
    """NonFiniteError where the loss, or one of the parameters, is not a number: it is not saved.

    `replica_id`: fold, seed, and in a search the trial.
    """
    labels = zip(("fold", "seed", "trial"), replica_id, strict=False)
    location = "".join(f"{name} {number}, " for name, number in labels) + f"step {step}"
    if not math.isfinite(loss):
        raise NonFiniteError(
            f"{location}: the loss is {loss}; a lower optimizer.learning_rate may help", step, replica_id
        )
    if not are_params_finite:
        raise NonFiniteError(f"{location}: a parameter is not finite", step, replica_id)


def with_explanation(nonfinite_error: NonFiniteError, explain: Callable[[], str]) -> NonFiniteError:
    """The same with what `explain` finds of its origin."""
    try:
        explanation = explain()
    except Exception as error:  # of no weight beside what happened
        explanation = f"not traced: {to_one_line(error)}"
    return NonFiniteError(
        f"{nonfinite_error}; {explanation}", nonfinite_error.step, nonfinite_error.replica_id
    )


def trace_nonfinite_step(
    experiment: Experiment, state: TrainState, tx, mesh: Mesh, last_step: int, workdir: str
) -> str:
    """Takes the steps from `state` up to step `last_step` again, and stops at the first that is not finite.

    Writes `nonfinite.json` under `workdir`: the step, the loss, the ids of its clips, and which value first
    was not finite (of one process alone: of several nobody holds all values). Where the steps, taken one by
    one, are all finite this time, the clips are those of all of them. Gives it in words.
    """
    train_step = make_train_step(experiment.model, tx, experiment.config)
    jitted_step, first_step, replayed_clip_ids = jax.jit(train_step), int(state.step), []
    replica_fields = {"fold": experiment.config.data.fold, "seed": experiment.config.seed}
    batches = make_train_batches(experiment, make_skip_policy(experiment), first_batch=first_step)
    for step in range(first_step, last_step):
        batch = put_batch(next(batches), mesh)
        next_state, step_metrics = jitted_step(state, batch)
        clip_indices = to_host({"clip": batch.clip})["clip"]
        clip_ids = [experiment.dataset.clip_ids[clip] for clip in clip_indices if clip >= 0]
        if math.isfinite(float(step_metrics["loss"])) and has_finite_params(next_state.params):
            state, replayed_clip_ids = next_state, replayed_clip_ids + clip_ids
            continue
        report = replica_fields | {
            "step": step + 1,
            "loss": str(float(step_metrics["loss"])),
            "clips": clip_ids,
            "first": "",
        }
        path = _write_report(workdir, report)  # before what may need more memory than there is
        first_nonfinite = "one process alone can tell at which value"
        if jax.process_count() == 1:
            first_nonfinite = find_first_nonfinite(train_step, state, batch)
            _write_report(workdir, report | {"first": first_nonfinite})
        return f"it began at step {step + 1}: {first_nonfinite}; its clips are in {path}"
    path = _write_report(
        workdir,
        replica_fields | {"step": last_step, "clips": list(dict.fromkeys(replayed_clip_ids)), "first": ""},
    )
    return (
        f"taken again one by one, steps {first_step + 1} to {last_step} were finite; their clips are"
        f" in {path}"
    )


def _write_report(workdir: str, report: dict) -> str:
    """Writes it; gives its path."""
    path = os.path.join(workdir, NONFINITE_REPORT_FILE)
    if is_first_process():
        write_json(path, report)
    return path


def _are_params_finite(params: Params):
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]))


_are_params_finite_jitted = jax.jit(_are_params_finite)
are_replicas_finite = jax.jit(jax.vmap(_are_params_finite))
"""bool [r]: of stacked parameters, whether every one of a replica is a number."""


def has_finite_params(params: Params) -> bool:
    """Whether every parameter is a number."""
    return bool(_are_params_finite_jitted(params))
