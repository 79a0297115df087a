"""A prepared directory of records: its metadata, its lists of clips, and random access to its clips."""

import dataclasses
import functools
import json
import os

import grain
import numpy as np
from jaxtyping import Float, Int

from emofuse_jax.data import records

PARTS = ("train", "validation", "test")


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
    def _source(self) -> grain.sources.ArrayRecordDataSource:
        source = grain.sources.ArrayRecordDataSource(records.shard_paths(self.path))
        if len(source) != len(self.index):
            raise ValueError(
                f"{self.path}: shards hold {len(source)} records, manifest.csv {len(self.index)}"
            )
        return source

    def read_bytes(self, index: int) -> bytes:
        """One record as it lies on disk."""
        return self._source[int(index)]

    def read(self, index: int) -> records.Record:
        """Decodes one record; raises ValueError naming the dataset and the field that is wrong."""
        try:
            return records.decode(self.read_bytes(index), self.shape)
        except ValueError as error:
            raise ValueError(f"{self.path}: record {index}: {error}") from error


def open_dataset(path: str, recipe: str | None = None) -> Dataset:
    """Opens a directory written by `emofuse prepare`; a recipe other than the asked one is a ValueError."""
    prep = read_json(os.path.join(path, "prep.json"))
    if prep["schema_version"] > records.SCHEMA_VERSION:
        newest = records.SCHEMA_VERSION
        raise ValueError(f"{path}: prep.json has schema {prep['schema_version']}, newer than {newest}")
    found = prep["settings"]["recipe"]
    if recipe is not None and found != recipe:
        raise ValueError(f"{path}: prep.json has recipe {found!r}, the config needs {recipe!r}")
    rows = [row for row in records.read_manifest(path) if int(row["index"]) >= 0]
    index = {row["clip_id"]: int(row["index"]) for row in rows}
    return Dataset(path, prep, index, {row["clip_id"]: row["speaker"] for row in rows})


def read_json(path: str) -> dict:
    """Reads a JSON file; FileNotFoundError and ValueError name it."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: not there; run emofuse prepare first") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error


def split_indices(dataset: Dataset, protocol: str, fold: int, part: str) -> Int[np.ndarray, " n"]:
    """Record indices of one part (train, validation, test) of a fold; ValueError on an unknown clip."""
    name = os.path.join(dataset.path, "splits", protocol, f"fold_{fold}.json")
    if not os.path.exists(name):
        have = sorted(os.listdir(os.path.join(dataset.path, "splits")))
        raise FileNotFoundError(f"{name}: no such fold; protocols here: {', '.join(have)}")
    lists = read_json(name)
    if part not in PARTS:
        raise ValueError(f"split {part!r}: expected one of {', '.join(PARTS)}")
    unknown = [clip for clip in lists[part] if clip not in dataset.index]
    if unknown:
        raise ValueError(f"{name}: {part} names clip {unknown[0]!r}, which manifest.csv does not have")
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
    with np.load(name, allow_pickle=False) as stats:
        return stats["mean"].astype(np.float32), stats["std"].astype(np.float32)
