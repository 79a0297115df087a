"""Opens what a config describes: records, clips of each split, input shape, model and feature statistics."""

import dataclasses
import functools
import hashlib
import json
import os
from typing import Literal, cast

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
from emofuse_jax.training.checkpoint.metadata import RunMetadata, SpecFields
from emofuse_jax.training.hold_out import apply_hold_out, check_hold_out
from emofuse_jax.training.optimizer import check_optimizer
from emofuse_jax.types import ConfigFields, InputSpec
from emofuse_jax.utils.versions import package_versions

RESUME_CHANGEABLE_FIELDS = (
    *("data.path", "data.threads", "data.mode", "data.on_corrupt", "mesh", "crossval"),
    *("train.eval_batch_size", "train.log_every", "train.steps_per_call"),
)
"""Fields that can change when a run is resumed. They change no result apart from rounding, unless damaged
records are skipped."""

MatchingField = Literal["classes", "settings", "spec", "training_clips_sha256"]
"""Metadata field that `check_same_data` can compare."""

MATCHING_DATA_FIELDS: tuple[MatchingField, ...] = ("classes", "settings", "spec")
"""Metadata fields that must be equal for a checkpoint's records and the records it is scored on."""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A config with its dataset, clips, model and statistics."""

    config: ml_collections.ConfigDict
    dataset: Dataset
    protocol: str
    """Name of the split protocol."""
    clips: dict[str, Int[np.ndarray, " n"]]
    """Record indices of the clips of each split (train, validation, test)."""
    spec: InputSpec
    """Input shape of a clip."""
    model: Model
    statistics: tuple[Float[np.ndarray, " f"], Float[np.ndarray, " f"]]
    """Mean and standard deviation per frequency bin over the training clips, without validation clips."""
    labels: Int[np.ndarray, " n"] | None = None
    """Label of each training clip as seen in training, -1 if hidden; None if all labels are used."""

    def choose_spec(self, clips: Int[np.ndarray, " b"]) -> InputSpec:
        """Returns the input shape of the config (`spec`), whatever the clips are."""
        return self.spec

    @functools.cached_property
    def buckets(self) -> Buckets:
        """Shapes of streamed batches (`specs`), and each record's index in them (`record_buckets`).

        They are computed on first use; all records are then read once if there are several buckets.

        Raises:
          ValueError: if `config.data.buckets` is not between 1 and 255, or if there are several buckets and
            the shards do not match prep.json and manifest.csv.
          OSError: if there are several buckets, and a shard is missing or cannot be opened.
        """
        return make_buckets(self.config, self.dataset, self.clips["train"], self.spec)


def open_experiment(config: ml_collections.ConfigDict) -> Experiment:
    """Opens the dataset, split, model and statistics that a config describes.

    Fills in `config.model.polarity` from the class names if a loss or margin needs it, in a copy of the
    config.

    Returns:
      The Experiment: `config` (the filled-in one), `dataset`, `protocol` (name), `clips` (record indices by
      split, `train`, `validation` and `test`), `spec` (input shape), `model` (without parameters),
      `statistics` (mean and standard deviation per frequency bin) and `labels` (those used in training, one
      per training clip, -1 if hidden; None if all labels are used).

    Raises:
      ValueError: if `config.data.path` is empty, if a field of the config is unknown or invalid or does not
        fit the records, if the directory has no protocol, or several and the config names none, if a fold has
        no training or validation clips, if no training clip has a label but the config needs labels, or if
        prep.json, manifest.csv or a file of the fold is invalid.
      FileNotFoundError: if the directory, one of its files, the protocol, the fold or its statistics do not
        exist.
      OSError: if one of these files cannot be read.
      AttributeError: if a field of the config is missing.
    """
    if not config.data.path:
        raise ValueError(
            "config.data.path is empty; set --config.data.path=DIR to the output of emofuse prepare"
        )
    check_optimizer(config.optimizer)
    dataset = open_dataset(config.data.path, config.data.recipe)
    config = fill_polarity(config, dataset.classes)
    model = build_model(config.model, make_input_spec(config, dataset))
    check_fields(config)
    check_hold_out(config)
    return _make_experiment(config, dataset, config.data.protocol or find_only_protocol(dataset), model)


def with_fold_and_seed(experiment: Experiment, fold: int, seed: int) -> Experiment:
    """Returns the experiment for another fold and seed; `{fold}` and `{seed}` in `config.init` are filled in.

    The dataset, the protocol and the model are those of `experiment`; the config, the clips of each split,
    the statistics and the labels are those of the fold and seed.

    Raises:
      ValueError: if the fold has no training or validation clips, if no training clip has a label or
        `config.data.labelled_fraction` is not in (0, 1] but the config needs labels, or if a file of the
        fold, its statistics or manifest.csv is invalid.
      FileNotFoundError: if the fold or its statistics do not exist.
      OSError: if the file of the fold or manifest.csv cannot be read.
    """
    config = ml_collections.ConfigDict(experiment.config.to_dict())
    config.data.fold, config.seed = fold, seed
    for modality, path in config.init.items():
        config.init[modality] = path.replace("{fold}", str(fold)).replace("{seed}", str(seed))
    return _make_experiment(config, experiment.dataset, experiment.protocol, experiment.model)


def _make_experiment(
    config: ml_collections.ConfigDict, dataset: Dataset, protocol: str, model: Model
) -> Experiment:
    clips: dict[str, Int[np.ndarray, " n"]] = {
        split: split_indices(dataset, protocol, config.data.fold, split) for split in SPLITS
    }
    for split in ("train", "validation"):
        if not len(clips[split]):
            fold_name = f"{protocol}, fold {config.data.fold}"
            raise ValueError(
                f"{dataset.path}: {fold_name}: no {split} clips; choose another config.data.fold or"
                " config.data.protocol, or write the split again with at least three speakers"
            )
    clips = apply_hold_out(clips, hold_out=config.data.hold_out)
    clips["train"], labels = select_training_clips(config, dataset, clips["train"])
    input_statistics = read_statistics(dataset, protocol, config.data.fold)
    return Experiment(config, dataset, protocol, clips, model.spec, model, input_statistics, labels)


def make_buckets(
    config: ml_collections.ConfigDict, dataset: Dataset, clips: Int[np.ndarray, " n"], spec: InputSpec
) -> Buckets:
    """Chooses at most `config.data.buckets` shapes of batches from the lengths of the training clips.

    With more than one bucket, all records are read once.

    Args:
      config: config of the experiment.
      dataset: dataset with the records.
      clips: record indices of the training clips.
      spec: shape of the only bucket, if there is one.

    Returns:
      The buckets: `specs`, the InputSpec of each shape, shortest first; and `record_buckets`, uint8, for each
      record of the dataset the index of its shape in `specs`.

    Raises:
      ValueError: if `config.data.buckets` is not between 1 and 255, or if there are several buckets and the
        shards do not match prep.json and manifest.csv.
      OSError: if there are several buckets, and a shard is missing or cannot be opened.
    """
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
    """Selects the training clips and hides labels, according to `config.data`.

    Returns:
      A tuple: the m selected clips (record indices), and the label of each one as seen in training (-1 if
      hidden or unlabelled). Instead of the labels it has None if the config neither hides labels nor needs
      them; then all clips are selected.

    Raises:
      ValueError: if the config hides or needs labels, and `config.data.labelled_fraction` is not in (0, 1],
        no training clip has a label, or manifest.csv is damaged: it is not a CSV file in UTF-8, lacks a
        column or the row of a clip, or a label is not a number.
      OSError: if the config hides or needs labels, and manifest.csv cannot be read.
    """
    data = config.data
    if data.labelled_fraction == 1.0 and data.keep_unlabelled and not (data.balanced or data.labelled_share):
        return clips, None
    labels = visible_labels(dataset, clips, fraction=data.labelled_fraction, seed=config.seed)
    selected = (labels >= 0) | data.keep_unlabelled
    return clips[selected], labels[selected]


def count_epoch_steps(experiment: Experiment) -> int:
    """Returns the number of complete batches in one pass over the training clips.

    Raises:
      ValueError: if `config.data.batch_size` is below 1, or if there are fewer training clips than one batch.
    """
    data, clip_count = experiment.config.data, len(experiment.clips["train"])
    if data.batch_size < 1:
        raise ValueError(f"config.data.batch_size={data.batch_size}: expected at least 1")
    if clip_count < data.batch_size:
        location = f"{experiment.dataset.path}: {experiment.protocol}, fold {data.fold}"
        raise ValueError(
            f"{location}: {clip_count} training clips, fewer than data.batch_size={data.batch_size}; lower it"
        )
    return clip_count // data.batch_size


def make_experiment_sampler(experiment: Experiment) -> Sampler:
    """Returns the sampler of the training clips; its `batch(number)` returns the record indices of a batch.

    It is a BalancedSampler if `config.data.balanced` or `config.data.labelled_share` is set, else a
    ShuffledSampler.

    Raises:
      ValueError: if `config.seed` is negative, if there are fewer training clips than one batch, if
        `config.data.balanced` or `config.data.labelled_share` is combined with buckets, has no labelled
        clips, or is out of range, if `config.data.buckets` is not between 1 and 255, or if there are several
        buckets and the shards do not match prep.json and manifest.csv.
      OSError: if there are several buckets, and a shard is missing or cannot be opened.
    """
    data, clips, buckets = experiment.config.data, experiment.clips["train"], experiment.buckets
    if experiment.config.seed < 0:
        raise ValueError(f"config.seed={experiment.config.seed}: expected 0 or a larger number")
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
    """Returns the static shape of the records of a dataset under a config.

    Args:
      config: config of the experiment.
      dataset: dataset with the records.
      audio_steps: number of spectrogram steps, by default `config.data.audio_steps`.

    Returns:
      The sizes of one clip: `t` spectrogram steps (0 if the records store audio features instead), `f`
      frequency bins, `s` frames, `h` and `w` pixels of a face, number of `classes`, and `feature_steps`,
      `audio_features` and `face_features` (number of steps and widths of the features of frozen encoders, 0
      if the records have none).

    Raises:
      ValueError: if the records have audio features, but prep.json has no settings of their encoder.
    """
    shape, settings, steps = dataset.shape, dataset.prep["settings"], audio_steps or config.data.audio_steps
    other_sizes = shape.f, settings["face"]["frames"], shape.h, shape.w, len(dataset.classes)
    return InputSpec(
        spectrogram_steps(settings, steps), *other_sizes, **feature_spec_fields(settings, shape, steps)
    )


def find_only_protocol(dataset: Dataset) -> str:
    """Returns the name of the only protocol of a dataset, a directory in its `splits/`.

    Raises:
      ValueError: if there are no protocols, or several; then the message lists them.
      FileNotFoundError: if the dataset has no directory `splits`.
      OSError: if this directory cannot be read.
    """
    names = sorted(os.listdir(os.path.join(dataset.path, "splits")))
    if not names:
        raise ValueError(
            f"{dataset.path}: no protocol in splits/: fewer than three speakers have clips; prepare more"
            " speakers, or add a split with emofuse split"
        )
    if len(names) != 1:
        raise ValueError(
            f"{dataset.path}: several protocols; set config.data.protocol to one of {', '.join(names)}"
        )
    return names[0]


def make_metadata(experiment: Experiment) -> RunMetadata:
    """Collects the metadata of a checkpoint for JSON: everything that scoring and serving need.

    Returns:
      A dict: `config` (all fields), `classes` (names in the order of the logits), `settings` (of prep.json),
      `spec` (the fields of the input shape), `statistics` (`mean` and `std`, lists with one number per
      frequency bin), `training_speakers` (sorted names, of training and validation), `training_clips_sha256`
      (hash of the clip_ids of training and validation), `corpus` and `protocol` (names), `fold`, `leaks`
      (accepted leaks between the splits, one text each) and `versions` (of emofuse and its packages, by
      name).

    Raises:
      FileNotFoundError: if the file of the fold no longer exists.
      OSError: if the file of the fold cannot be read.
      ValueError: if the file of the fold is invalid.
    """
    dataset, (mean, std) = experiment.dataset, experiment.statistics
    train_and_validation_clips = np.concatenate([experiment.clips["train"], experiment.clips["validation"]])
    return {
        "config": experiment.config.to_dict(),
        "classes": list(dataset.classes),
        "settings": dataset.prep["settings"],
        "spec": cast(SpecFields, dataclasses.asdict(experiment.spec)),
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
    """Returns the SHA-256 (hexadecimal text) of the ids of the training and validation clips.

    It is that of the JSON text of a list of two lists, the training and the validation clips, in their order.
    """
    clip_ids = [
        [experiment.dataset.clip_ids[clip] for clip in experiment.clips[split]] for split in SPLITS[:2]
    ]
    return hashlib.sha256(json.dumps(clip_ids).encode()).hexdigest()


def check_same_data(
    experiment: Experiment,
    saved_metadata: RunMetadata,
    fields: tuple[MatchingField, ...] = MATCHING_DATA_FIELDS,
) -> None:
    """Checks that the records of the experiment are the same as those of a checkpoint.

    Args:
      experiment: experiment with the current records.
      saved_metadata: metadata of the checkpoint, with all of `fields`.
      fields: metadata fields to compare, of `classes`, `settings`, `spec` and `training_clips_sha256`; by
        default the first three. Of `settings`, the paths of encoder and detector files may differ.

    Raises:
      ValueError: if one of `fields` differs; the message names the first one. Also if the file of the fold is
        invalid.
      KeyError: if `saved_metadata` lacks one of `fields`.
      OSError: if the file of the fold does not exist or cannot be read.
    """
    current_metadata = make_metadata(experiment)
    for field in fields:
        if _comparable_value(current_metadata, field) != _comparable_value(saved_metadata, field):
            raise ValueError(
                f"{experiment.dataset.path}: {field} differ from those of the checkpoint; use the"
                " records (config.data.path) and the fold (config.data.fold) that it was trained on"
            )


def _comparable_value(metadata: RunMetadata, field: MatchingField) -> object:
    return comparable_settings(metadata["settings"]) if field == "settings" else metadata[field]


def check_same_config(workdir: str, saved_config: ConfigFields, current_config: ConfigFields) -> None:
    """Checks that the config of a resumed run is the same as the saved config.

    These fields can differ: `data.path`, `data.threads`, `data.mode`, `data.on_corrupt`,
    `train.eval_batch_size`, `train.log_every`, `train.steps_per_call`, and all of `mesh` and `crossval`.

    Args:
      workdir: workdir of the run, for the message.
      saved_config: fields of the saved config, as nested dicts.
      current_config: fields of the current config, as nested dicts.

    Raises:
      ValueError: if another field differs; the message names the first one in alphabetical order.
    """
    saved_fields, current_fields = flatten_fields(saved_config), flatten_fields(current_config)
    for name in sorted(saved_fields.keys() | current_fields.keys()):
        is_changeable = any(
            name == field or name.startswith(f"{field}.") for field in RESUME_CHANGEABLE_FIELDS
        )
        if not is_changeable and saved_fields.get(name) != current_fields.get(name):
            raise ValueError(
                f"{workdir}: contains a run with config.{name}={saved_fields.get(name)!r}, this one has"
                f" {current_fields.get(name)!r}; choose another --workdir"
            )


def check_test_speakers_unseen(experiment: Experiment, saved_metadata: RunMetadata) -> None:
    """Checks that no test speaker of the experiment was used in training or validation.

    Splits that are known to leak (`leaks` of the metadata) are not checked.

    Args:
      experiment: experiment with the test clips.
      saved_metadata: metadata of a checkpoint or of the experiment itself (`make_metadata`).

    Raises:
      ValueError: if a test speaker was used; the message names the first one.
    """
    dataset = experiment.dataset
    if saved_metadata["leaks"]:
        return
    test_speakers = {dataset.speaker_of[dataset.clip_ids[clip]] for clip in experiment.clips["test"]}
    leaked_speakers = sorted(test_speakers & set(saved_metadata["training_speakers"]))
    if leaked_speakers:
        raise ValueError(
            f"{dataset.path}: test speaker {leaked_speakers[0]!r} was used in training; choose a fold whose"
            " test speakers were not"
        )


def flatten_fields(tree: ConfigFields, prefix: str = "") -> ConfigFields:
    """Returns nested dicts as one dict, whose keys are dotted names such as `data.fold`.

    Tuples become lists, so that both compare equal. `prefix`, such as `data.`, is added before each name.
    """
    flat: ConfigFields = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten_fields(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat
