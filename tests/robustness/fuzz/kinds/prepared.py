"""What lies beside the shards of a prepared directory: prep.json, manifest.csv, splits, statistics.

One in sixteen has statistics that unpack to more than there is.
"""

import os
import shutil

import numpy as np

from emofuse_jax.data.dataset import (
    SPLITS,
    list_folds,
    open_dataset,
    read_split_leaks,
    read_statistics,
    split_indices,
)
from emofuse_jax.data.pipeline import load_batch
from emofuse_jax.training.experiment import make_input_spec
from tests.robustness.fuzz.bombs import BOMB_FOLDER, write_bombs
from tests.robustness.fuzz.damage import damage_tree, make_rng, read_tree
from tests.support.fakes import tiny_config, write_dataset

NAMED = r"config\.|field \w"
PROTOCOL = "fake_1fold"


def make(folder: str) -> None:
    """A small prepared directory."""
    write_dataset(os.path.join(folder, "records"), num_clips=12, num_shards=2)
    write_bombs(folder, ["mean", "std"])


def load(folder: str):
    """The folder, what lies beside its shards, bombs by name, and a config that fits."""
    path = os.path.join(folder, "records")
    other_files = {name: data for name, data in read_tree(path).items() if ".array_record-" not in name}
    return path, other_files, read_tree(os.path.join(folder, BOMB_FOLDER)), tiny_config("")


def attempt(case, seed: int, scratch: str) -> None:
    """Reads all that training reads before its first step."""
    folder, other_files, bombs, config = case
    rng = make_rng("prepared", seed)
    path = os.path.join(scratch, "records")
    if rng.integers(16) == 0:
        shutil.copytree(folder, path)
        with open(os.path.join(path, "stats", PROTOCOL, "fold_0.npz"), "wb") as file:
            file.write(bombs[sorted(bombs)[rng.integers(len(bombs))]])
    else:
        damage_tree(folder, path, other_files, rng)
    dataset = open_dataset(path, "fbp")
    spec = make_input_spec(config, dataset)
    clips = [
        split_indices(dataset, PROTOCOL, fold, part)
        for part in SPLITS
        for fold in list_folds(dataset, PROTOCOL)
    ]
    read_split_leaks(dataset, PROTOCOL, 0)
    mean, std = read_statistics(dataset, PROTOCOL, 0)
    assert mean.dtype == std.dtype == np.float32
    load_batch(dataset, np.concatenate(clips), spec)
