"""Reads and writes stored results: tests/golden/peer_<case>.npz, with names `group/name`; needs no torch."""

import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent.parent / "golden"


def case_path(name: str) -> pathlib.Path:
    return FOLDER / f"peer_{name}.npz"


def save(name: str, groups: dict[str, dict[str, np.ndarray]]) -> pathlib.Path:
    path = case_path(name)
    np.savez_compressed(path, **{f"{g}/{k}": v for g, arrays in groups.items() for k, v in arrays.items()})
    return path


def load(name: str) -> dict[str, dict[str, np.ndarray]]:
    groups = {"in": {}, "out": {}, "cotangent": {}, "grad": {}}
    with np.load(case_path(name)) as stored:
        for key in stored.files:
            group, _, array = key.partition("/")
            groups[group][array] = stored[key]
    return groups


def list_cases() -> list[str]:
    return sorted(path.stem.removeprefix("peer_") for path in FOLDER.glob("peer_*.npz"))
