"""What a run starts from beside chance: streams that were trained alone, or public weights.

`config.init.<stream>` is the workdir of a run that has this stream, or a .safetensors file of public weights.
"""

import jax
import numpy as np
import safetensors
import safetensors.numpy

from emofuse_jax.data.records import comparable_settings
from emofuse_jax.models.pretrained.conversion import flatten_by_path
from emofuse_jax.models.pretrained.registry import CONVERTERS
from emofuse_jax.parallel.mesh import make_mesh, replicated
from emofuse_jax.training.checkpoint.load import load_trained
from emofuse_jax.training.experiment import Experiment, metadata
from emofuse_jax.types import Params

Start = tuple[Params, Params]
"""Parts of `(params, model_state)`: nested dicts of the arrays to start from."""


def read_start(experiment: Experiment) -> Start:
    """The arrays that `config.init` names; empty trees where it names none.

    Raises:
      ValueError: a stream that the model has not, an array of another shape, or a run that has seen
        clips or labels which this one may not; names the path.
      FileNotFoundError: a workdir without a checkpoint.
    """
    trees: Start = ({}, {})
    shapes = jax.eval_shape(experiment.model.init, jax.random.key(0))
    for stream, path in experiment.config.init.items():
        if not path:
            continue
        if stream not in shapes[0]:
            raise ValueError(f"config.init.{stream}={path}: this model has no {stream} encoder")
        read = _public if path.endswith(".safetensors") else _trained
        for tree, part in zip(trees, read(experiment, stream, path, shapes), strict=True):
            tree |= part
    return trees


def overlay(tree: Params, start: Params) -> Params:
    """The tree with the arrays of `start` in it."""
    if not isinstance(tree, dict):
        return start
    return tree | {name: overlay(tree[name], part) for name, part in start.items()}


def _trained(experiment: Experiment, stream: str, path: str, shapes: Start) -> Start:
    """Encoder and attention of a stream, with its running statistics, from a workdir's best checkpoint."""
    everywhere = replicated(make_mesh(experiment.config.mesh))  # so that every process holds all of it
    _, *numbers, about = load_trained(path, "best", everywhere)
    _check_origin(experiment, path, about)
    parts = []
    for tree, wanted in zip(numbers, shapes, strict=True):
        names = [name for name in (stream, f"{stream}_attention") if name in wanted]
        missing = [name for name in names if name not in tree]
        if missing:
            raise ValueError(f"config.init.{stream}={path}: that run has no {missing[0]}")
        parts.append({name: jax.tree.map(np.asarray, tree[name]) for name in names})
        _check_shapes(f"config.init.{stream}={path}", parts[-1], {name: wanted[name] for name in names})
    return tuple(parts)


def _check_origin(experiment: Experiment, path: str, about: dict) -> None:
    """A run on the same corpus must have seen the same clips and labels as this one may; others are free."""
    ours = metadata(experiment)
    if comparable_settings(about["settings"]) != comparable_settings(ours["settings"]):
        raise ValueError(f"{path}: its records were prepared with other settings")
    if about["corpus"] != ours["corpus"]:
        return
    if about["training_clips_sha256"] != ours["training_clips_sha256"]:
        raise ValueError(f"{path}: was trained or validated on other clips than this fold's")
    shown = [_shown(saved["config"]) for saved in (about, ours)]
    if shown[0] != shown[1]:
        raise ValueError(
            f"{path}: saw labels that this run hides: fraction and seed {shown[0]}, not {shown[1]}"
        )


def _shown(config: dict) -> tuple[float, int]:
    """What decides which labels a run sees: the fraction, and below 1 the seed."""
    fraction = config["data"].get("labelled_fraction", 1.0)
    return fraction, config["seed"] if fraction < 1.0 else 0


def _check_shapes(what: str, found: Params, wanted: Params) -> None:
    ours, theirs = _shapes(wanted), _shapes(found)
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            raise ValueError(f"{what}: {name} is {theirs.get(name)} there, {ours.get(name)} in this model")


def _shapes(tree: Params) -> dict[str, tuple]:
    """Shapes by names with slashes."""
    return {name: leaf.shape for name, leaf in flatten_by_path(tree).items()}


def _public(experiment: Experiment, stream: str, path: str, shapes: Start) -> Start:
    """Public weights of the stream's encoder, by the name map of its kind."""
    encoder = experiment.config.model[stream].encoder
    if encoder not in CONVERTERS:
        known = ", ".join(CONVERTERS)
        raise ValueError(
            f"config.init.{stream}={path}: no public weights for encoder {encoder!r}, only {known}"
        )
    wanted = [_shapes(tree.get(stream, {})) for tree in shapes]
    try:
        arrays = CONVERTERS[encoder](safetensors.numpy.load_file(path), wanted[0] | wanted[1])
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"config.init.{stream}={path}: {error}") from error
    parts = ({name: x for name, x in arrays.items() if name in names} for names in wanted)
    return tuple({stream: nested(part)} if part else {} for part in parts)


def nested(flat: dict[str, np.ndarray]) -> Params:
    """Names with slashes as nested dicts."""
    tree: Params = {}
    for name, array in flat.items():
        *path, last = name.split("/")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[last] = array
    return tree
