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
from emofuse_jax.training.checkpoint.load import load_trained_model
from emofuse_jax.training.experiment import Experiment, make_metadata
from emofuse_jax.types import Params

WarmStart = tuple[Params, Params]
"""Parts of `(params, model_state)`: nested dicts of the arrays to start from."""


def load_warm_start(experiment: Experiment) -> WarmStart:
    """The arrays that `config.init` names; empty trees where it names none.

    Raises:
      ValueError: a stream that the model has not, an array of another shape, or a run that has seen
        clips or labels which this one may not; names the path.
      FileNotFoundError: a workdir without a checkpoint.
    """
    warm_start: WarmStart = ({}, {})
    shapes = jax.eval_shape(experiment.model.init, jax.random.key(0))
    for modality, path in experiment.config.init.items():
        if not path:
            continue
        if modality not in shapes[0]:
            raise ValueError(f"config.init.{modality}={path}: this model has no {modality} encoder")
        load_encoder = _load_public_weights if path.endswith(".safetensors") else _load_trained_encoder
        for tree, arrays in zip(warm_start, load_encoder(experiment, modality, path, shapes), strict=True):
            tree |= arrays
    return warm_start


def overlay_arrays(tree: Params, arrays: Params) -> Params:
    """The tree with the arrays of `arrays` in it."""
    if not isinstance(tree, dict):
        return arrays
    return tree | {name: overlay_arrays(tree[name], subtree) for name, subtree in arrays.items()}


def _load_trained_encoder(experiment: Experiment, modality: str, path: str, shapes: WarmStart) -> WarmStart:
    """Encoder and attention of a stream, with its running statistics, from a workdir's best checkpoint."""
    # replicated, so that every process holds all of it
    replicated_sharding = replicated(make_mesh(experiment.config.mesh))
    _, *variables, saved_metadata = load_trained_model(path, "best", replicated_sharding)
    _check_source_run(experiment, path, saved_metadata)
    encoder_variables = []
    for tree, expected_shapes in zip(variables, shapes, strict=True):
        names = [name for name in (modality, f"{modality}_attention") if name in expected_shapes]
        missing = [name for name in names if name not in tree]
        if missing:
            raise ValueError(f"config.init.{modality}={path}: that run has no {missing[0]}")
        encoder_variables.append({name: jax.tree.map(np.asarray, tree[name]) for name in names})
        _check_shapes(
            f"config.init.{modality}={path}",
            encoder_variables[-1],
            {name: expected_shapes[name] for name in names},
        )
    return tuple(encoder_variables)


def _check_source_run(experiment: Experiment, path: str, saved_metadata: dict) -> None:
    """A run on the same corpus must have seen the same clips and labels as this one may; others are free."""
    current_metadata = make_metadata(experiment)
    if comparable_settings(saved_metadata["settings"]) != comparable_settings(current_metadata["settings"]):
        raise ValueError(f"{path}: its records were prepared with other settings")
    if saved_metadata["corpus"] != current_metadata["corpus"]:
        return
    if saved_metadata["training_clips_sha256"] != current_metadata["training_clips_sha256"]:
        raise ValueError(f"{path}: was trained or validated on other clips than this fold's")
    label_selections = [
        _label_selection(run_metadata["config"]) for run_metadata in (saved_metadata, current_metadata)
    ]
    if label_selections[0] != label_selections[1]:
        raise ValueError(
            f"{path}: saw labels that this run hides: fraction and seed {label_selections[0]}, not"
            f" {label_selections[1]}"
        )


def _label_selection(config: dict) -> tuple[float, int]:
    """What decides which labels a run sees: the fraction, and below 1 the seed."""
    fraction = config["data"]["labelled_fraction"]
    return fraction, config["seed"] if fraction < 1.0 else 0


def _check_shapes(source: str, loaded: Params, expected: Params) -> None:
    expected_shapes, loaded_shapes = _shapes_by_name(expected), _shapes_by_name(loaded)
    for name in sorted(expected_shapes.keys() | loaded_shapes.keys()):
        if expected_shapes.get(name) != loaded_shapes.get(name):
            raise ValueError(
                f"{source}: {name} is {loaded_shapes.get(name)} there, {expected_shapes.get(name)} in"
                f" this model"
            )


def _shapes_by_name(tree: Params) -> dict[str, tuple]:
    """Shapes by names with slashes."""
    return {name: leaf.shape for name, leaf in flatten_by_path(tree).items()}


def _load_public_weights(experiment: Experiment, modality: str, path: str, shapes: WarmStart) -> WarmStart:
    """Public weights of the stream's encoder, by the name map of its kind."""
    encoder = experiment.config.model[modality].encoder
    if encoder not in CONVERTERS:
        encoder_names = ", ".join(CONVERTERS)
        raise ValueError(
            f"config.init.{modality}={path}: no public weights for encoder {encoder!r}, only {encoder_names}"
        )
    expected_shapes = [_shapes_by_name(tree.get(modality, {})) for tree in shapes]
    try:
        arrays = CONVERTERS[encoder](
            safetensors.numpy.load_file(path), expected_shapes[0] | expected_shapes[1]
        )
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"config.init.{modality}={path}: {error}") from error
    arrays_by_tree = ({name: x for name, x in arrays.items() if name in names} for names in expected_shapes)
    return tuple(
        {modality: nest_by_path(tree_arrays)} if tree_arrays else {} for tree_arrays in arrays_by_tree
    )


def nest_by_path(arrays: dict[str, np.ndarray]) -> Params:
    """Names with slashes as nested dicts."""
    tree: Params = {}
    for name, array in arrays.items():
        *path, leaf_name = name.split("/")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[leaf_name] = array
    return tree
