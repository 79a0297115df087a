"""What lies beside the shards of a prepared directory: prep.json, manifest.csv, splits, statistics."""

import os

import numpy as np

from emofuse_jax.data.dataset import (
    PARTS,
    open_dataset,
    protocol_folds,
    split_indices,
    split_leaks,
    statistics,
)
from emofuse_jax.data.pipeline import load_batch
from emofuse_jax.train.experiment import input_spec
from tests.fakes import tiny_config, write_dataset
from tests.fuzz.damage import damage_tree, read_tree, rng_of

NAMED = r"config\."
PROTOCOL = "fake_1fold"


def make(folder: str) -> None:
    """A small prepared directory."""
    write_dataset(folder, clips=12, shards=2)


def load(folder: str):
    """The folder, what lies beside its shards, and a config that fits."""
    beside = {name: data for name, data in read_tree(folder).items() if ".array_record-" not in name}
    return folder, beside, tiny_config("")


def attempt(case, seed: int, scratch: str) -> None:
    """Reads all that training reads before its first step."""
    folder, beside, config = case
    path = os.path.join(scratch, "records")
    damage_tree(folder, path, beside, rng_of("prepared", seed))
    dataset = open_dataset(path, "fbp")
    spec = input_spec(config, dataset)
    clips = [
        split_indices(dataset, PROTOCOL, fold, part)
        for part in PARTS
        for fold in protocol_folds(dataset, PROTOCOL)
    ]
    split_leaks(dataset, PROTOCOL, 0)
    mean, std = statistics(dataset, PROTOCOL, 0)
    assert mean.dtype == std.dtype == np.float32
    load_batch(dataset, np.concatenate(clips), spec)
