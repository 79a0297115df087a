"""Stops a run whose loss is NaN or infinite, and finds the step, the clips and the operation behind it."""

import math
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool

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
"""File name of the report, in the workdir."""


class NonFiniteError(ValueError):
    """The loss or a parameter became NaN or infinite.

    `step` is the step at which it was noticed. `replica_id` is the replica (fold, seed and, in a sweep,
    trial), or empty if a single model is trained.
    """

    def __init__(self, message: str, step: int, replica_id: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.step, self.replica_id = step, replica_id


def check_finite(
    step: int, loss: float, are_params_finite: bool = True, replica_id: tuple[int, ...] = ()
) -> None:
    """Checks the loss and the parameters before they are saved.

    Args:
      step: current step, for the message and the error.
      loss: loss or sum of losses.
      are_params_finite: False if a parameter is NaN or infinite.
      replica_id: fold, seed and, in a sweep, the trial; empty if a single model is trained.

    Raises:
      NonFiniteError: if the loss or a parameter is NaN or infinite (a ValueError).
    """
    labels = zip(("fold", "seed", "trial"), replica_id, strict=False)
    location = "".join(f"{name} {number}, " for name, number in labels) + f"step {step}"
    if not math.isfinite(loss):
        raise NonFiniteError(
            f"{location}: the loss is {loss}; try a lower config.optimizer.learning_rate", step, replica_id
        )
    if not are_params_finite:
        raise NonFiniteError(
            f"{location}: a parameter is NaN or infinite; try a lower config.optimizer.learning_rate",
            step,
            replica_id,
        )


def with_explanation(nonfinite_error: NonFiniteError, explain: Callable[[], str]) -> NonFiniteError:
    """Returns a NonFiniteError like `nonfinite_error` with the text of `explain()` added to its message.

    The result has the same `step` and `replica_id`; `nonfinite_error` is not changed. If `explain` raises an
    Exception, that is not raised, but its message is added instead.
    """
    try:
        explanation = explain()
    except Exception as error:  # must not replace the original error
        explanation = f"the cause was not found: {to_one_line(error)}"
    return NonFiniteError(
        f"{nonfinite_error}; {explanation}", nonfinite_error.step, nonfinite_error.replica_id
    )


def trace_nonfinite_step(
    experiment: Experiment,
    state: TrainState,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    last_step: int,
    workdir: str,
) -> str:
    """Repeats the steps from `state` up to `last_step`, and stops at the first one that is not finite.

    A step is not finite if its loss, or a parameter after it, is NaN or infinite. Writes `nonfinite.json` to
    `workdir`, and replaces an older one. It is a JSON object: `fold`, `seed`, `step` (its number, from 1),
    `loss` (as text), `clips` (ids of the clips of the step) and `first` (text of `find_first_nonfinite`;
    empty with several processes, because each of them has only a part of the values). If all repeated steps
    are finite, `step` is `last_step`, `clips` has the clips of all of them, and there is no `loss`. Every
    process must call this function.

    Args:
      experiment: experiment of the run.
      state: state at an earlier step, for example of the last checkpoint; it is not changed.
      tx: optimizer of the run.
      mesh: mesh to run on.
      last_step: step at which the loss was found not to be finite; it is repeated too.
      workdir: directory for `nonfinite.json`.

    Returns:
      The explanation as text: the step, the first value that was not finite, and the path of
      `nonfinite.json`; or that all repeated steps were finite.

    Raises:
      ValueError: if a field of the config is invalid or does not fit the clips, if a record lacks a field of
        the batch, or if the records do not match prep.json.
      DamagedRecordError: if a record is damaged and must not be skipped (a ValueError).
      OSError: if `nonfinite.json` cannot be written, or a shard is missing or cannot be opened.
      jax.errors.JaxRuntimeError: if a device fails or runs out of memory, or another process is lost.
    """
    train_step = make_train_step(experiment.model, tx, experiment.config)
    jitted_step, first_step = jax.jit(train_step), int(state.step)
    replayed_clip_ids: list[str] = []
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
        path = _write_report(workdir, report)  # first, because the next lines can run out of memory
        first_nonfinite = "run with one process to find the first value"
        if jax.process_count() == 1:
            first_nonfinite = find_first_nonfinite(train_step, state, batch)
            _write_report(workdir, report | {"first": first_nonfinite})
        return f"it began at step {step + 1}: {first_nonfinite}; its clips are listed in {path}"
    path = _write_report(
        workdir,
        replica_fields | {"step": last_step, "clips": list(dict.fromkeys(replayed_clip_ids)), "first": ""},
    )
    return (
        f"when repeated one by one, steps {first_step + 1} to {last_step} were finite; their clips are"
        f" listed in {path}"
    )


def _write_report(workdir: str, report: dict[str, object]) -> str:
    """Writes `nonfinite.json` to the workdir on the first process; returns its path on every process.

    An older `nonfinite.json` is replaced. `report` has values for JSON by name.

    Raises:
      OSError: if the file cannot be written.
    """
    path = os.path.join(workdir, NONFINITE_REPORT_FILE)
    if is_first_process():
        write_json(path, report)
    return path


def _are_params_finite(params: Params) -> Bool[Array, ""]:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]))


_are_params_finite_jitted = jax.jit(_are_params_finite)
are_replicas_finite = jax.jit(jax.vmap(_are_params_finite))
"""Returns bool [r]: for stacked parameters, True if all parameters of a replica are finite."""


def has_finite_params(params: Params) -> bool:
    """Returns True if every parameter is finite, False if one of them is NaN or infinite."""
    return bool(_are_params_finite_jitted(params))
