"""Frozen encoders of a bundle: named by their hash, and carried where that is asked for."""

import os
import shutil
from collections.abc import Collection

from emofuse_jax.data.dataset import read_json
from emofuse_jax.data.records import ENCODER_PATHS_FILE
from emofuse_jax.serving.bundle.format import encoder_file_name
from emofuse_jax.utils import onnx_files
from emofuse_jax.utils.files import file_sha256

INPUTS_BY_ENCODER = {
    "audio": {"audio_features"},
    "face": {"face_features"},
    "detector": {"faces", "face_features"},
}
"""The inputs that are made with each kind of ONNX file."""


def describe_encoders(settings: dict, inputs: Collection[str]) -> dict[str, dict]:
    """`file` and `sha256` of each ONNX file that makes what the model reads; `settings`: of prep.json."""
    features = settings["features"]
    used_encoders = {
        kind: features[kind]
        for kind, input_names in INPUTS_BY_ENCODER.items()
        if input_names & {*inputs} and features[kind]
    }
    return {
        kind: {"file": encoder["file"], "sha256": encoder["sha256"]}
        for kind, encoder in used_encoders.items()
    }


def locate_encoders(
    metadata: dict, encoders: dict[str, dict], encoder_paths: dict[str, str]
) -> dict[str, str]:
    """The ONNX file of each encoder in `encoders`: as given, or as the training records remember.

    Raises ValueError where a file is not there or has another hash.
    """
    return {
        kind: _check_encoder_file(kind, encoder, encoder_paths.get(kind) or _recorded_path(metadata, kind))
        for kind, encoder in encoders.items()
    }


def copy_encoders(encoder_paths: dict[str, str], directory: str) -> None:
    """Copies ONNX files, and the YAML beside each where there is one, into a bundle."""
    for kind, path in encoder_paths.items():
        target = os.path.join(directory, encoder_file_name(kind))
        shutil.copyfile(path, target)
        source_yaml, target_yaml = (f"{os.path.splitext(name)[0]}.yaml" for name in (path, target))
        if os.path.exists(source_yaml):
            shutil.copyfile(source_yaml, target_yaml)


def _recorded_path(metadata: dict, kind: str) -> str:
    records_dir = metadata["config"]["data"]["path"]
    try:
        return read_json(os.path.join(records_dir, ENCODER_PATHS_FILE)).get(kind, "")
    except (FileNotFoundError, ValueError):
        return ""


def _check_encoder_file(kind: str, encoder: dict, path: str) -> str:
    if not path or not os.path.exists(path):
        raise ValueError(
            f"--include_encoders: {path or encoder['file']} is not there; give"
            f" --{onnx_files.FLAG_NAMES[kind]}=FILE with sha256 {encoder['sha256']}"
        )
    if (digest := file_sha256(path)) != encoder["sha256"]:
        raise ValueError(f"{path}: sha256 {digest}, expected {encoder['sha256']}")
    return path
