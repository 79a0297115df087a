"""Records: serialised examples through the codec into a batch, and whole shards through a dataset."""

import os

import numpy as np

from emofuse_jax.data import records
from emofuse_jax.data.collate import empty_batch, fill_row
from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.data.example_codec import parse_example, serialize_example
from emofuse_jax.data.pipeline import load_batch
from emofuse_jax.types import InputSpec
from tests.robustness.fuzz.damage import damage_bytes, damage_tree, make_rng, read_tree
from tests.support.fakes import make_record, write_dataset

NAMED = r"field \w|not a record"
CLIPS = 12
SPEC = InputSpec(t=140, f=70, s=4, h=16, w=16, classes=3)
SHAPE = records.RecordShape(f=70, h=16, w=16)
HOSTILE_INTEGERS = (-1, 0, 2, 3, 2**31, 2**40, -(2**63), 2**63 - 1)


def make(folder: str) -> None:
    """A small prepared directory."""
    write_dataset(folder, num_clips=CLIPS, num_shards=2)


def load(folder: str):
    """The folder, its shards, and records as bytes by name."""
    shards = {name: data for name, data in read_tree(folder).items() if ".array_record-" in name}
    return folder, shards, {f"{i}": records.encode(make_record(i)) for i in range(CLIPS)}


def attempt(case, seed: int, scratch: str) -> None:
    """Three in four are single records, of which half have whole fields exchanged."""
    folder, shards, encoded_records = case
    rng = make_rng("records", seed)
    if rng.integers(4) == 0:
        path = os.path.join(scratch, "records")
        damage_tree(folder, path, shards, rng)
        _read_all(path)
        return
    name = str(rng.integers(CLIPS))
    data = (
        damage_bytes(encoded_records, name, rng)
        if rng.integers(2)
        else _with_other_fields(encoded_records[name], rng)
    )
    record = records.decode(data, SHAPE)
    fill_row(empty_batch(1, SPEC), 0, record)


def _read_all(path: str) -> None:
    dataset = open_dataset(path, "fbp")
    load_batch(dataset, np.arange(len(dataset.index)), SPEC)


def _with_other_fields(data: bytes, rng) -> bytes:
    """Well-formed messages that mean nothing: fields are lost, exchanged, cut, or of another kind."""
    fields = {name: values[0] for name, values in parse_example(data).items()}
    fields = {k: v if isinstance(v, int) else bytes(v) for k, v in fields.items()}
    names = sorted(fields)
    for _ in range(rng.integers(1, 3)):
        name, other = (names[i] for i in rng.integers(0, len(names), 2))
        change = rng.integers(6)
        if change == 0:
            fields.pop(name, None)
        elif change == 1:
            fields[name] = fields.get(other, b"")
        elif change == 2 or not isinstance(fields.get(name), bytes):
            fields[name] = HOSTILE_INTEGERS[rng.integers(len(HOSTILE_INTEGERS))]
        elif change == 3:
            fields[name] = fields[name][: rng.integers(len(fields[name]) + 1)]
        elif change == 4:
            fields[name] = rng.bytes(len(fields[name]))
        else:
            fields[name] = fields[name] + rng.bytes(int(rng.integers(1, 9)))
    return serialize_example(fields)
