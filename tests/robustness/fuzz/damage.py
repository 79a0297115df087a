"""Damaged bytes and directories, with the mutators of media (tests/support/damaged_media.py)."""

import json
import os
import shutil

import numpy as np

from tests.robustness.fuzz.values import json_bytes
from tests.support.damaged_media import MUTATORS


def make_rng(kind: str, seed: int) -> np.random.Generator:
    """Equal kind and seed, equal draws."""
    return np.random.default_rng([seed, *kind.encode()])


def damage_bytes(samples: dict[str, bytes], name: str, rng: np.random.Generator) -> bytes:
    """The bytes of a sample, damaged; JSON in half of the cases by its values."""
    data, others = samples[name], sorted(samples)
    if data[:1] in (b"{", b"[") and rng.integers(2):
        try:
            return json_bytes(json.loads(data), rng)
        except ValueError:
            pass  # it only began like JSON
    other = samples[others[rng.integers(len(others))]]
    mutator = MUTATORS[rng.integers(len(MUTATORS))]
    return mutator(data, rng, other) if data and other else rng.bytes(int(rng.integers(0, 100)))


def read_tree(folder: str) -> dict[str, bytes]:
    """Relative path to bytes of every file below a folder."""
    files = {}
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            with open(path, "rb") as file:
                files[os.path.relpath(path, folder)] = file.read()
    return files


def damage_tree(source: str, target: str, samples: dict[str, bytes], rng: np.random.Generator) -> list[str]:
    """Copies a folder with one or two of its files damaged, removed, emptied or replaced; their names."""
    shutil.copytree(source, target)
    names = sorted(samples)
    chosen = [names[rng.integers(len(names))] for _ in range(1 + (rng.integers(4) == 0))]
    for name in chosen:
        _damage_file(os.path.join(target, name), samples, name, rng)
    return chosen


def _damage_file(path: str, samples: dict[str, bytes], name: str, rng) -> None:
    damage_kind = rng.integers(20)
    if not os.path.isfile(path):  # gone, or a folder, by the first damage
        return
    if damage_kind == 0:
        os.remove(path)
    elif damage_kind == 1:
        os.remove(path)
        os.mkdir(path)
    else:
        data = b"" if damage_kind == 2 else damage_bytes(samples, name, rng)
        with open(path, "wb") as file:
            file.write(data)
