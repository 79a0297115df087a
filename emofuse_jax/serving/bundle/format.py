"""The files of a bundle and what `bundle.json` must say."""

import hashlib
import json
import math
import os
import stat

from emofuse_jax.serving.interfaces import MANIFEST_FILE
from emofuse_jax.utils import onnx_files
from emofuse_jax.utils.errors import other_schema_error
from emofuse_jax.utils.files import file_sha256

BUNDLE_KIND = "emofuse bundle"
SCHEMA_VERSION = 3
"""The schema that is written, and the only one that is read."""
GRAPH_FILE, WEIGHTS_FILE, PARITY_FILE = "model.stablehlo", "params.safetensors", "parity.npz"
ONNX_FILE = "model.onnx"
"""Where the export was asked for it."""
_FIELD_TYPES = {
    "classes": list,
    "settings": dict,
    "spec": dict,
    "window": dict,
    "modalities": list,
    "statistics": dict,
    "training_speakers": list,
    "versions": dict,
    "files": dict,
}
_MODALITIES = ("voice", "face")
_SIZES = ("t", "f", "s", "h", "w", "classes", "feature_steps", "audio_features", "face_features")


def read_manifest(path: str) -> dict:
    """bundle.json of the bundle at `path`, its fields checked.

    Raises:
      ValueError: not a bundle, of another schema, or a field is missing; one line that names the file.
    """
    manifest_path = os.path.join(path, MANIFEST_FILE)
    if not os.path.isfile(manifest_path):
        raise ValueError(f"{path}: not a bundle: it has no {MANIFEST_FILE}")
    try:
        with open(manifest_path, encoding="utf-8") as file:
            metadata = json.load(file, parse_constant=_parse_finite, parse_float=_parse_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{manifest_path}: not JSON: {error}") from error
    if not isinstance(metadata, dict) or metadata.get("kind") != BUNDLE_KIND:
        raise ValueError(f"{manifest_path}: not a bundle: field kind is not {BUNDLE_KIND!r}")
    schema = metadata.get("schema")
    if type(schema) is not int:
        raise ValueError(f"{manifest_path}: field schema: expected a number, found {str(schema)[:60]}")
    if schema != SCHEMA_VERSION:
        remedy = "export it again from the checkpoint"
        raise other_schema_error(manifest_path, "bundle", schema, SCHEMA_VERSION, metadata, remedy)
    for field, expected_type in _FIELD_TYPES.items():
        if not isinstance(metadata.get(field), expected_type):
            type_name = type(metadata.get(field)).__name__
            raise ValueError(
                f"{manifest_path}: field {field}: expected {expected_type.__name__}, found {type_name}"
            )
    _check_encoders(manifest_path, metadata.get("encoders", {}))
    _check_values(manifest_path, metadata)
    for file_name in (GRAPH_FILE, WEIGHTS_FILE, PARITY_FILE):
        if file_name not in metadata["files"]:
            raise ValueError(f"{manifest_path}: field files: expected {file_name} in it")
    return metadata


def _parse_finite(text: str) -> float:
    """A number of JSON; Python's parser lets NaN and Infinity pass, which no browser reads."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]}")
    return value


def _check_encoders(manifest_path: str, encoders: object) -> None:
    for kind, encoder in _require_dict(manifest_path, encoders, "encoders").items():
        if kind not in onnx_files.FLAG_NAMES:
            raise ValueError(
                f"{manifest_path}: field encoders: {kind[:60]!r}, expected {', '.join(onnx_files.FLAG_NAMES)}"
            )
        for field in ("file", "sha256"):
            if not isinstance(_require_dict(manifest_path, encoder, f"encoders.{kind}").get(field), str):
                raise ValueError(f"{manifest_path}: field encoders.{kind}.{field}: expected str")


def _check_values(manifest_path: str, metadata: dict) -> None:
    """The fields that the answer, its windows and its inputs are made with."""
    spec, window_seconds, modalities = (
        metadata["spec"],
        metadata["window"].get("seconds"),
        metadata["modalities"],
    )
    for field in _SIZES:
        if type(spec.get(field)) is not int or not 0 <= spec[field] < 1 << 31:
            raise ValueError(
                f"{manifest_path}: field spec.{field}: expected a size, found {str(spec.get(field))[:60]}"
            )
    if unknown_fields := sorted(spec.keys() - {*_SIZES}):
        raise ValueError(f"{manifest_path}: field spec: no such field: {unknown_fields[0][:60]!r}")
    if (
        not isinstance(window_seconds, int | float)
        or isinstance(window_seconds, bool)
        or not 0 < window_seconds < 1e6
    ):
        raise ValueError(
            f"{manifest_path}: field window.seconds: expected seconds, found {str(window_seconds)[:60]}"
        )
    if not modalities or any(entry not in _MODALITIES for entry in modalities):
        raise ValueError(f"{manifest_path}: field modalities: expected {' or '.join(_MODALITIES)}, or both")
    for field in ("classes", "training_speakers"):
        if not all(isinstance(entry, str) for entry in metadata[field]):
            raise ValueError(f"{manifest_path}: field {field}: expected names")
    if len({*metadata["classes"]}) != spec["classes"]:
        raise ValueError(
            f"{manifest_path}: field classes: expected {spec['classes']} different names, as"
            f" spec.classes says"
        )


def _require_dict(manifest_path: str, value, field: str) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{manifest_path}: field {field}: expected dict, found {type(value).__name__}")
    return value


def read_verified(path: str, name: str, digest: str) -> bytes:
    """Bytes of a file of the bundle; ValueError where it is missing or is not the one that was written."""
    if os.path.basename(name) != name or name in ("", ".", "..", MANIFEST_FILE) or not name.isprintable():
        raise ValueError(
            f"{path}/{MANIFEST_FILE}: field files names {name[:100]!r}, expected a plain file name"
        )
    try:
        if not stat.S_ISREG(os.stat(os.path.join(path, name)).st_mode):  # a pipe or device may never end
            raise ValueError(f"{path}/{name}: not a file")
        with open(os.path.join(path, name), "rb") as file:
            data = file.read()
    except OSError as error:
        raise ValueError(f"{path}/{name}: cannot be read: {error.strerror}") from error
    if sha256(data) != digest:
        raise ValueError(f"{path}/{name}: altered or damaged: its SHA-256 is not the one in {MANIFEST_FILE}")
    return data


def encoder_file_name(kind: str) -> str:
    """Name of the ONNX file of a frozen encoder or detector in a bundle that carries it."""
    return f"{onnx_files.FLAG_NAMES[kind]}.onnx"


def find_encoders(path: str, metadata: dict, encoder_paths: dict[str, str]) -> dict[str, str]:
    """Path of each frozen encoder that the model reads: as given, or in the bundle; "" where there is none.

    Raises ValueError where a given file is not the one that bundle.json names, or the model reads none.
    """
    encoders = metadata.get("encoders", {})
    for kind, encoder_path in encoder_paths.items():
        if encoder_path and kind not in encoders:
            raise ValueError(
                f"{path}: the model reads no {onnx_files.DISPLAY_NAMES[kind]}, {encoder_path} was given"
            )
        if not encoder_path:
            continue
        try:
            digest = file_sha256(encoder_path)
        except OSError as error:
            raise ValueError(f"{encoder_path}: cannot be read: {error.strerror}") from error
        if digest != encoders[kind]["sha256"]:
            raise ValueError(f"{encoder_path}: sha256 {digest}, {path} needs {encoders[kind]['sha256']}")
    bundled_paths = {kind: os.path.join(path, encoder_file_name(kind)) for kind in encoders}
    included_paths = {
        kind: encoder_path if encoder_file_name(kind) in metadata["files"] else ""
        for kind, encoder_path in bundled_paths.items()
    }
    return {kind: encoder_paths.get(kind) or included_paths[kind] for kind in encoders}


def write_manifest(path: str, metadata: dict) -> None:
    """Writes bundle.json, with the hash of every file that lies beside it by now."""
    files = {}
    for name in sorted(set(os.listdir(path)) - {MANIFEST_FILE}):
        files[name] = file_sha256(os.path.join(path, name))
    with open(os.path.join(path, MANIFEST_FILE), "w", encoding="utf-8") as file:
        json.dump({"kind": BUNDLE_KIND, "schema": SCHEMA_VERSION, **metadata, "files": files}, file, indent=1)
        file.write("\n")


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()
