"""Frozen encoders of a bundle: named by their hash, and carried where that is asked for."""

import os
import shutil
from collections.abc import Collection

from emofuse_jax.data.dataset import read_json
from emofuse_jax.data.records import ENCODER_PATHS_FILE
from emofuse_jax.serving.bundle.format import encoder_file, file_sha256
from emofuse_jax.utils import onnx_files

READERS = {
    "audio": {"audio_features"},
    "face": {"face_features"},
    "detector": {"faces", "face_features"},
}
"""The inputs that are made with each kind of ONNX file."""


def named(settings: dict, inputs: Collection[str]) -> dict[str, dict]:
    """`file` and `sha256` of each ONNX file that makes what the model reads; `settings`: of prep.json."""
    features = settings.get("features") or {}
    used = {kind: features[kind] for kind, made in READERS.items() if made & {*inputs} and features.get(kind)}
    return {kind: {"file": one["file"], "sha256": one["sha256"]} for kind, one in used.items()}


def locate(metadata: dict, wanted: dict[str, dict], given: dict[str, str]) -> dict[str, str]:
    """The ONNX file of each encoder in `wanted`: as given, or as the training records remember.

    Raises ValueError where a file is not there or has another hash.
    """
    return {
        kind: _file(kind, one, given.get(kind) or _remembered(metadata, kind)) for kind, one in wanted.items()
    }


def copy(files: dict[str, str], directory: str) -> None:
    """Copies ONNX files, and the YAML beside each where there is one, into a bundle."""
    for kind, path in files.items():
        target = os.path.join(directory, encoder_file(kind))
        shutil.copyfile(path, target)
        layout, beside = (f"{os.path.splitext(name)[0]}.yaml" for name in (path, target))
        if os.path.exists(layout):
            shutil.copyfile(layout, beside)


def _remembered(metadata: dict, kind: str) -> str:
    records = metadata["config"].get("data", {}).get("path", "")
    try:
        return read_json(os.path.join(records, ENCODER_PATHS_FILE)).get(kind, "")
    except (FileNotFoundError, ValueError):
        return ""


def _file(kind: str, one: dict, path: str) -> str:
    if not path or not os.path.exists(path):
        raise ValueError(
            f"--include_encoders: {path or one['file']} is not there; give"
            f" --{onnx_files.FLAG_NAMES[kind]}=FILE with sha256 {one['sha256']}"
        )
    if (found := file_sha256(path)) != one["sha256"]:
        raise ValueError(f"{path}: sha256 {found}, expected {one['sha256']}")
    return path
