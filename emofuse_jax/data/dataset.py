"""Opens a directory of records: metadata, lists of clips for each split, random access to each record."""

import bisect
import dataclasses
import functools
import itertools
import os
from typing import cast

import grain
import numpy as np
from jaxtyping import Float, Int

from emofuse_jax.data import records
from emofuse_jax.data.metadata import SPLITS, FoldParts, PrepMetadata
from emofuse_jax.data.prepared_files import read_index, read_json, read_prep
from emofuse_jax.utils.errors import to_one_line
from emofuse_jax.utils.safe_npz import read_npz

REPAIR_HINT = "remove this file, then run the same emofuse prepare command again to rewrite it"


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
        """Speaker names; `Batch.speaker` is an index into them."""
        return tuple(self.prep["speakers"])

    @functools.cached_property
    def shape(self) -> records.RecordShape:
        """Dimensions that all records share."""
        return records.RecordShape(**self.prep["shape"])

    @functools.cached_property
    def clip_ids(self) -> tuple[str, ...]:
        """clip_id of each record, in the order of the record indices."""
        return tuple(sorted(self.index, key=self.index.__getitem__))

    @functools.cached_property
    def _shard_ends(self) -> list[int]:
        """Number of records in each shard and all shards before it."""
        return list(itertools.accumulate(shard["records"] for shard in self.prep["shards"]))

    @functools.cached_property
    def _shard_sources(self) -> dict[int, grain.sources.ArrayRecordDataSource]:
        """Shards that were opened, by shard index."""
        return {}

    @functools.cached_property
    def _shard_paths(self) -> list[str]:
        """Paths of all shards.

        Raises ValueError if their number does not match prep.json and manifest.csv, and FileNotFoundError if
        a shard is missing.
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

    def _open_shard(self, path: str, shard_index: int) -> grain.sources.ArrayRecordDataSource:
        """Opens a shard; raises RuntimeError if it is damaged or has another number of records."""
        source = grain.sources.ArrayRecordDataSource([path])
        if len(source) != (expected := self.prep["shards"][shard_index]["records"]):
            raise RuntimeError(f"the shard has {len(source)} records, prep.json lists {expected}")
        return source

    def read_bytes(self, index: int) -> bytes:
        """Returns the stored bytes of one record; its checksum is verified.

        Raises:
          DamagedRecordError: The shard is truncated or a bit of it has changed.
          OSError: The shard is missing or cannot be opened.
          ValueError: The number of shards or records does not match prep.json and manifest.csv.
          IndexError: `index` is larger than the largest record index.
        """
        paths, shard_index = self._shard_paths, bisect.bisect_right(self._shard_ends, index)
        shard_start = self._shard_ends[shard_index] - self.prep["shards"][shard_index]["records"]
        try:
            if shard_index not in self._shard_sources:
                self._shard_sources[shard_index] = self._open_shard(paths[shard_index], shard_index)
            return self._shard_sources[shard_index][int(index) - shard_start]
        except RuntimeError as error:  # raised by ArrayRecord, without the name of the file
            with open(paths[shard_index], "rb"):  # a missing or unreadable file raises OSError here
                pass
            raise self._damaged_record(index, shard_index, error) from error

    def read(self, index: int) -> records.Record:
        """Returns one decoded record; its arrays are read-only.

        Raises:
          DamagedRecordError: The record is damaged or a field is not valid; names the shard, clip and field.
          OSError: The shard is missing or cannot be opened.
          ValueError: The number of shards or records does not match prep.json and manifest.csv.
          IndexError: `index` is larger than the largest record index.
        """
        data = self.read_bytes(index)
        try:
            return records.decode(data, self.shape)
        except ValueError as error:
            raise self._damaged_record(index, bisect.bisect_right(self._shard_ends, index), error) from error

    def _damaged_record(self, index: int, shard_index: int, error: Exception) -> DamagedRecordError:
        location = f"{self._shard_paths[shard_index]}: clip {self.clip_ids[index]!r}"
        return DamagedRecordError(f"{location}: {to_one_line(error)}; {REPAIR_HINT}")


def open_dataset(path: str, recipe: str | None = None) -> Dataset:
    """Opens a directory that `emofuse prepare` wrote and returns its `Dataset`.

    Reads prep.json and manifest.csv, but no record.

    Args:
      path: The directory.
      recipe: Recipe that the records must have; None: any.

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
    """Returns the record indices of one split (train, validation or test) of a fold, in the file's order.

    Raises:
      FileNotFoundError: The protocol has no such fold, or does not exist; lists the available protocols.
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
        raise ValueError(f"{fold_path}: field {split}: expected a list of clip_ids; write the split again")
    clip_ids = [str(clip) for clip in clips]
    unknown_clips = [clip_id for clip_id in clip_ids if clip_id not in dataset.index]
    if unknown_clips:
        raise ValueError(
            f"{fold_path}: field {split} names clip {unknown_clips[0][:100]!r}, which has no record in"
            " manifest.csv; write the split again"
        )
    return np.array([dataset.index[clip] for clip in clip_ids], np.int64)


def list_folds(dataset: Dataset, protocol: str) -> list[int]:
    """Returns the sorted numbers of a protocol's folds.

    Raises:
      FileNotFoundError: The records have no such protocol; lists the available ones.
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

    The list is empty if there are none.

    Raises:
      FileNotFoundError: The fold does not exist.
      ValueError: The file of the fold is not valid JSON.
    """
    fold_path = os.path.join(dataset.path, "splits", protocol, f"fold_{fold}.json")
    return list(cast(FoldParts, read_json(fold_path)).get("leaks", ()))


def read_statistics(
    dataset: Dataset, protocol: str, fold: int
) -> tuple[Float[np.ndarray, " f"], Float[np.ndarray, " f"]]:
    """Returns `(mean, std)` of each spectrogram bin over a fold's training clips; std: standard deviation.

    Both arrays are float32 of shape [f], in the unit of the spectrogram.

    Raises:
      FileNotFoundError: The records have no statistics of this fold.
      ValueError: The file is damaged or has another number of bins, a mean is not finite, or a standard
        deviation is not positive.
    """
    statistics_path = os.path.join(dataset.path, "stats", protocol, f"fold_{fold}.npz")
    if not os.path.exists(statistics_path):
        raise FileNotFoundError(f"{statistics_path}: file not found; run emofuse prepare first")
    bins_shape = (dataset.shape.f,)
    try:
        stats = read_npz(statistics_path, {"mean": bins_shape, "std": bins_shape})
    except ValueError as error:
        raise ValueError(f"{statistics_path}: {error}") from error
    mean, std = (stats[field].astype(np.float32) for field in ("mean", "std"))
    if not (np.isfinite(mean).all() and np.all(std > 0)):
        raise ValueError(
            f"{statistics_path}: expected a finite mean and a positive std of {bins_shape[0]} bins;"
            " prepare the clips again"
        )
    return mean, std
