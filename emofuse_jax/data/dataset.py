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
from emofuse_jax.utils.errors import one_line
from emofuse_jax.utils.safe_npz import read_npz

PARTS = ("train", "validation", "test")
REPAIR = "remove that file, and the emofuse prepare command that wrote it makes it again"


class DamagedRecord(ValueError):
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
    def _ends(self) -> list[int]:
        """Records before the end of each shard."""
        return list(itertools.accumulate(shard["records"] for shard in self.prep["shards"]))

    @functools.cached_property
    def _shards(self) -> dict[int, grain.sources.ArrayRecordDataSource]:
        """Those that were read from."""
        return {}

    @functools.cached_property
    def _paths(self) -> list[str]:
        paths = records.shard_paths(self.path)
        total = sum(shard["records"] for shard in self.prep["shards"])
        if (len(paths), total) != (len(self._ends), len(self.index)):
            raise ValueError(
                f"{self.path}: prep.json has {len(self._ends)} shards of {total} records in all,"
                f" there are {len(paths)}, and manifest.csv names {len(self.index)} records"
            )
        return paths

    def _open(self, path: str, shard: int) -> grain.sources.ArrayRecordDataSource:
        source = grain.sources.ArrayRecordDataSource([path])
        if len(source) != (expected := self.prep["shards"][shard]["records"]):
            raise RuntimeError(f"{len(source)} records, prep.json says {expected}")
        return source

    def read_bytes(self, index: int) -> bytes:
        """One record as it lies on disk.

        Raises DamagedRecord where its shard is cut short or a bit was lost, OSError where it can't be opened.
        """
        paths, shard = self._paths, bisect.bisect_right(self._ends, index)
        first = self._ends[shard] - self.prep["shards"][shard]["records"]
        try:
            if shard not in self._shards:
                self._shards[shard] = self._open(paths[shard], shard)
            return self._shards[shard][int(index) - first]
        except RuntimeError as error:  # of ArrayRecord, which names no file
            with open(paths[shard], "rb"):  # what is gone, or not ours to read, is no damage
                pass
            raise self._damaged(index, shard, error) from error

    def read(self, index: int) -> records.Record:
        """Decodes one record; raises DamagedRecord naming the file and the field that is wrong."""
        data = self.read_bytes(index)
        try:
            return records.decode(data, self.shape)
        except ValueError as error:
            raise self._damaged(index, bisect.bisect_right(self._ends, index), error) from error

    def _damaged(self, index: int, shard: int, error: Exception) -> DamagedRecord:
        where = f"{self._paths[shard]}: clip {self.clip_ids[index]!r}"
        return DamagedRecord(f"{where}: {one_line(error)}; {REPAIR}")


def open_dataset(path: str, recipe: str | None = None) -> Dataset:
    """Opens a directory written by `emofuse prepare`; a recipe other than the asked one is a ValueError."""
    prep = read_prep(path)
    found = prep["settings"]["recipe"]
    if recipe is not None and found != recipe:
        raise ValueError(f"{path}: prep.json has recipe {found!r}, the config needs {recipe!r}")
    index, speakers = read_index(path)
    return Dataset(path, prep, index, speakers)


def split_indices(dataset: Dataset, protocol: str, fold: int, part: str) -> Int[np.ndarray, " n"]:
    """Record indices of one part (train, validation, test) of a fold; ValueError on an unknown clip."""
    name = os.path.join(dataset.path, "splits", protocol, f"fold_{fold}.json")
    if not os.path.exists(name):
        have = sorted(os.listdir(os.path.join(dataset.path, "splits")))
        raise FileNotFoundError(f"{name}: no such fold; protocols here: {', '.join(have)}")
    lists = read_json(name)
    if part not in PARTS:
        raise ValueError(f"split {part!r}: expected one of {', '.join(PARTS)}")
    if not isinstance(lists, dict) or not isinstance(lists.get(part), list):
        raise ValueError(f"{name}: field {part} is not a list of clips")
    unknown = [clip for clip in map(str, lists[part]) if clip not in dataset.index]
    if unknown:
        raise ValueError(f"{name}: {part} names clip {unknown[0][:100]!r}, which manifest.csv does not have")
    return np.array([dataset.index[clip] for clip in lists[part]], np.int64)


def protocol_folds(dataset: Dataset, protocol: str) -> list[int]:
    """The numbers of a protocol's folds; FileNotFoundError where it is not there."""
    folder = os.path.join(dataset.path, "splits", protocol)
    if not os.path.isdir(folder):
        have = ", ".join(sorted(os.listdir(os.path.join(dataset.path, "splits"))))
        raise FileNotFoundError(f"{folder}: no such protocol; there are {have}")
    names = [name for name in os.listdir(folder) if name.startswith("fold_") and name.endswith(".json")]
    return sorted(int(name[5:-5]) for name in names)


def split_leaks(dataset: Dataset, protocol: str, fold: int) -> list[str]:
    """What the parts of a fold share, where its split was taken with --allow_leak."""
    name = os.path.join(dataset.path, "splits", protocol, f"fold_{fold}.json")
    return list(read_json(name).get("leaks", ()))


def statistics(
    dataset: Dataset, protocol: str, fold: int
) -> tuple[Float[np.ndarray, " f"], Float[np.ndarray, " f"]]:
    """Per-bin mean and standard deviation over the training clips of a fold."""
    name = os.path.join(dataset.path, "stats", protocol, f"fold_{fold}.npz")
    if not os.path.exists(name):
        raise FileNotFoundError(f"{name}: not there; run emofuse prepare first")
    bins = (dataset.shape.f,)
    try:
        stats = read_npz(name, {"mean": bins, "std": bins})
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    mean, std = (stats[field].astype(np.float32) for field in ("mean", "std"))
    if not (np.isfinite(mean).all() and np.all(std > 0)):
        raise ValueError(f"{name}: expected a finite mean and a positive std of {bins[0]} bins")
    return mean, std
