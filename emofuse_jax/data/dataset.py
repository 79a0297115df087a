"""A prepared directory of records: its metadata, its lists of clips, and random access to its clips."""

import bisect
import dataclasses
import functools
import itertools
import os

import grain
import numpy as np
from jaxtyping import Float, Int

from emofuse_jax.data import records
from emofuse_jax.data.prepared_files import read_index, read_json, read_prep
from emofuse_jax.utils.errors import to_one_line
from emofuse_jax.utils.safe_npz import read_npz

SPLITS = ("train", "validation", "test")
REPAIR_HINT = "remove that file, and the emofuse prepare command that wrote it makes it again"


class DamagedRecordError(ValueError):
    """A record that its checksum or its decoder refuses; the message names its file."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Where the records lie and what they mean; `read` gives clips by their index."""

    path: str
    prep: dict
    """prep.json: settings, corpus, classes, speakers, shape."""
    index: dict[str, int]
    """clip_id to record index."""
    speaker_of: dict[str, str]
    """clip_id to speaker."""

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
        """The dimensions that all records share."""
        return records.RecordShape(**self.prep["shape"])

    @functools.cached_property
    def clip_ids(self) -> tuple[str, ...]:
        """clip_id of each record, by index."""
        return tuple(sorted(self.index, key=self.index.get))

    @functools.cached_property
    def _shard_ends(self) -> list[int]:
        """Records before the end of each shard."""
        return list(itertools.accumulate(shard["records"] for shard in self.prep["shards"]))

    @functools.cached_property
    def _shard_sources(self) -> dict[int, grain.sources.ArrayRecordDataSource]:
        """Those that were read from."""
        return {}

    @functools.cached_property
    def _shard_paths(self) -> list[str]:
        paths = records.shard_paths(self.path)
        total = sum(shard["records"] for shard in self.prep["shards"])
        if (len(paths), total) != (len(self._shard_ends), len(self.index)):
            raise ValueError(
                f"{self.path}: prep.json has {len(self._shard_ends)} shards of {total} records in all,"
                f" there are {len(paths)}, and manifest.csv names {len(self.index)} records"
            )
        return paths

    def _open_shard(self, path: str, shard_index: int) -> grain.sources.ArrayRecordDataSource:
        source = grain.sources.ArrayRecordDataSource([path])
        if len(source) != (expected := self.prep["shards"][shard_index]["records"]):
            raise RuntimeError(f"{len(source)} records, prep.json says {expected}")
        return source

    def read_bytes(self, index: int) -> bytes:
        """One record as it lies on disk.

        Raises DamagedRecordError if its shard is cut short or a bit was lost, OSError if it can't be opened.
        """
        paths, shard_index = self._shard_paths, bisect.bisect_right(self._shard_ends, index)
        shard_start = self._shard_ends[shard_index] - self.prep["shards"][shard_index]["records"]
        try:
            if shard_index not in self._shard_sources:
                self._shard_sources[shard_index] = self._open_shard(paths[shard_index], shard_index)
            return self._shard_sources[shard_index][int(index) - shard_start]
        except RuntimeError as error:  # of ArrayRecord, which names no file
            with open(paths[shard_index], "rb"):  # what is gone, or not ours to read, is no damage
                pass
            raise self._damaged_record(index, shard_index, error) from error

    def read(self, index: int) -> records.Record:
        """Decodes one record; raises DamagedRecordError naming the file and the field that is wrong."""
        data = self.read_bytes(index)
        try:
            return records.decode(data, self.shape)
        except ValueError as error:
            raise self._damaged_record(index, bisect.bisect_right(self._shard_ends, index), error) from error

    def _damaged_record(self, index: int, shard_index: int, error: Exception) -> DamagedRecordError:
        location = f"{self._shard_paths[shard_index]}: clip {self.clip_ids[index]!r}"
        return DamagedRecordError(f"{location}: {to_one_line(error)}; {REPAIR_HINT}")


def open_dataset(path: str, recipe: str | None = None) -> Dataset:
    """Opens a directory written by `emofuse prepare`; a recipe other than the asked one is a ValueError."""
    prep = read_prep(path)
    stored_recipe = prep["settings"]["recipe"]
    if recipe is not None and stored_recipe != recipe:
        raise ValueError(f"{path}: prep.json has recipe {stored_recipe!r}, the config needs {recipe!r}")
    index, speakers = read_index(path)
    return Dataset(path, prep, index, speakers)


def split_indices(dataset: Dataset, protocol: str, fold: int, split: str) -> Int[np.ndarray, " n"]:
    """Record indices of one part (train, validation, test) of a fold; ValueError on an unknown clip."""
    fold_path = os.path.join(dataset.path, "splits", protocol, f"fold_{fold}.json")
    if not os.path.exists(fold_path):
        protocols = sorted(os.listdir(os.path.join(dataset.path, "splits")))
        raise FileNotFoundError(f"{fold_path}: no such fold; protocols here: {', '.join(protocols)}")
    clip_lists = read_json(fold_path)
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    if not isinstance(clip_lists, dict) or not isinstance(clip_lists.get(split), list):
        raise ValueError(f"{fold_path}: field {split} is not a list of clips")
    unknown_clips = [clip for clip in map(str, clip_lists[split]) if clip not in dataset.index]
    if unknown_clips:
        raise ValueError(
            f"{fold_path}: {split} names clip {unknown_clips[0][:100]!r}, which manifest.csv does not have"
        )
    return np.array([dataset.index[clip] for clip in clip_lists[split]], np.int64)


def list_folds(dataset: Dataset, protocol: str) -> list[int]:
    """The numbers of a protocol's folds; FileNotFoundError where it is not there."""
    folder = os.path.join(dataset.path, "splits", protocol)
    if not os.path.isdir(folder):
        protocols = ", ".join(sorted(os.listdir(os.path.join(dataset.path, "splits"))))
        raise FileNotFoundError(f"{folder}: no such protocol; there are {protocols}")
    names = [name for name in os.listdir(folder) if name.startswith("fold_") and name.endswith(".json")]
    return sorted(int(name[5:-5]) for name in names)


def read_split_leaks(dataset: Dataset, protocol: str, fold: int) -> list[str]:
    """What the parts of a fold share, where its split was taken with --allow_leak."""
    fold_path = os.path.join(dataset.path, "splits", protocol, f"fold_{fold}.json")
    return list(read_json(fold_path).get("leaks", ()))


def read_statistics(
    dataset: Dataset, protocol: str, fold: int
) -> tuple[Float[np.ndarray, " f"], Float[np.ndarray, " f"]]:
    """Per-bin mean and standard deviation over the training clips of a fold."""
    statistics_path = os.path.join(dataset.path, "stats", protocol, f"fold_{fold}.npz")
    if not os.path.exists(statistics_path):
        raise FileNotFoundError(f"{statistics_path}: not there; run emofuse prepare first")
    bins_shape = (dataset.shape.f,)
    try:
        stats = read_npz(statistics_path, {"mean": bins_shape, "std": bins_shape})
    except ValueError as error:
        raise ValueError(f"{statistics_path}: {error}") from error
    mean, std = (stats[field].astype(np.float32) for field in ("mean", "std"))
    if not (np.isfinite(mean).all() and np.all(std > 0)):
        raise ValueError(
            f"{statistics_path}: expected a finite mean and a positive std of {bins_shape[0]} bins"
        )
    return mean, std
