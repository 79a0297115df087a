"""A config made concrete: its records, clips of each part, input shape, model, and feature statistics."""

import dataclasses
import importlib.metadata
import os

import ml_collections
import numpy as np
from jaxtyping import Float, Int

from emofuse_jax.data.dataset import PARTS, Dataset, open_dataset, split_indices, statistics
from emofuse_jax.models.build import Model, build_model
from emofuse_jax.types import InputSpec

ELASTIC_FIELDS = ("data.path", "data.threads", "mesh", "train.eval_batch_size", "train.log_every")
"""What may change when a run is resumed, since no number depends on it beyond rounding."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that follows from a config and its records."""

    config: ml_collections.ConfigDict
    dataset: Dataset
    protocol: str
    clips: dict[str, Int[np.ndarray, " n"]]
    """Record indices of each part."""
    spec: InputSpec
    model: Model
    statistics: tuple[Float[np.ndarray, " f"], Float[np.ndarray, " f"]]
    """Mean and standard deviation per bin of the training clips."""


def open_experiment(config: ml_collections.ConfigDict) -> Experiment:
    """Opens what `config.data` names; a missing path, protocol or fold is a one-line error."""
    if not config.data.path:
        raise ValueError("config.data.path is empty: give --config.data.path=DIR, written by emofuse prepare")
    dataset = open_dataset(config.data.path, config.data.recipe)
    protocol = config.data.protocol or only_protocol(dataset)
    clips = {part: split_indices(dataset, protocol, config.data.fold, part) for part in PARTS}
    for part in ("train", "validation"):
        if not len(clips[part]):
            raise ValueError(f"{dataset.path}: {protocol}, fold {config.data.fold}: {part} is empty")
    spec = input_spec(config, dataset)
    stats = statistics(dataset, protocol, config.data.fold)
    return Experiment(config, dataset, protocol, clips, spec, build_model(config.model, spec), stats)


def input_spec(config: ml_collections.ConfigDict, dataset: Dataset) -> InputSpec:
    """The static shape of the records of a dataset under a config."""
    shape, frames = dataset.shape, dataset.prep["settings"]["face"]["frames"]
    return InputSpec(config.data.audio_steps, shape.f, frames, shape.h, shape.w, len(dataset.classes))


def only_protocol(dataset: Dataset) -> str:
    """The single protocol of a dataset; ValueError names the choices where there are several."""
    names = sorted(os.listdir(os.path.join(dataset.path, "splits")))
    if len(names) != 1:
        raise ValueError(f"{dataset.path}: config.data.protocol must be one of {', '.join(names)}")
    return names[0]


def metadata(experiment: Experiment) -> dict:
    """What a checkpoint says about itself, ready for JSON; serving needs nothing else."""
    dataset, (mean, std) = experiment.dataset, experiment.statistics
    training = np.concatenate([experiment.clips["train"], experiment.clips["validation"]])
    return {
        "config": experiment.config.to_dict(),
        "classes": list(dataset.classes),
        "settings": dataset.prep["settings"],
        "spec": dataclasses.asdict(experiment.spec),
        "statistics": {"mean": mean.tolist(), "std": std.tolist()},
        "training_speakers": sorted({dataset.read(clip).speaker for clip in training}),
        "corpus": dataset.prep["corpus"],
        "protocol": experiment.protocol,
        "fold": experiment.config.data.fold,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Installed versions of what the numbers depend on."""
    names = ("emofuse", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    return {name: importlib.metadata.version(name) for name in names}


def check_same_config(workdir: str, before: dict, now: dict) -> None:
    """ValueError naming the first field in which a resumed run's config differs from its checkpoint's."""
    old, new = flatten(before), flatten(now)
    for name in sorted(old.keys() | new.keys()):
        elastic = any(name == field or name.startswith(f"{field}.") for field in ELASTIC_FIELDS)
        if not elastic and old.get(name) != new.get(name):
            raise ValueError(
                f"{workdir}: holds a run with config.{name}={old.get(name)!r}, this one has"
                f" {new.get(name)!r}; choose another --workdir"
            )


def flatten(tree: dict, prefix: str = "") -> dict:
    """Nested dicts as one, with dotted names; lists and tuples compare equal."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat
