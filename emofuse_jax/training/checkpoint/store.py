"""Stores checkpoints: `last` to resume a run, `best` to use the model. The only file that uses orbax.

A checkpoint has these items: `params` (for scoring and serving; the average if averaging is enabled),
`model_state` (norm and input statistics), and `optimizer` (its state, the step, and the raw parameters if
`params` is their average). They are stored with JSON metadata: config, class names, preparation settings,
training speakers, step and progress of the run.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from typing import Literal, cast, overload

import jax
import tensorstore
from jaxtyping import PyTree
from orbax.checkpoint import v1 as ocp

from emofuse_jax.training.checkpoint.metadata import CheckpointMetadata
from emofuse_jax.training.optimizer import AverageState, evaluation_params
from emofuse_jax.types import Params, TrainState
from emofuse_jax.utils.errors import format_error, other_schema_error, to_one_line
from emofuse_jax.utils.files import JsonValue

SCHEMA_VERSION = 2
"""Schema of checkpoints; the only one that is written and read."""
CHECKPOINT_KINDS = ("last", "best")
METADATA_FIELDS: dict[str, type] = {
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
"""Metadata fields that other modules read, with their types."""
RUN_METADATA_FIELDS = tuple(METADATA_FIELDS)
"""Metadata fields that are needed to resume a run."""
MODEL_METADATA_FIELDS = RUN_METADATA_FIELDS[:-2]
"""Metadata fields that are needed to score or serve a model."""
MAX_ERROR_CHARS = 400
"""Maximum number of characters of a library's message that are repeated in an error."""


def save(workdir: str, kind: str, state: TrainState, metadata: CheckpointMetadata) -> None:
    """Writes `checkpoints/<kind>` in a workdir, then removes the previous checkpoint of this kind.

    Every process must call this function.

    Args:
      workdir: workdir of the run.
      kind: `last` or `best`.
      state: training state, whose `step` is that of the checkpoint; with parameter averaging, the average is
        stored as `params`.
      metadata: a dict for JSON, with the fields of `make_metadata`, `step` and `temperature`, and in `emofuse
        train` also `progress` and `epoch`; they are not checked.

    Raises:
      OSError: if the checkpoint cannot be written.
      jax.errors.JaxRuntimeError: if a device fails or another process of the run is lost.
    """
    optimizer = {"opt_state": state.opt_state, "step": state.step}
    if isinstance(state.opt_state, AverageState):
        optimizer["raw_params"] = state.params
    items = {
        "params": evaluation_params(state.params, state.opt_state),
        "model_state": state.model_state,
        "optimizer": optimizer,
    }
    save_items(workdir, kind, int(state.step), items, metadata)


def save_model(workdir: str, params: Params, model_state: Params, metadata: CheckpointMetadata) -> None:
    """Writes `checkpoints/best` in a workdir for scoring and serving, at step `metadata["step"]`.

    A run cannot be resumed from it, because it has no optimizer state. The previous `best` checkpoint is
    removed after the new one is complete. Every process must call this function. `metadata` is a dict for
    JSON with the fields of `make_metadata`, `step` and `temperature`.

    Raises:
      OSError: if the checkpoint cannot be written.
      jax.errors.JaxRuntimeError: if a device fails or another process of the run is lost.
    """
    save_items(workdir, "best", metadata["step"], {"params": params, "model_state": model_state}, metadata)


def save_items(
    workdir: str, kind: str, step: int, items: dict[str, PyTree], metadata: Mapping[str, object]
) -> None:
    """Writes a checkpoint of named trees; the previous one is removed after the new one is complete.

    Args:
      workdir: workdir of the run.
      kind: directory name below `checkpoints/`.
      step: step of the run, the name of the directory of this checkpoint; an existing one is overwritten.
      items: trees of arrays (JAX or NumPy) by name; every process must call this function.
      metadata: values for JSON by name, to which `schema` is added; they are not checked.

    Raises:
      OSError: if the checkpoint cannot be written; the message has one line.
      jax.errors.JaxRuntimeError: if a device fails or another process of the run is lost.
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
    """Removes the checkpoints of a kind, the directory `checkpoints/<kind>`; does nothing if there are none.

    If the process is killed meanwhile, the checkpoints are still complete or they are gone. Of several
    processes, only one may call this function.

    Raises:
      OSError: if the directory cannot be removed.
    """
    directory = _checkpoint_directory(workdir, kind)
    removed_directory = f"{directory}.removed"
    shutil.rmtree(removed_directory, ignore_errors=True)  # left by a removal that was killed
    if os.path.isdir(directory):
        os.rename(directory, removed_directory)
        shutil.rmtree(removed_directory)


def restore_items(workdir: str, kind: str, abstract_items: dict[str, PyTree]) -> dict[str, PyTree]:
    """Returns the trees of arrays that `save_items` wrote, a dict by name.

    They have the names, shapes, dtypes and shardings of `abstract_items`.

    Args:
      workdir: workdir of the run.
      kind: directory name below `checkpoints/`.
      abstract_items: trees of ShapeDtypeStructs by name, from `abstract_like`; other saved trees are not
        read.

    Raises:
      FileNotFoundError: if there is no checkpoint of this kind.
      ValueError: if the checkpoint is damaged or its arrays differ from `abstract_items`.
      OSError: if a file of the checkpoint cannot be read.
    """
    _require_checkpoint(workdir, kind)
    with _explain_read_errors(workdir, kind), _checkpointer(workdir, kind) as checkpointer:
        return checkpointer.load_checkpointables(None, abstract_items)


def restore(workdir: str, abstract_state: TrainState) -> TrainState:
    """Returns the training state of the `last` checkpoint, with the shapes and shardings of `abstract_state`.

    The state has the step, the parameters (without averaging), the model state and the optimizer state.

    Args:
      workdir: workdir of the run.
      abstract_state: state of ShapeDtypeStructs, from `abstract_like`.

    Raises:
      FileNotFoundError: if there is no `last` checkpoint.
      ValueError: if the checkpoint is damaged or its arrays differ from `abstract_state`.
      OSError: if a file of the checkpoint cannot be read.
    """
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
    """Returns a tuple of the parameters and the model state of a checkpoint, for scoring and serving.

    Both are nested dicts of arrays; with parameter averaging, the parameters are the average.

    Args:
      workdir: workdir of the run.
      kind: `last` or `best`.
      abstract_variables: shapes and shardings of both, from `abstract_like`.

    Raises:
      FileNotFoundError: if there is no checkpoint of this kind.
      ValueError: if the checkpoint is damaged or its arrays differ from `abstract_variables`.
      OSError: if a file of the checkpoint cannot be read.
    """
    items = restore_items(
        workdir, kind, {"params": abstract_variables[0], "model_state": abstract_variables[1]}
    )
    return items["params"], items["model_state"]


@overload
def read_metadata(workdir: str, kind: str, *, missing_ok: Literal[False] = False) -> CheckpointMetadata: ...


@overload
def read_metadata(workdir: str, kind: str, *, missing_ok: bool) -> CheckpointMetadata | None: ...


def read_metadata(workdir: str, kind: str, *, missing_ok: bool = False) -> CheckpointMetadata | None:
    """Reads the metadata of a checkpoint `last` or `best`.

    Returns:
      A dict with `schema` and the fields that were saved, any of which can be missing: `config` (all fields
      of the experiment), `classes` (names), `settings` (of prep.json), `spec` (shape of a clip), `statistics`
      (`mean` and `std` per frequency bin), `training_speakers`, `training_clips_sha256`, `corpus`,
      `protocol`, `fold`, `leaks`, `versions` (of packages), `step`, `temperature`, `progress` (best
      validation result so far: `best_ua`, `best_step`, `since_best` and `temperature`), `epoch` (`steps` and
      `sums` of the unfinished epoch) and `refit` (config and results of `emofuse gan`). None if there is no
      checkpoint of this kind and `missing_ok` is True.

    Raises:
      FileNotFoundError: if there is no checkpoint of this kind and `missing_ok` is False.
      ValueError: if the metadata are damaged, have another schema, or a field has another type; the message
        has one line.
      OSError: if a file of the checkpoint cannot be read.
    """
    return cast(CheckpointMetadata | None, read_json_metadata(workdir, kind, missing_ok=missing_ok))


def read_model_metadata(workdir: str, kind: str) -> CheckpointMetadata:
    """Reads the metadata of a checkpoint `last` or `best`, with all fields that scoring and serving need.

    Returns:
      A dict with all fields that `read_metadata` lists; only `progress`, `epoch` and `refit` can be missing.

    Raises:
      FileNotFoundError: if there is no checkpoint of this kind.
      ValueError: if the metadata are damaged, have another schema, or a field is missing or has another type.
      OSError: if a file of the checkpoint cannot be read.
    """
    metadata = read_metadata(workdir, kind)
    require_metadata_fields(workdir, kind, metadata, MODEL_METADATA_FIELDS)
    return metadata


def read_json_metadata(workdir: str, kind: str, *, missing_ok: bool) -> dict[str, JsonValue] | None:
    """Reads the JSON metadata of a checkpoint of any kind, which is a directory name below `checkpoints/`.

    Returns:
      A dict with `schema` and the metadata that were passed to `save_items`. If present, these have the type
      dict: `config`, `settings` (with a dict `features`), `spec`, `statistics`, `versions`, `progress`,
      `epoch`; list: `classes`, `training_speakers`, `leaks`; text: `training_clips_sha256`, `corpus`,
      `protocol`; int: `fold`, `step`; float: `temperature`. None if there is no checkpoint of this kind and
      `missing_ok` is True.

    Raises:
      FileNotFoundError: if there is no checkpoint of this kind and `missing_ok` is False.
      ValueError: if the metadata are damaged, have another schema, or a field has another type; the message
        has one line.
      OSError: if a file of the checkpoint cannot be read.
    """
    if missing_ok and not os.path.isdir(_checkpoint_directory(workdir, kind)):
        return None
    _require_checkpoint(workdir, kind)  # opening a missing directory would create it
    _check_step_metadata(_checkpoint_directory(workdir, kind))
    with _explain_read_errors(workdir, kind), _checkpointer(workdir, kind) as checkpointer:
        has_checkpoint = checkpointer.latest is not None
        metadata = checkpointer.checkpointables_metadata().custom_metadata if has_checkpoint else None
    if not has_checkpoint and missing_ok:
        return None
    _require_checkpoint(workdir, kind, exists=has_checkpoint)
    _check_metadata(_checkpoint_directory(workdir, kind), metadata)
    return metadata


def require_metadata_fields(
    workdir: str, kind: str, metadata: Mapping[str, object], fields: tuple[str, ...]
) -> None:
    """Raises ValueError if the metadata of a checkpoint lack one of `fields`; the message names the field.

    `workdir` and `kind` are only for the message.
    """
    for field in fields:
        if field not in metadata:
            raise ValueError(
                f"{_checkpoint_directory(workdir, kind)}: field {field}: this field is missing in the"
                " metadata; train again"
            )


@contextlib.contextmanager
def name_checkpoint_in_errors(workdir: str, kind: str) -> Iterator[None]:
    """Adds the path of a checkpoint, and what to do, to a ValueError about its metadata in this block.

    Yields nothing. `saved_config` and `saved_spec`, for example, get metadata without a path.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"{_checkpoint_directory(workdir, kind)}: metadata: {error}; use the version of emofuse and the"
            " packages that trained it, or train again"
        ) from error


def abstract_like(tree: PyTree, sharding: PyTree) -> PyTree:
    """Returns a tree like `tree` with shapes, dtypes and shardings (`jax.ShapeDtypeStruct`) for arrays.

    `sharding` is a tree of the same structure with the sharding of each array. The result says what
    `restore_items` has to restore.

    Raises:
      ValueError: if the two trees differ in structure.
    """
    return jax.tree.map(
        lambda x, leaf_sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=leaf_sharding),
        tree,
        sharding,
    )


def _check_step_metadata(directory: str) -> None:
    """Raises ValueError if the metadata of a step of the checkpoint in `directory` are not a JSON object.

    `directory` is `checkpoints/<kind>` of a workdir. Orbax would print each of their characters. A step
    without metadata is skipped. Raises OSError if `directory` or a file in it cannot be read.
    """
    for step in filter(str.isdecimal, os.listdir(directory)):
        path = os.path.join(directory, step, "_CHECKPOINT_METADATA")
        try:
            with open(path, encoding="utf-8") as file:
                content = json.load(file)
        except FileNotFoundError:  # a save in progress removes the previous step
            continue
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: damaged: not JSON: {error}; train again") from error
        if not isinstance(content, dict):
            raise ValueError(
                f"{path}: damaged: expected an object, found {type(content).__name__}; train again"
            )


def _check_metadata(directory: str, metadata: object) -> None:
    fields = metadata if isinstance(metadata, dict) else {}
    schema = fields.get("schema")
    if not isinstance(schema, int):
        raise ValueError(
            f"{directory}: damaged: metadata field schema is missing or not an integer; train again"
        )
    if schema != SCHEMA_VERSION:
        raise other_schema_error(directory, "checkpoint", schema, SCHEMA_VERSION, fields, "train again")
    for field, expected_type in METADATA_FIELDS.items():
        if not isinstance(fields.get(field, expected_type()), expected_type):
            actual_type = type(fields[field]).__name__
            raise ValueError(
                f"{directory}: field {field}: expected {expected_type.__name__}, found {actual_type}; the"
                " metadata are damaged: train again"
            )
    settings = fields.get("settings", {"features": {}})
    if not isinstance(settings.get("features"), dict):
        raise ValueError(
            f"{directory}: field settings.features: expected dict, found"
            f" {type(settings.get('features')).__name__}; the metadata are damaged: train again"
        )


@contextlib.contextmanager
def _explain_read_errors(workdir: str, kind: str) -> Iterator[None]:
    """Raises errors of orbax and tensorstore about damaged files in this block as a one-line ValueError.

    Yields nothing. The errors of these libraries have no common class, and do not name the file. An OSError
    that names a file, a MemoryError and a JaxRuntimeError pass through unchanged. `workdir` and `kind` are
    for the message.
    """
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError):  # caused by the machine, not by the files
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename:
            raise  # already names its file
        root_cause: BaseException = error
        while root_cause.__cause__:
            root_cause = root_cause.__cause__
        message = format_error(root_cause)
        raise ValueError(
            f"{_checkpoint_directory(workdir, kind)}: damaged, or from another network:"
            f" {message[:MAX_ERROR_CHARS]}; use the config of its training, or train again"
        ) from error


@contextlib.contextmanager
def _explain_write_errors(workdir: str, kind: str) -> Iterator[None]:
    """Raises errors of a failed write in this block, for example on a full disk, as a one-line OSError.

    Yields nothing. These are OSError, RuntimeError and ValueError; a JaxRuntimeError passes through
    unchanged. `workdir` and `kind` are for the message.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError:  # also a RuntimeError, but from the devices or a lost process
        raise
    except (OSError, RuntimeError, ValueError) as error:
        message = to_one_line(error)[-MAX_ERROR_CHARS:]
        raise OSError(
            f"{_checkpoint_directory(workdir, kind)}: can't be written: {message}; check the free space and"
            " the permissions, then run the same command again"
        ) from error


@contextlib.contextmanager
def _without_metric_collection() -> Iterator[None]:
    """Disables the metrics that orbax collects for its log, until this block ends; yields nothing.

    Orbax reads tensorstore's counters a dozen times per save, and tensorstore 0.1.86 never frees the results:
    70 kB per save.
    """
    collect_metrics = tensorstore.experimental_collect_matching_metrics
    tensorstore.experimental_collect_matching_metrics = lambda *_: []
    try:
        yield
    finally:
        tensorstore.experimental_collect_matching_metrics = collect_metrics


def _require_checkpoint(workdir: str, kind: str, *, exists: bool | None = None) -> None:
    if not (os.path.isdir(_checkpoint_directory(workdir, kind)) if exists is None else exists):
        raise FileNotFoundError(f"{workdir}: holds no {kind} checkpoint; run emofuse train first")


def _checkpoint_directory(workdir: str, kind: str) -> str:
    return os.path.join(os.path.abspath(workdir), "checkpoints", kind)


def _checkpointer(workdir: str, kind: str, *, remove_temporary: bool = False) -> ocp.training.Checkpointer:
    """Returns an orbax checkpointer of `checkpoints/<kind>`, which keeps only the latest step.

    Creates the directory if it does not exist; raises OSError if it cannot. `remove_temporary` deletes the
    rest of a save that was killed; a reader must not delete it, because a save can be in progress.
    """
    return ocp.training.Checkpointer(
        _checkpoint_directory(workdir, kind),
        preservation_policy=ocp.training.preservation_policies.LatestN(1),
        cleanup_tmp_directories=remove_temporary,
    )
