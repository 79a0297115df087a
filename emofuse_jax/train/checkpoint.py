"""Checkpoints: the last one to go on from, the best one to use. The only file that knows orbax.

Items of a checkpoint: `params` (what scoring and serving load; the average where there is one),
`model_state` (norm and input statistics), `optimizer` (its state, and the raw parameters where `params` is
their average); beside them JSON metadata with the config, class names, preparation settings, training
speakers, the data iterator's position and the progress so far.
"""

import os
import shutil

import jax
from jaxtyping import PyTree
from orbax.checkpoint import v1 as ocp

from emofuse_jax.train.optimizer import AverageState, evaluation_params
from emofuse_jax.types import Params, TrainState

SCHEMA_VERSION = 1
KINDS = ("last", "best")


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
    """Writes a checkpoint of any trees; the one before is removed when it is complete."""
    with _checkpointer(workdir, kind, clean=True) as checkpointer:
        checkpointer.save_checkpointables(
            step, items, force=True, overwrite=True, custom_metadata={"schema": SCHEMA_VERSION, **metadata}
        )


def remove(workdir: str, kind: str) -> None:
    """Removes the checkpoints of a kind; a removal that is killed leaves them whole or leaves none."""
    directory = _directory(workdir, kind)
    doomed = f"{directory}.removed"
    shutil.rmtree(doomed, ignore_errors=True)  # of a removal that was killed
    if os.path.isdir(directory):
        os.rename(directory, doomed)
        shutil.rmtree(doomed)


def restore_items(workdir: str, kind: str, abstract: dict[str, PyTree]) -> dict[str, PyTree]:
    """The trees of `save_items`, laid out as `abstract` says."""
    _require(workdir, kind)
    with _checkpointer(workdir, kind) as checkpointer:
        return checkpointer.load_checkpointables(None, abstract)


def restore(workdir: str, abstract: TrainState) -> TrainState:
    """The last checkpoint's state, laid out as `abstract` (shapes and shardings) says."""
    _require(workdir, "last")
    optimizer = {"opt_state": abstract.opt_state, "step": abstract.step}
    averaged = isinstance(abstract.opt_state, AverageState)
    if averaged:
        optimizer["raw_params"] = abstract.params
    wanted = {"params": abstract.params, "model_state": abstract.model_state, "optimizer": optimizer}
    items = restore_items(workdir, "last", wanted)
    params = items["optimizer"]["raw_params"] if averaged else items["params"]
    optimizer = items["optimizer"]
    return TrainState(optimizer["step"], params, items["model_state"], optimizer["opt_state"])


def load_model(workdir: str, kind: str, abstract: tuple[Params, Params]) -> tuple[Params, Params]:
    """Parameters and model state alone, for scoring and serving; `abstract` from `abstract_like`."""
    items = restore_items(workdir, kind, {"params": abstract[0], "model_state": abstract[1]})
    return items["params"], items["model_state"]


def read_metadata(workdir: str, kind: str, *, missing_ok: bool = False) -> dict | None:
    """The JSON metadata of a checkpoint; FileNotFoundError (or None) where there is none."""
    if missing_ok and not os.path.isdir(_directory(workdir, kind)):
        return None
    _require(workdir, kind)  # opening a directory would make it
    with _checkpointer(workdir, kind) as checkpointer:
        if checkpointer.latest is None:
            if missing_ok:
                return None
            _require(workdir, kind, found=False)
        metadata = checkpointer.checkpointables_metadata().custom_metadata
    if metadata["schema"] > SCHEMA_VERSION:
        raise ValueError(f"{workdir}: checkpoint schema {metadata['schema']} is newer than {SCHEMA_VERSION}")
    return metadata


def abstract_like(tree: PyTree, sharding: PyTree) -> PyTree:
    """Shapes, dtypes and shardings of a tree, to restore into."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, sharding)


def _require(workdir: str, kind: str, *, found: bool | None = None) -> None:
    if not (os.path.isdir(_directory(workdir, kind)) if found is None else found):
        raise FileNotFoundError(f"{workdir}: holds no {kind} checkpoint; run emofuse train first")


def _directory(workdir: str, kind: str) -> str:
    return os.path.join(os.path.abspath(workdir), "checkpoints", kind)


def _checkpointer(workdir: str, kind: str, *, clean: bool = False) -> ocp.training.Checkpointer:
    """`clean` removes what a killed save left; a reader must not, a save may be under way."""
    return ocp.training.Checkpointer(
        _directory(workdir, kind),
        preservation_policy=ocp.training.preservation_policies.LatestN(1),
        cleanup_tmp_directories=clean,
    )
