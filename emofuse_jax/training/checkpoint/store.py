"""Checkpoints: the last one to go on from, the best one to use. The only file that knows orbax.

Items of a checkpoint: `params` (what scoring and serving load; the average where there is one),
`model_state` (norm and input statistics), `optimizer` (its state, and the raw parameters where `params` is
their average); beside them JSON metadata with the config, class names, preparation settings, training
speakers, the data iterator's position and the progress so far.
"""

import contextlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator

import jax
import tensorstore
from jaxtyping import PyTree
from orbax.checkpoint import v1 as ocp

from emofuse_jax.training.optimizer import AverageState, evaluation_params
from emofuse_jax.types import Params, TrainState
from emofuse_jax.utils.errors import format_error, other_schema_error, to_one_line

SCHEMA_VERSION = 2
"""The schema that is written, and the only one that is read."""
CHECKPOINT_KINDS = ("last", "best")
METADATA_FIELDS = {
    "config": dict,
    "classes": list,
    "settings": dict,
    "spec": dict,
    "statistics": dict,
    "training_speakers": list,
    "training_clips_sha256": str,
    "corpus": str,
    "protocol": str,
    "fold": int,
    "leaks": list,
    "versions": dict,
    "step": int,
    "temperature": float,
    "progress": dict,
    "epoch": dict,
}
"""Types of the metadata fields that other modules read."""
RUN_METADATA_FIELDS = tuple(METADATA_FIELDS)
"""Fields of a checkpoint that a run goes on from."""
MODEL_METADATA_FIELDS = RUN_METADATA_FIELDS[:-2]
"""Fields of every checkpoint that is scored or served."""
MAX_ERROR_CHARS = 400
"""Characters of what a library said that an error repeats."""


def save(workdir: str, kind: str, state: TrainState, metadata: dict) -> None:
    """Writes a checkpoint of kind `last` or `best`; the one before is removed when it is complete."""
    optimizer = {"opt_state": state.opt_state, "step": state.step}
    if isinstance(state.opt_state, AverageState):
        optimizer["raw_params"] = state.params
    items = {
        "params": evaluation_params(state.params, state.opt_state),
        "model_state": state.model_state,
        "optimizer": optimizer,
    }
    save_items(workdir, kind, int(state.step), items, metadata)


def save_model(workdir: str, params: Params, model_state: Params, metadata: dict) -> None:
    """Writes a `best` checkpoint to score and to serve, of `metadata["step"]`; no run goes on from it."""
    save_items(workdir, "best", metadata["step"], {"params": params, "model_state": model_state}, metadata)


def save_items(workdir: str, kind: str, step: int, items: dict[str, PyTree], metadata: dict) -> None:
    """Writes a checkpoint of any trees; the one before is removed when it is complete.

    Raises OSError, one line, where it can't be written.
    """
    with (
        _explain_write_errors(workdir, kind),
        _without_metric_collection(),
        _checkpointer(workdir, kind, remove_temporary=True) as checkpointer,
    ):
        checkpointer.save_checkpointables(
            step, items, force=True, overwrite=True, custom_metadata={"schema": SCHEMA_VERSION, **metadata}
        )


def remove(workdir: str, kind: str) -> None:
    """Removes the checkpoints of a kind; a removal that is killed leaves them whole or leaves none."""
    directory = _checkpoint_directory(workdir, kind)
    removed_directory = f"{directory}.removed"
    shutil.rmtree(removed_directory, ignore_errors=True)  # of a removal that was killed
    if os.path.isdir(directory):
        os.rename(directory, removed_directory)
        shutil.rmtree(removed_directory)


def restore_items(workdir: str, kind: str, abstract_items: dict[str, PyTree]) -> dict[str, PyTree]:
    """The trees of `save_items`, laid out as `abstract_items` says; ValueError where they are damaged or
    others."""
    _require_checkpoint(workdir, kind)
    with _explain_read_errors(workdir, kind), _checkpointer(workdir, kind) as checkpointer:
        return checkpointer.load_checkpointables(None, abstract_items)


def restore(workdir: str, abstract_state: TrainState) -> TrainState:
    """The last checkpoint's state, laid out as `abstract_state` (shapes and shardings) says."""
    _require_checkpoint(workdir, "last")
    optimizer = {"opt_state": abstract_state.opt_state, "step": abstract_state.step}
    is_averaged = isinstance(abstract_state.opt_state, AverageState)
    if is_averaged:
        optimizer["raw_params"] = abstract_state.params
    expected_items = {
        "params": abstract_state.params,
        "model_state": abstract_state.model_state,
        "optimizer": optimizer,
    }
    items = restore_items(workdir, "last", expected_items)
    params = items["optimizer"]["raw_params"] if is_averaged else items["params"]
    optimizer = items["optimizer"]
    return TrainState(optimizer["step"], params, items["model_state"], optimizer["opt_state"])


def load_model(workdir: str, kind: str, abstract_variables: tuple[Params, Params]) -> tuple[Params, Params]:
    """Parameters and model state alone, for scoring and serving; `abstract_variables` from
    `abstract_like`."""
    items = restore_items(
        workdir, kind, {"params": abstract_variables[0], "model_state": abstract_variables[1]}
    )
    return items["params"], items["model_state"]


def read_metadata(workdir: str, kind: str, *, missing_ok: bool = False) -> dict | None:
    """The JSON metadata of a checkpoint; FileNotFoundError (or None) where there is none.

    Raises ValueError, one line, where it is damaged, of another schema, or a field is of another type.
    """
    if missing_ok and not os.path.isdir(_checkpoint_directory(workdir, kind)):
        return None
    _require_checkpoint(workdir, kind)  # opening a directory would make it
    _check_step_metadata(_checkpoint_directory(workdir, kind))
    with _explain_read_errors(workdir, kind), _checkpointer(workdir, kind) as checkpointer:
        has_checkpoint = checkpointer.latest is not None
        metadata = checkpointer.checkpointables_metadata().custom_metadata if has_checkpoint else None
    if not has_checkpoint and missing_ok:
        return None
    _require_checkpoint(workdir, kind, exists=has_checkpoint)
    _check_metadata(_checkpoint_directory(workdir, kind), metadata)
    return metadata


def require_metadata_fields(workdir: str, kind: str, metadata: dict, fields: tuple[str, ...]) -> None:
    """Raises ValueError, naming the field, where the metadata of a checkpoint lack one of `fields`."""
    for field in fields:
        if field not in metadata:
            raise ValueError(f"{_checkpoint_directory(workdir, kind)}: field {field}: this field is missing")


def abstract_like(tree: PyTree, sharding: PyTree) -> PyTree:
    """Shapes, dtypes and shardings of a tree, to restore into."""
    return jax.tree.map(
        lambda x, leaf_sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=leaf_sharding),
        tree,
        sharding,
    )


def _check_step_metadata(directory: str) -> None:
    """ValueError where a step's metadata are no JSON object, of which orbax would print every character."""
    for step in filter(str.isdecimal, os.listdir(directory)):
        path = os.path.join(directory, step, "_CHECKPOINT_METADATA")
        try:
            with open(path, encoding="utf-8") as file:
                content = json.load(file)
        except FileNotFoundError:  # a save that is under way removes the step before
            continue
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: damaged: not JSON: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path}: damaged: expected an object, found {type(content).__name__}")


def _check_metadata(directory: str, metadata: object) -> None:
    schema = metadata.get("schema") if isinstance(metadata, dict) else None
    if not isinstance(schema, int):
        raise ValueError(f"{directory}: damaged: its metadata have no field schema that is a whole number")
    if schema != SCHEMA_VERSION:
        raise other_schema_error(directory, "checkpoint", schema, SCHEMA_VERSION, metadata, "train again")
    for field, expected_type in METADATA_FIELDS.items():
        if not isinstance(metadata.get(field, expected_type()), expected_type):
            actual_type = type(metadata[field]).__name__
            raise ValueError(
                f"{directory}: field {field}: expected {expected_type.__name__}, found {actual_type}"
            )


@contextlib.contextmanager
def _explain_read_errors(workdir: str, kind: str) -> Iterator[None]:
    """What orbax and tensorstore raise over damaged files has no common class, and names no file."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError):  # of the machine, not of the files
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename:
            raise  # names its file
        root_cause: BaseException = error
        while root_cause.__cause__:
            root_cause = root_cause.__cause__
        message = format_error(root_cause)
        raise ValueError(
            f"{_checkpoint_directory(workdir, kind)}: damaged, or of another network:"
            f" {message[:MAX_ERROR_CHARS]}"
        ) from error


@contextlib.contextmanager
def _explain_write_errors(workdir: str, kind: str) -> Iterator[None]:
    """What is raised over a full disk, in one line."""
    try:
        yield
    except jax.errors.JaxRuntimeError:  # a RuntimeError too, but of the devices or of a lost process
        raise
    except (OSError, RuntimeError, ValueError) as error:
        message = to_one_line(error)[-MAX_ERROR_CHARS:]
        raise OSError(f"{_checkpoint_directory(workdir, kind)}: can't be written: {message}") from error


@contextlib.contextmanager
def _without_metric_collection() -> Iterator[None]:
    """For its log orbax reads tensorstore's counters a dozen times a save, and tensorstore 0.1.86 never frees
    what a reading gives: 70 kB a save."""
    collect_metrics = tensorstore.experimental_collect_matching_metrics
    tensorstore.experimental_collect_matching_metrics = lambda *_: []
    try:
        yield
    finally:
        tensorstore.experimental_collect_matching_metrics = collect_metrics


def _should_log(record: logging.LogRecord) -> bool:
    """Orbax's threads log an error with its traceback, and raise it too."""
    return record.levelno != logging.ERROR or "orbax" not in record.pathname


logging.getLogger("absl").addFilter(_should_log)


def _ignore_closed_loop_errors(hook: Callable) -> Callable:
    """Tensorstore's threads report to the loop of a save that has already failed, one traceback an array."""

    def handle_unraisable(unraisable) -> None:
        if unraisable.object is None and str(unraisable.exc_value) == "Event loop is closed":
            return
        hook(unraisable)

    return handle_unraisable


sys.unraisablehook = _ignore_closed_loop_errors(sys.unraisablehook)


def _require_checkpoint(workdir: str, kind: str, *, exists: bool | None = None) -> None:
    if not (os.path.isdir(_checkpoint_directory(workdir, kind)) if exists is None else exists):
        raise FileNotFoundError(f"{workdir}: holds no {kind} checkpoint; run emofuse train first")


def _checkpoint_directory(workdir: str, kind: str) -> str:
    return os.path.join(os.path.abspath(workdir), "checkpoints", kind)


def _checkpointer(workdir: str, kind: str, *, remove_temporary: bool = False) -> ocp.training.Checkpointer:
    """`remove_temporary` removes what a killed save left; a reader must not, a save may be under way."""
    return ocp.training.Checkpointer(
        _checkpoint_directory(workdir, kind),
        preservation_policy=ocp.training.preservation_policies.LatestN(1),
        cleanup_tmp_directories=remove_temporary,
    )
