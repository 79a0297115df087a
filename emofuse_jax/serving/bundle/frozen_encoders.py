"""Frozen encoders of a bundle: identified by their SHA-256 and, on request, copied into the bundle."""

import os
import shutil
from collections.abc import Collection, Mapping

from emofuse_jax.data.metadata import PrepSettingsDict
from emofuse_jax.data.records import ENCODER_PATHS_FILE
from emofuse_jax.serving.bundle.format import encoder_file_name
from emofuse_jax.serving.bundle.metadata import EncoderReference
from emofuse_jax.training.checkpoint.metadata import CheckpointMetadata
from emofuse_jax.utils import onnx_files
from emofuse_jax.utils.files import file_sha256, read_json_object

INPUTS_BY_ENCODER = {
    "audio": {"audio_features"},
    "face": {"face_features"},
    "detector": {"faces", "face_features"},
}
"""Model inputs that are prepared with each kind of ONNX file."""


def describe_encoders(settings: PrepSettingsDict, inputs: Collection[str]) -> dict[str, EncoderReference]:
    """Returns {"file", "sha256"} of each ONNX file that prepares the model's inputs, by kind of the file.

    `file` is its name. A kind (`audio`, `face` or `detector`) is missing if the model needs no such file.
    Features that `write_records` stored come from no file.

    Args:
      settings: preparation settings from prep.json; only `features` is read, a dict of `audio`, `face` and
        `detector`, each None or a dict with `file` and `sha256`.
      inputs: names of the model's inputs.

    Raises:
      KeyError: the settings lack one of these fields.
    """
    features = settings["features"]
    encoders = {"audio": features["audio"], "face": features["face"], "detector": features["detector"]}
    return {
        kind: {"file": encoder["file"], "sha256": encoder["sha256"]}
        for kind, encoder in encoders.items()
        if INPUTS_BY_ENCODER[kind] & {*inputs} and encoder and encoder["sha256"]
    }


def locate_encoders(
    metadata: CheckpointMetadata,
    encoders: Mapping[str, EncoderReference],
    encoder_paths: Mapping[str, str],
) -> dict[str, str]:
    """Returns the path of each ONNX file in `encoders`, by kind, after checking its SHA-256.

    Args:
      metadata: the checkpoint's metadata; only `config.data.path` is read, the records directory. Its file
        .prepare/encoder_paths.json states where the files were during preparation.
      encoders: `file` (name) and `sha256` of each ONNX file that the model needs, by kind: `audio`, `face` or
        `detector`.
      encoder_paths: paths passed by the user, by kind, "" if not passed; these take precedence.

    Raises:
      ValueError: a file does not exist or has another SHA-256.
      OSError: a file cannot be read.
    """
    return {
        kind: _check_encoder_file(kind, encoder, encoder_paths.get(kind) or _recorded_path(metadata, kind))
        for kind, encoder in encoders.items()
    }


def copy_encoders(encoder_paths: Mapping[str, str], directory: str) -> None:
    """Copies ONNX files into the bundle `directory`, each with the YAML file next to it if there is one.

    `encoder_paths` has the path of each ONNX file by kind (`audio`, `face` or `detector`); the YAML file has
    the same path, but ends in .yaml. The copies are named after the kind, such as audio_encoder.onnx and
    audio_encoder.yaml, and replace existing files. Raises OSError if a file cannot be read or written, and
    KeyError for another kind.
    """
    for kind, path in encoder_paths.items():
        target = os.path.join(directory, encoder_file_name(kind))
        shutil.copyfile(path, target)
        source_yaml, target_yaml = (f"{os.path.splitext(name)[0]}.yaml" for name in (path, target))
        if os.path.exists(source_yaml):
            shutil.copyfile(source_yaml, target_yaml)


def _recorded_path(metadata: CheckpointMetadata, kind: str) -> str:
    """Returns the path that the ONNX file had when the records were prepared, or "" if it is unknown.

    It is unknown if the records directory (`config.data.path` in `metadata`) has no valid file with these
    paths, .prepare/encoder_paths.json, or the file has none for `kind`. Raises OSError if that file exists
    but cannot be read.
    """
    records_dir = metadata["config"]["data"]["path"]
    try:
        path = read_json_object(os.path.join(records_dir, ENCODER_PATHS_FILE)).get(kind)
    except (FileNotFoundError, ValueError):
        return ""
    return path if isinstance(path, str) else ""


def _check_encoder_file(kind: str, encoder: EncoderReference, path: str) -> str:
    """Returns `path`; raises ValueError if there is no such file or its SHA-256 is not that in `encoder`.

    `kind` (`audio`, `face` or `detector`) is for the message. Raises OSError if the file cannot be read.
    """
    if not path or not os.path.exists(path):
        raise ValueError(
            f"--include_encoders: {path or encoder['file']} was not found; pass"
            f" --{onnx_files.FLAG_NAMES[kind]}=FILE with sha256 {encoder['sha256']}"
        )
    if (digest := file_sha256(path)) != encoder["sha256"]:
        raise ValueError(
            f"{path}: sha256 {digest}: expected {encoder['sha256']}; pass the file that prepared the"
            f" records as --{onnx_files.FLAG_NAMES[kind]}"
        )
    return path
