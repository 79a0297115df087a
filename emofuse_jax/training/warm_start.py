"""Loads initial parameters of encoders: from runs that trained them alone, or from public weights.

`config.init.<modality>` is the workdir of a run with this modality, or a .safetensors file with public
weights.
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
from emofuse_jax.training.checkpoint.metadata import RunMetadata
from emofuse_jax.training.experiment import Experiment, make_metadata
from emofuse_jax.types import ConfigFields, Params

WarmStart = tuple[Params, Params]
"""Parts of `(params, model_state)`: nested dicts of the arrays to start from."""


def load_warm_start(experiment: Experiment) -> WarmStart:
    """Loads the arrays that `config.init` names for each modality: from a workdir or a .safetensors file.

    Returns:
      A tuple of nested dicts of arrays: the initial values of some parameters, and of some of the model
      state. Both are empty if `config.init` names nothing.

    Raises:
      ValueError: if the model or the source run lacks the encoder, if the shape of an array differs, if there
        are no public weights for the encoder, or if the source run was trained with other preparation
        settings, or on the same corpus with other clips or labels. Also if a .safetensors file is missing or
        invalid, the checkpoint of a run is damaged, or `config.mesh.data` or the file of the fold is invalid.
        The message names the path or field.
      FileNotFoundError: if a workdir has no `best` checkpoint, or the file of the fold no longer exists.
      OSError: if a file of a checkpoint or the file of the fold cannot be read.
    """
    warm_start: WarmStart = ({}, {})
    shapes = jax.eval_shape(experiment.model.init, jax.random.key(0))
    for modality, path in experiment.config.init.items():
        if not path:
            continue
        if modality not in shapes[0]:
            raise ValueError(
                f"config.init.{modality}={path}: this model has no {modality} encoder; leave the field empty"
            )
        load_encoder = _load_public_weights if path.endswith(".safetensors") else _load_trained_encoder
        for tree, arrays in zip(warm_start, load_encoder(experiment, modality, path, shapes), strict=True):
            tree |= arrays
    return warm_start


def overlay_arrays(tree: Params, arrays: Params) -> Params:
    """Returns a copy of the nested dict `tree`, in which the arrays of `arrays` replace its own.

    An array replaces the one with the same path of names; `arrays` is a nested dict with some or all of them.
    The dicts on these paths are new, all other parts are shared with `tree`. Shapes are not checked. Raises
    KeyError if `tree` has no entry at a path.
    """
    if not isinstance(tree, dict):
        return arrays
    return tree | {name: overlay_arrays(tree[name], subtree) for name, subtree in arrays.items()}


def _load_trained_encoder(experiment: Experiment, modality: str, path: str, shapes: WarmStart) -> WarmStart:
    """Returns the arrays of a modality's encoder and attention from the `best` checkpoint of a workdir.

    The tuple has two nested dicts of NumPy arrays: the parameters (the average if averaging is enabled) and
    the running statistics, both below the keys `<modality>` and `<modality>_attention`, of which each dict
    has only those that `shapes` has too.

    Args:
      experiment: experiment that starts from these arrays.
      modality: `audio` or `video`.
      path: workdir of the source run.
      shapes: (params, model_state) of the model, with the shape of each array.

    Raises:
      ValueError: if the checkpoint is damaged, if the source run has other preparation settings, if on the
        same corpus it used other clips or labels, if an array is missing or has another shape, or if the file
        of the fold or `config.mesh.data` is invalid.
      FileNotFoundError: if the workdir has no `best` checkpoint, or the file of the fold no longer exists.
      OSError: if a file of the checkpoint or the file of the fold cannot be read.
    """
    # replicated, so that every process has the complete arrays
    replicated_sharding = replicated(make_mesh(experiment.config.mesh))
    _, params, model_state, saved_metadata = load_trained_model(path, "best", replicated_sharding)
    _check_source_run(experiment, path, saved_metadata)
    encoder_variables: list[Params] = []
    for tree, expected_shapes in zip((params, model_state), shapes, strict=True):
        names = [name for name in (modality, f"{modality}_attention") if name in expected_shapes]
        missing = [name for name in names if name not in tree]
        if missing:
            raise ValueError(
                f"config.init.{modality}={path}: the source run has no {missing[0]} arrays; use a run whose"
                f" model has the same {modality} encoder"
            )
        encoder_variables.append({name: jax.tree.map(np.asarray, tree[name]) for name in names})
        _check_shapes(
            f"config.init.{modality}={path}",
            encoder_variables[-1],
            {name: expected_shapes[name] for name in names},
        )
    encoder_params, encoder_state = encoder_variables
    return encoder_params, encoder_state


def _check_source_run(experiment: Experiment, path: str, saved_metadata: RunMetadata) -> None:
    """Raises ValueError if the source run used clips or labels that this run must not see.

    The source run must have the same preparation settings (apart from names of encoder files), and on the
    same corpus also the same training and validation clips, the same `config.data.labelled_fraction` and, if
    that is below 1, the same `config.seed`, so the same hidden labels.

    Args:
      experiment: experiment that starts from the source run.
      path: workdir of the source run, for the message.
      saved_metadata: metadata of its checkpoint, of which `settings`, `corpus`, `training_clips_sha256` and
        `config` are read.

    Raises:
      ValueError: if one of these differs, or if the file of the fold is invalid.
      OSError: if the file of the fold does not exist or cannot be read.
    """
    current_metadata = make_metadata(experiment)
    if comparable_settings(saved_metadata["settings"]) != comparable_settings(current_metadata["settings"]):
        raise ValueError(
            f"config.init: {path} was trained on records with other preparation settings than those of this"
            " run; use a run on records with the same settings"
        )
    if saved_metadata["corpus"] != current_metadata["corpus"]:
        return
    if saved_metadata["training_clips_sha256"] != current_metadata["training_clips_sha256"]:
        raise ValueError(
            f"config.init: {path} was trained or validated on other clips; use a run of the same fold"
        )
    label_selections = [
        _label_selection(run_metadata["config"]) for run_metadata in (saved_metadata, current_metadata)
    ]
    if label_selections[0] != label_selections[1]:
        raise ValueError(
            f"config.init: {path} was trained with other labels: config.data.labelled_fraction and"
            f" config.seed {label_selections[0]}, expected {label_selections[1]}; use a run with these (any"
            " seed for 1.0)"
        )


def _label_selection(config: ConfigFields) -> tuple[float, int]:
    """Returns a tuple: the fraction of visible labels, and the seed that selects them (0 for all labels).

    `config` has all fields of an experiment as nested dicts.
    """
    fraction = config["data"]["labelled_fraction"]
    return fraction, config["seed"] if fraction < 1.0 else 0


def _check_shapes(source: str, loaded: Params, expected: Params) -> None:
    expected_shapes, loaded_shapes = _shapes_by_name(expected), _shapes_by_name(loaded)
    for name in sorted(expected_shapes.keys() | loaded_shapes.keys()):
        if expected_shapes.get(name) != loaded_shapes.get(name):
            raise ValueError(
                f"{source}: {name}: shape {loaded_shapes.get(name)}, expected {expected_shapes.get(name)}"
                " (None: no such array); use a run with the same sizes of the encoder"
            )


def _shapes_by_name(tree: Params) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each array by its path in the nested dict `tree`, with slashes such as `a/b/c`."""
    return {name: leaf.shape for name, leaf in flatten_by_path(tree).items()}


def _load_public_weights(experiment: Experiment, modality: str, path: str, shapes: WarmStart) -> WarmStart:
    """Returns public weights of a modality's encoder, converted to the names of the model.

    The tuple has two nested dicts below the key `<modality>`: the parameters and the model state; a dict is
    empty without arrays.

    Args:
      experiment: experiment that starts from these arrays.
      modality: `audio` or `video`.
      path: .safetensors file with the public weights.
      shapes: (params, model_state) of the model, with the shape of each array.

    Raises:
      ValueError: if there are no public weights for the encoder, or the file is missing, damaged, or lacks a
        tensor of the right shape.
    """
    encoder = experiment.config.model[modality].encoder
    if encoder not in CONVERTERS:
        encoder_names = ", ".join(CONVERTERS)
        raise ValueError(
            f"config.init.{modality}={path}: no public weights for"
            f" config.model.{modality}.encoder={encoder!r}, expected one of {encoder_names}; choose one of"
            f" them, or leave config.init.{modality} empty"
        )
    expected_shapes = [_shapes_by_name(tree.get(modality, {})) for tree in shapes]
    try:
        arrays = CONVERTERS[encoder](
            safetensors.numpy.load_file(path), expected_shapes[0] | expected_shapes[1]
        )
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"config.init.{modality}={path}: cannot be read as the public weights of encoder {encoder!r};"
            f" check the path and the file: {error}"
        ) from error
    arrays_by_tree = ({name: x for name, x in arrays.items() if name in names} for names in expected_shapes)
    params, model_state = (
        {modality: nest_by_path(tree_arrays)} if tree_arrays else {} for tree_arrays in arrays_by_tree
    )
    return params, model_state


def nest_by_path(arrays: dict[str, np.ndarray]) -> Params:
    """Returns arrays, named by paths with slashes, as nested dicts: `a/b` becomes `{"a": {"b": ...}}`."""
    tree: Params = {}
    for name, array in arrays.items():
        *path, leaf_name = name.split("/")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[leaf_name] = array
    return tree
