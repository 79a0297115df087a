"""Opens a directory of records: metadata, lists of clips for each split, random access to each record."""

import bisect
import dataclasses
import functools
import itertools
import os

import grain
import numpy as np
from jaxtyping import Float, Int

from emofuse_jax.data import records
from emofuse_jax.data.metadata import SPLITS, PrepMetadata
from emofuse_jax.data.prepared_files import PREPARE_AGAIN, read_index, read_json, read_prep
from emofuse_jax.utils.errors import to_one_line
from emofuse_jax.utils.safe_npz import read_npz

REMOVE_AND_PREPARE_AGAIN = "remove this file, then run the same emofuse prepare command again to rewrite it"

SPLIT_AGAIN = "write the splits again with emofuse prepare, or with emofuse split for a custom split"


class DamagedRecordError(ValueError):
    """Raised if a record fails its checksum or cannot be decoded; the message names its shard and clip."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A directory of records with its metadata; `read` returns a clip by its record index."""

    path: str
    """Directory of the records."""
    prep: PrepMetadata
    """Content of prep.json: settings, corpus, classes, speakers, shape."""
    index: dict[str, int]
    """Record index of each clip_id."""
    speaker_of: dict[str, str]
    """Speaker of each clip_id."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return tuple(self.prep["classes"])

    @property
    def speakers(self) -> tuple[str, ...]:
        """Speaker names in the order of prep.json (sorted); `Batch.speaker` is an index into them."""
        return tuple(self.prep["speakers"])

    @functools.cached_property
    def shape(self) -> records.RecordShape:
        """Dimensions that all records share.

        `f` is the number of bins, `h` and `w` are the pixels of a face crop; `audio_features` and
        `face_features` are the widths of the features, 0 if there are none; `waveform` is True if waveforms
        are stored.
        """
        return records.RecordShape(**self.prep["shape"])

    @functools.cached_property
    def clip_ids(self) -> tuple[str, ...]:
        """clip_id of each record, in the order of the record indices."""
        return tuple(sorted(self.index, key=self.index.__getitem__))

    @functools.cached_property
    def _shard_ends(self) -> list[int]:
        """Number of records in each shard and all shards before it, in the order of the shards."""
        return list(itertools.accumulate(shard["records"] for shard in self.prep["shards"]))

    @functools.cached_property
    def _shard_sources(self) -> dict[int, grain.sources.ArrayRecordDataSource]:
        """Readers of the shards that were opened, by shard index; `read_bytes` adds to this dict."""
        return {}

    @functools.cached_property
    def _shard_paths(self) -> list[str]:
        """Paths of all shards, in order.

        Raises ValueError if the number of shards or records does not match prep.json and manifest.csv, or the
        name of the first shard does not end in `-of-<number of shards>`; FileNotFoundError if the directory
        or a shard is missing; OSError if the directory cannot be read.
        """
        paths = records.shard_paths(self.path)
        total = sum(shard["records"] for shard in self.prep["shards"])
        if (len(paths), total) != (len(self._shard_ends), len(self.index)):
            raise ValueError(
                f"{self.path}: prep.json lists {len(self._shard_ends)} shards with {total} records,"
                f" but there are {len(paths)} shards and manifest.csv lists {len(self.index)} records;"
                " prepare the clips again"
            )
        return paths

    def read_bytes(self, index: int) -> bytes:
        """Returns the stored bytes of one record, a serialised `tf.train.Example`; verifies its checksum.

        Raises:
          DamagedRecordError: The shard is truncated, a bit of it has changed, or it has another number of
            records than prep.json lists.
          OSError: A shard is missing or cannot be opened.
          ValueError: The number of shards or records does not match prep.json and manifest.csv, the name of
            the first shard does not end in `-of-<number of shards>`, or `index` is negative.
          IndexError: `index` is too large.
        """
        paths, shard_index = self._shard_paths, bisect.bisect_right(self._shard_ends, index)
        shard_start = self._shard_ends[shard_index] - self.prep["shards"][shard_index]["records"]
        try:
            if shard_index not in self._shard_sources:
                self._shard_sources[shard_index] = self._open_shard(shard_index)
            return self._shard_sources[shard_index][int(index) - shard_start]
        except RuntimeError as error:  # ArrayRecord's lacks the name of the file
            with open(paths[shard_index], "rb"):  # a missing or unreadable file raises OSError here
                pass
            raise DamagedRecordError(
                f"{self._shard_and_clip(index)}: damaged shard: {to_one_line(error)};"
                f" {REMOVE_AND_PREPARE_AGAIN}"
            ) from error

    def _open_shard(self, shard_index: int) -> grain.sources.ArrayRecordDataSource:
        """Returns the shard number `shard_index`, from 0, open for reading.

        Raises RuntimeError if the shard is damaged or missing, or has another number of records than
        prep.json lists; and the errors of `_shard_paths`.
        """
        source = grain.sources.ArrayRecordDataSource([self._shard_paths[shard_index]])
        expected = self.prep["shards"][shard_index]["records"]
        if len(source) != expected:
            raise RuntimeError(
                f"the shard has {len(source)} records, prep.json lists {expected} in its field shards,"
                " expected the same number"
            )
        return source

    def read(self, index: int) -> records.Record:
        """Returns one decoded record, whose arrays are read-only.

        It has the names `clip_id`, `speaker` and `corpus`; `label`, an index of a class, or -1; `votes` [c]
        for c classes; `spectrogram` float16 [t f], t steps of f bins; `faces` uint8 [s h w 3], s crops, with
        `face_valid` (True: a face), `face_time` (seconds of the clip) and `face_score` (of the detector),
        each [s], `face_box` [s 4] (x0 y0 x1 y1) and `face_landmarks` [s 5 2] (x y of the eye at the image's
        left, the eye at its right, the nose, the left and the right corner of the mouth), in pixels of the
        source frame from its upper left corner; `audio_ok` and `video_ok`, False if masked; and
        `audio_features` [u d], u vectors in time, `face_features` [s d] and `waveform` int16 [n], mono at 16
        kHz, None if not stored.

        Raises:
          DamagedRecordError: The record or its shard is damaged, or a field is missing or does not fit the
            shape in prep.json; names the shard, clip and field.
          OSError: A shard is missing or cannot be opened.
          ValueError: The number of shards or records does not match prep.json and manifest.csv, the name of
            the first shard does not end in `-of-<number of shards>`, or `index` is negative.
          IndexError: `index` is too large.
        """
        data = self.read_bytes(index)
        try:
            return records.decode(data, self.shape)
        except ValueError as error:
            raise DamagedRecordError(
                f"{self._shard_and_clip(index)}: damaged record: {to_one_line(error)};"
                f" {REMOVE_AND_PREPARE_AGAIN}"
            ) from error

    def _shard_and_clip(self, index: int) -> str:
        path = self._shard_paths[bisect.bisect_right(self._shard_ends, index)]
        return f"{path}: clip {self.clip_ids[index]!r}"


def open_dataset(path: str, recipe: str | None = None) -> Dataset:
    """Opens a directory of records and returns its `Dataset`; reads prep.json and manifest.csv, no records.

    The dataset has `path`, `prep` (content of prep.json), `index` (record index by clip_id) and `speaker_of`
    (name of the speaker by clip_id), and reads a record by its index.

    Args:
      path: A directory that `emofuse prepare` or `write_records` wrote.
      recipe: Name of the recipe that the records must have, such as `fbp` or `features`; None: any.

    Raises:
      FileNotFoundError: prep.json or manifest.csv is missing.
      OSError: One of these files cannot be read.
      ValueError: One of these files is not valid, the records have another schema, or their recipe is not
        `recipe`.
    """
    prep = read_prep(path)
    stored_recipe = prep["settings"]["recipe"]
    if recipe is not None and stored_recipe != recipe:
        raise ValueError(
            f"{path}: prep.json has recipe {stored_recipe!r}, the config needs {recipe!r};"
            " use other records or change config.data.recipe"
        )
    index, speakers = read_index(path)
    return Dataset(path, prep, index, speakers)


def split_indices(dataset: Dataset, protocol: str, fold: int, split: str) -> Int[np.ndarray, " n"]:
    """Returns the record indices of the clips of one split of a fold, in the order of the fold's file.

    Args:
      dataset: The records.
      protocol: Name of the evaluation protocol, a folder in `splits/`.
      fold: Number of the fold, from 0.
      split: `train`, `validation` or `test`.

    Raises:
      FileNotFoundError: The protocol has no such fold, or does not exist; lists the available protocols. Or
        the records have no folder `splits/`.
      OSError: The file of the fold cannot be read.
      ValueError: `split` is unknown, the file of the fold is not valid, or it names a clip without a record.
    """
    fold_path = os.path.join(dataset.path, "splits", protocol, f"fold_{fold}.json")
    if not os.path.exists(fold_path):
        protocols = sorted(os.listdir(os.path.join(dataset.path, "splits")))
        raise FileNotFoundError(
            f"{fold_path}: no such fold; choose another fold, or one of the protocols {', '.join(protocols)}"
        )
    clip_lists = read_json(fold_path)
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    clips = clip_lists.get(split) if isinstance(clip_lists, dict) else None
    if not isinstance(clips, list):
        raise ValueError(f"{fold_path}: field {split}: expected a list of clip_ids; {SPLIT_AGAIN}")
    clip_ids = [str(clip) for clip in clips]
    unknown_clips = [clip_id for clip_id in clip_ids if clip_id not in dataset.index]
    if unknown_clips:
        raise ValueError(
            f"{fold_path}: field {split} names clip {unknown_clips[0][:100]!r}, which has no record in"
            f" manifest.csv; {SPLIT_AGAIN}"
        )
    return np.array([dataset.index[clip] for clip in clip_ids], np.int64)


def list_folds(dataset: Dataset, protocol: str) -> list[int]:
    """Returns the sorted numbers of a protocol's folds; the list is empty if its folder has no fold.

    `protocol` is the name of an evaluation protocol, a folder in `splits/`.

    Raises:
      FileNotFoundError: The records have no such protocol (lists the available ones) or no folder `splits/`.
      OSError: The folder of the protocol cannot be read.
      ValueError: A file `fold_<i>.json` has something other than a number as `<i>`.
    """
    folder = os.path.join(dataset.path, "splits", protocol)
    if not os.path.isdir(folder):
        protocols = ", ".join(sorted(os.listdir(os.path.join(dataset.path, "splits"))))
        raise FileNotFoundError(f"{folder}: no such protocol; available protocols: {protocols}")
    names = [name for name in os.listdir(folder) if name.startswith("fold_") and name.endswith(".json")]
    return sorted(int(name[5:-5]) for name in names)


def read_split_leaks(dataset: Dataset, protocol: str, fold: int) -> list[str]:
    """Returns the leaks between the splits of a fold that were accepted with --allow_leak, one text each.

    A leak is a speaker, take or file that two splits share, such as `speaker 'a' is in train and test (2
    shared)`. The list is empty if there are none. `protocol` is the name of an evaluation protocol, a folder
    in `splits/`, and `fold` the number of the fold, from 0.

    Raises:
      FileNotFoundError: The protocol or the fold does not exist.
      OSError: The file of the fold cannot be read.
      ValueError: The file of the fold is not a JSON object, or its field `leaks` is not a list.
    """
    fold_path = os.path.join(dataset.path, "splits", protocol, f"fold_{fold}.json")
    content = read_json(fold_path)
    leaks = content.get("leaks", []) if isinstance(content, dict) else None
    if not isinstance(leaks, list):
        raise ValueError(f"{fold_path}: field leaks: expected a list of texts; {SPLIT_AGAIN}")
    return [str(leak) for leak in leaks]


def read_statistics(
    dataset: Dataset, protocol: str, fold: int
) -> tuple[Float[np.ndarray, " f"], Float[np.ndarray, " f"]]:
    """Returns `(mean, std)` of each spectrogram bin over a fold's training clips; std: standard deviation.

    Both arrays are float32 [f] for f bins, in the unit of the spectrogram. `protocol` is the name of an
    evaluation protocol, and `fold` the number of the fold, from 0.

    Raises:
      FileNotFoundError: The records have no statistics of this fold.
      ValueError: The file cannot be read, is damaged or has another number of bins, a mean is not finite, or
        a standard deviation is not positive.
    """
    statistics_path = os.path.join(dataset.path, "stats", protocol, f"fold_{fold}.npz")
    if not os.path.exists(statistics_path):
        raise FileNotFoundError(f"{statistics_path}: file not found; run emofuse prepare first")
    bins_shape = (dataset.shape.f,)
    try:
        stats = read_npz(statistics_path, {"mean": bins_shape, "std": bins_shape})
    except ValueError as error:
        raise ValueError(f"{statistics_path}: damaged statistics: {error}; {PREPARE_AGAIN}") from error
    mean, std = (stats[field].astype(np.float32) for field in ("mean", "std"))
    if not (np.isfinite(mean).all() and np.all(std > 0)):
        raise ValueError(
            f"{statistics_path}: expected a finite mean and a positive std of {bins_shape[0]} bins;"
            f" {PREPARE_AGAIN}"
        )
    return mean, std
