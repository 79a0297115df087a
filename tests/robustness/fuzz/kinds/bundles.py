"""Files of a serving bundle, run on its stored inputs; half of them with the hashes mended.

One in eight has right hashes throughout, and a graph that asks for more than to compute, or arrays that
unpack to more than there is.
"""

import json
import os
import shutil

import numpy as np

from emofuse_jax.api.export import export_bundle
from emofuse_jax.serving import load as load_bundle
from emofuse_jax.serving.bundle import format
from emofuse_jax.serving.bundle.stablehlo_check import READER_COMMAND
from emofuse_jax.serving.media.prepare_window import check_encoders, prep_requirements
from emofuse_jax.serving.predictions import make_prediction
from emofuse_jax.serving.windows import plan_windows
from tests.robustness.fuzz.bombs import BOMB_FOLDER, write_bombs
from tests.robustness.fuzz.damage import damage_tree, make_rng, read_tree
from tests.robustness.fuzz.graphs import FORBIDDEN_OPERATIONS, NESTED_OPERATION, plant_operations
from tests.robustness.fuzz.verdict import Broken
from tests.support.bundles import save_checkpoint

NAMED = r"field \w"
OWN_PROGRAM = READER_COMMAND


def make(folder: str) -> None:
    """The bundle of a tiny network."""
    save_checkpoint(os.path.join(folder, "run"), "audio_only")
    path = os.path.join(folder, "bundle")
    export_bundle(os.path.join(folder, "run"), path)
    with np.load(os.path.join(path, format.PARITY_FILE), allow_pickle=False) as stored:
        write_bombs(folder, sorted(stored.files))


def load(folder: str):
    """The folder, its files, and bombs by name; a whole bundle is run, so that all is imported."""
    path = os.path.join(folder, "bundle")
    _load_and_run(path)
    return path, read_tree(path), read_tree(os.path.join(folder, BOMB_FOLDER))


def attempt(case, seed: int, scratch: str) -> None:
    """Opens it as `emofuse predict` does and runs it on its stored inputs."""
    folder, files, bombs = case
    rng = make_rng("bundles", seed)
    path = os.path.join(scratch, "bundle")
    if rng.integers(8) == 0:
        shutil.copytree(folder, path)
        _plant(path, files, bombs, rng)
        update_hashes(path)
        _load_and_run(path)
        raise Broken("it was taken")
    has_right_hashes = bool(rng.integers(2))
    if has_right_hashes:
        files = {name: data for name, data in files.items() if name != "MODEL_CARD.md"}
    damage_tree(folder, path, files, rng)
    if has_right_hashes:
        update_hashes(path)
    _load_and_run(path)


def _plant(path: str, files: dict[str, bytes], bombs: dict[str, bytes], rng) -> None:
    if rng.integers(3):
        name, operations = format.GRAPH_FILE, [*FORBIDDEN_OPERATIONS.values(), NESTED_OPERATION]
        data = plant_operations(files[name], operations[rng.integers(len(operations))])
    else:
        name, data = format.PARITY_FILE, bombs[sorted(bombs)[rng.integers(len(bombs))]]
    with open(os.path.join(path, name), "wb") as file:
        file.write(data)


def _load_and_run(path: str) -> None:
    bundle = load_bundle(path)
    check_encoders(bundle)
    prep_requirements(bundle)
    plan_windows(3.0, bundle)
    bundle.measure_parity()
    output = {"probabilities": [1.0 / len(bundle.classes)] * len(bundle.classes)}
    make_prediction(bundle.classes, output, audio_ok=True, video_ok=True)


def update_hashes(path: str) -> None:
    """Hashes of the files as they are now, as far as bundle.json can still be written."""
    name = os.path.join(path, format.MANIFEST_FILE)
    try:
        with open(name, encoding="utf-8") as file:
            metadata = json.load(file)
        for file_name in metadata["files"]:
            with open(os.path.join(path, os.path.basename(file_name)), "rb") as file:
                metadata["files"][file_name] = format.sha256(file.read())
        with open(name, "w", encoding="utf-8") as file:
            json.dump(metadata, file)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return  # what is damaged is the manifest itself
