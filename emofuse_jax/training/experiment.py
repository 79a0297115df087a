"""A config made concrete: its records, clips of each part, input shape, model, and feature statistics."""

import dataclasses
import functools
import hashlib
import json
import os

import ml_collections
import numpy as np
from jaxtyping import Float, Int

from emofuse_jax.data.buckets import Buckets, audio_lengths, bucket_edges, single_bucket
from emofuse_jax.data.dataset import (
    SPLITS,
    Dataset,
    open_dataset,
    read_split_leaks,
    read_statistics,
    split_indices,
)
from emofuse_jax.data.feature_shapes import feature_spec_fields, spectrogram_steps
from emofuse_jax.data.labels import visible_labels
from emofuse_jax.data.records import comparable_settings
from emofuse_jax.data.sampler import Sampler, make_sampler
from emofuse_jax.losses.class_polarity import fill_polarity
from emofuse_jax.models.build import Model, build_model
from emofuse_jax.settings.experiment import check_fields
from emofuse_jax.training.folds import apply_hold_out, check_hold_out
from emofuse_jax.training.optimizer import check_optimizer
from emofuse_jax.types import InputSpec
from emofuse_jax.utils.versions import package_versions

RESUME_CHANGEABLE_FIELDS = ("data.path", "data.threads", "data.mode", "data.on_corrupt", "mesh", "crossval")
RESUME_CHANGEABLE_FIELDS += ("train.eval_batch_size", "train.log_every", "train.steps_per_call")
"""What may change when a run is resumed: beyond rounding no number depends on it, unless records are lost."""

MATCHING_DATA_FIELDS = ("classes", "settings", "spec")
"""What a checkpoint's records and those it is scored on must share."""


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
    """Mean and standard deviation per bin of the fold's training clips, without those of validation."""
    labels: Int[np.ndarray, " n"] | None = None
    """What training sees of each training clip's label, -1 where it is hidden; None: all of them."""

    def shape(self, clips: Int[np.ndarray, " b"]) -> InputSpec:
        """The config's shape, whatever the clips."""
        return self.spec

    @functools.cached_property
    def buckets(self) -> Buckets:
        """Shapes of streamed batches."""
        return make_buckets(self.config, self.dataset, self.clips["train"], self.spec)


def open_experiment(config: ml_collections.ConfigDict) -> Experiment:
    """Opens what `config.data` names; a missing path, protocol or fold is a one-line error.

    Fills in `config.model.polarity` from the classes where something needs it.
    """
    if not config.data.path:
        raise ValueError("config.data.path is empty: give --config.data.path=DIR, written by emofuse prepare")
    check_optimizer(config.optimizer)
    dataset = open_dataset(config.data.path, config.data.recipe)
    config = fill_polarity(config, dataset.classes)
    model = build_model(config.model, make_input_spec(config, dataset))
    check_fields(config)
    check_hold_out(config)
    return _make_experiment(config, dataset, config.data.protocol or find_only_protocol(dataset), model)


def with_fold_and_seed(experiment: Experiment, fold: int, seed: int) -> Experiment:
    """The same experiment on another fold with another seed, which stand for `{fold}`, `{seed}` in `init`."""
    config = ml_collections.ConfigDict(experiment.config.to_dict())
    config.data.fold, config.seed = fold, seed
    for modality, path in config.init.items():
        config.init[modality] = path.replace("{fold}", str(fold)).replace("{seed}", str(seed))
    return _make_experiment(config, experiment.dataset, experiment.protocol, experiment.model)


def _make_experiment(
    config: ml_collections.ConfigDict, dataset: Dataset, protocol: str, model: Model
) -> Experiment:
    clips = {split: split_indices(dataset, protocol, config.data.fold, split) for split in SPLITS}
    for split in ("train", "validation"):
        if not len(clips[split]):
            fold_name = f"{protocol}, fold {config.data.fold}"
            raise ValueError(
                f"{dataset.path}: {fold_name}: {split} is empty; it takes at least three speakers"
            )
    clips = apply_hold_out(clips, hold_out=config.data.hold_out)
    clips["train"], labels = select_training_clips(config, dataset, clips["train"])
    input_statistics = read_statistics(dataset, protocol, config.data.fold)
    return Experiment(config, dataset, protocol, clips, model.spec, model, input_statistics, labels)


def make_buckets(
    config: ml_collections.ConfigDict, dataset: Dataset, clips: Int[np.ndarray, " n"], spec: InputSpec
) -> Buckets:
    """At most `config.data.buckets` shapes, by the lengths of the training clips."""
    if config.data.buckets == 1:
        return single_bucket(dataset, spec)
    if not 1 < config.data.buckets < 256:
        raise ValueError(f"config.data.buckets={config.data.buckets}: expected a number from 1 to 255")
    lengths = audio_lengths(dataset)
    edges = bucket_edges(lengths[clips], config.data.buckets, config.data.audio_steps)
    specs = tuple(make_input_spec(config, dataset, edge) for edge in edges)
    return Buckets(specs, np.searchsorted(edges[:-1], lengths).astype(np.uint8))


def select_training_clips(
    config: ml_collections.ConfigDict, dataset: Dataset, clips: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"] | None]:
    """The training clips under `config.data`, and the labels that they show; None where it asks nothing."""
    data = config.data
    if data.labelled_fraction == 1.0 and data.keep_unlabelled and not (data.balanced or data.labelled_share):
        return clips, None
    labels = visible_labels(dataset, clips, fraction=data.labelled_fraction, seed=config.seed)
    selected = (labels >= 0) | data.keep_unlabelled
    return clips[selected], labels[selected]


def count_epoch_steps(experiment: Experiment) -> int:
    """Whole batches in one pass over the training clips; ValueError where there is not even one."""
    data, clip_count = experiment.config.data, len(experiment.clips["train"])
    if clip_count < data.batch_size:
        location = f"{experiment.dataset.path}: {experiment.protocol}, fold {data.fold}"
        raise ValueError(
            f"{location}: {clip_count} training clips, fewer than data.batch_size={data.batch_size}"
        )
    return clip_count // data.batch_size


def make_experiment_sampler(experiment: Experiment) -> Sampler:
    """Which clips make up each training batch."""
    data, clips, buckets = experiment.config.data, experiment.clips["train"], experiment.buckets
    return make_sampler(
        clips,
        experiment.labels,
        batch_size=data.batch_size,
        seed=experiment.config.seed,
        balanced=data.balanced,
        labelled_share=data.labelled_share,
        clip_buckets=buckets.record_buckets[clips] if len(buckets.specs) > 1 else None,
    )


def make_input_spec(
    config: ml_collections.ConfigDict, dataset: Dataset, audio_steps: int | None = None
) -> InputSpec:
    """The static shape of the records of a dataset under a config, or with other steps than the config's."""
    shape, settings, steps = dataset.shape, dataset.prep["settings"], audio_steps or config.data.audio_steps
    other_sizes = shape.f, settings["face"]["frames"], shape.h, shape.w, len(dataset.classes)
    return InputSpec(
        spectrogram_steps(settings, steps), *other_sizes, **feature_spec_fields(settings, shape, steps)
    )


def find_only_protocol(dataset: Dataset) -> str:
    """The single protocol of a dataset; ValueError names the choices where there are several."""
    names = sorted(os.listdir(os.path.join(dataset.path, "splits")))
    if not names:
        raise ValueError(f"{dataset.path}: holds no split; it takes at least three speakers")
    if len(names) != 1:
        raise ValueError(f"{dataset.path}: config.data.protocol must be one of {', '.join(names)}")
    return names[0]


def make_metadata(experiment: Experiment) -> dict:
    """What a checkpoint says about itself, ready for JSON; serving needs nothing else."""
    dataset, (mean, std) = experiment.dataset, experiment.statistics
    train_and_validation_clips = np.concatenate([experiment.clips["train"], experiment.clips["validation"]])
    return {
        "config": experiment.config.to_dict(),
        "classes": list(dataset.classes),
        "settings": dataset.prep["settings"],
        "spec": dataclasses.asdict(experiment.spec),
        "statistics": {"mean": mean.tolist(), "std": std.tolist()},
        "training_speakers": sorted(
            {dataset.speaker_of[dataset.clip_ids[clip]] for clip in train_and_validation_clips}
        ),
        "training_clips_sha256": hash_training_clips(experiment),
        "corpus": dataset.prep["corpus"],
        "protocol": experiment.protocol,
        "fold": experiment.config.data.fold,
        "leaks": read_split_leaks(dataset, experiment.protocol, experiment.config.data.fold),
        "versions": package_versions(),
    }


def hash_training_clips(experiment: Experiment) -> str:
    """Names the clips that were trained on and validated on, and their order."""
    clip_ids = [
        [experiment.dataset.clip_ids[clip] for clip in experiment.clips[split]] for split in SPLITS[:2]
    ]
    return hashlib.sha256(json.dumps(clip_ids).encode()).hexdigest()


def check_same_data(
    experiment: Experiment, saved_metadata: dict, fields: tuple[str, ...] = MATCHING_DATA_FIELDS
) -> None:
    """ValueError where the records differ from those a checkpoint was trained on."""
    current_metadata = make_metadata(experiment)
    for field in fields:
        current, saved = current_metadata[field], saved_metadata[field]
        if field == "settings":
            current, saved = comparable_settings(current), comparable_settings(saved)
        if current != saved:
            raise ValueError(f"{experiment.dataset.path}: {field} differ from those of the checkpoint")


def check_same_config(workdir: str, saved_config: dict, current_config: dict) -> None:
    """ValueError naming the first field in which a resumed run's config differs from its checkpoint's."""
    saved_fields, current_fields = flatten_fields(saved_config), flatten_fields(current_config)
    for name in sorted(saved_fields.keys() | current_fields.keys()):
        is_changeable = any(
            name == field or name.startswith(f"{field}.") for field in RESUME_CHANGEABLE_FIELDS
        )
        if not is_changeable and saved_fields.get(name) != current_fields.get(name):
            raise ValueError(
                f"{workdir}: holds a run with config.{name}={saved_fields.get(name)!r}, this one has"
                f" {current_fields.get(name)!r}; choose another --workdir"
            )


def check_test_speakers_unseen(experiment: Experiment, saved_metadata: dict) -> None:
    """ValueError where a test speaker was trained or selected on, unless the split is known to leak."""
    dataset = experiment.dataset
    if saved_metadata["leaks"]:
        return
    test_speakers = {dataset.speaker_of[dataset.clip_ids[clip]] for clip in experiment.clips["test"]}
    leaked_speakers = sorted(test_speakers & set(saved_metadata["training_speakers"]))
    if leaked_speakers:
        raise ValueError(
            f"{dataset.path}: test speaker {leaked_speakers[0]!r} was trained on; these are other folds"
        )


def flatten_fields(tree: dict, prefix: str = "") -> dict:
    """Nested dicts as one, with dotted names; lists and tuples compare equal."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten_fields(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat
