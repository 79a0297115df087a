"""Files of a bundle, and validation of `bundle.json`."""

import hashlib
import json
import math
import os
import stat
from collections.abc import Mapping
from typing import Any

from emofuse_jax.serving.bundle.metadata import BundleMetadata, ModelDescription
from emofuse_jax.serving.interfaces import MANIFEST_FILE
from emofuse_jax.utils import onnx_files
from emofuse_jax.utils.errors import other_schema_error
from emofuse_jax.utils.files import file_sha256

BUNDLE_KIND = "emofuse bundle"
"""Value of the field `kind` in bundle.json."""
SCHEMA_VERSION = 3
"""Schema number that is written, and the only one that is read."""
GRAPH_FILE, WEIGHTS_FILE, PARITY_FILE = "model.stablehlo", "params.safetensors", "parity.npz"
"""Files that every bundle has, besides bundle.json."""
ONNX_FILE = "model.onnx"
"""File of the ONNX model; only in bundles exported with --onnx."""
_FIELD_TYPES = {
    "classes": list,
    "settings": dict,
    "spec": dict,
    "window": dict,
    "modalities": list,
    "statistics": dict,
    "training_speakers": list,
    "corpus": str,
    "versions": dict,
    "files": dict,
}
_MODALITIES = ("voice", "face")
_SIZES = ("t", "f", "s", "h", "w", "classes", "feature_steps", "audio_features", "face_features")


def read_manifest(path: str) -> BundleMetadata:
    """Returns the validated content of bundle.json in the bundle directory `path`, as a dict.

    These keys are always there: `kind`, `schema`, `classes` (list of names), `modalities` (list of `voice`,
    `face` or both), `settings` (of the preparation), `spec` (sizes of the inputs), `window` (`steps` and
    `seconds`), `statistics` (`mean` and `std` of the audio), `training_speakers`, `corpus`, `versions` and
    `files` (SHA-256 by file name). `encoders` ({"file", "sha256"} of each ONNX file, by kind) is absent if
    the model needs none. Other keys, which are not validated and may be absent: `protocol`, `fold`, `config`,
    `checkpoint`, `quantized`, `progress`, `temperature`, `intended_use`, `limits`, `platforms` and `created`.

    Raises:
      ValueError: the directory has no bundle.json, or the file is not JSON, has another schema, or lacks a
        field or has an invalid one. The message is one line that names the file.
      OSError: bundle.json cannot be read.
    """
    manifest_path = os.path.join(path, MANIFEST_FILE)
    if not os.path.isfile(manifest_path):
        raise ValueError(
            f"{path}: not a bundle: the directory has no {MANIFEST_FILE}; pass a directory that emofuse"
            " export wrote"
        )
    try:
        with open(manifest_path, encoding="utf-8") as file:
            metadata = json.load(file, parse_constant=_parse_finite, parse_float=_parse_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{manifest_path}: not JSON: {error}; export the bundle again") from error
    _check_schema(manifest_path, metadata)
    try:
        _check_types(metadata)
        _check_encoders(metadata.get("encoders", {}))
        _check_values(metadata)
        for file_name in (GRAPH_FILE, WEIGHTS_FILE, PARITY_FILE):
            if file_name not in metadata["files"]:
                raise ValueError(f"field files: expected an entry for {file_name}")
    except ValueError as error:
        raise ValueError(f"{manifest_path}: {error}; export the bundle again") from error
    return metadata


def _check_schema(manifest_path: str, metadata: object) -> None:
    """Raises ValueError unless `metadata` is a dict with the `kind` of a bundle and the supported `schema`.

    `metadata` is the content of bundle.json, `manifest_path` its path for the message. The kind is "emofuse
    bundle", the supported schema is the number SCHEMA_VERSION.
    """
    if not isinstance(metadata, dict) or metadata.get("kind") != BUNDLE_KIND:
        raise ValueError(
            f"{manifest_path}: not a bundle: field kind: expected {BUNDLE_KIND!r}; pass a directory that"
            " emofuse export wrote"
        )
    schema = metadata.get("schema")
    if type(schema) is not int:
        raise ValueError(
            f"{manifest_path}: field schema: expected a number, found {str(schema)[:60]}; export the"
            " bundle again"
        )
    if schema != SCHEMA_VERSION:
        raise other_schema_error(
            manifest_path, "bundle", schema, SCHEMA_VERSION, metadata, "export it again from the checkpoint"
        )


def _check_types(metadata: dict[str, Any]) -> None:
    """Raises ValueError if a field of bundle.json is missing or has another type than in _FIELD_TYPES.

    These fields are the dicts `settings`, `spec`, `window`, `statistics`, `versions` and `files`, the lists
    `classes`, `modalities` and `training_speakers`, and the string `corpus`.
    """
    for field, expected_type in _FIELD_TYPES.items():
        if not isinstance(metadata.get(field), expected_type):
            type_name = type(metadata.get(field)).__name__
            raise ValueError(f"field {field}: expected {expected_type.__name__}, found {type_name}")


def _parse_finite(text: str) -> float:
    """Returns the number in a text of JSON as a float; raises ValueError if it is no number, NaN or infinite.

    Browsers do not accept such numbers in JSON. A number that is too large for a float counts as infinite.
    """
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"number {text[:40]} is not finite; {MANIFEST_FILE} must have finite numbers only")
    return value


def _check_encoders(encoders: object) -> None:
    """Raises ValueError unless `encoders` is a dict of {"file", "sha256"}, both strings, by kind.

    The kinds are `audio`, `face` and `detector`; the dict may be empty.
    """
    for kind, encoder in _require_dict(encoders, "encoders").items():
        if kind not in onnx_files.FLAG_NAMES:
            raise ValueError(
                f"field encoders: {kind[:60]!r}: expected one of the kinds {', '.join(onnx_files.FLAG_NAMES)}"
            )
        for field in ("file", "sha256"):
            if not isinstance(_require_dict(encoder, f"encoders.{kind}").get(field), str):
                raise ValueError(f"field encoders.{kind}.{field}: expected a string")


def _check_values(metadata: dict[str, Any]) -> None:
    """Raises ValueError if a field of bundle.json has an invalid value, although its type is right.

    Valid are: in `spec`, the fields t, f, s, h, w, classes, feature_steps, audio_features and face_features
    and no others, with whole numbers from 0 to 2^31 - 1; as `window.seconds`, a number above 0 and below a
    million; as `modalities`, a list of `voice`, `face` or both; as `classes` and `training_speakers`, lists
    of strings; and as many classes as `spec.classes`, all different.
    """
    spec, window_seconds, modalities = (
        metadata["spec"],
        metadata["window"].get("seconds"),
        metadata["modalities"],
    )
    for field in _SIZES:
        if type(spec.get(field)) is not int or not 0 <= spec[field] < 1 << 31:
            raise ValueError(
                f"field spec.{field}: expected a whole number from 0 to 2147483647, found"
                f" {str(spec.get(field))[:60]}"
            )
    if unknown_fields := sorted(spec.keys() - {*_SIZES}):
        raise ValueError(
            f"field spec: unknown field {unknown_fields[0][:60]!r}, expected only {', '.join(_SIZES)}"
        )
    if (
        not isinstance(window_seconds, int | float)
        or isinstance(window_seconds, bool)
        or not 0 < window_seconds < 1e6
    ):
        raise ValueError(
            f"field window.seconds: expected a number above 0 and below 1e6, found {str(window_seconds)[:60]}"
        )
    if not modalities or any(entry not in _MODALITIES for entry in modalities):
        raise ValueError(f"field modalities: expected voice or face, or both, found {str(modalities)[:60]}")
    for field in ("classes", "training_speakers"):
        if not all(isinstance(entry, str) for entry in metadata[field]):
            raise ValueError(f"field {field}: expected a list of strings")
    if not len(metadata["classes"]) == len({*metadata["classes"]}) == spec["classes"]:
        raise ValueError(
            f"field classes: expected {spec['classes']} different names, the number in spec.classes"
        )


def _require_dict(value: object, field: str) -> dict[str, Any]:
    """Returns `value` if it is a dict; otherwise raises ValueError, which names `field`."""
    if not isinstance(value, dict):
        raise ValueError(f"field {field}: expected dict, found {type(value).__name__}")
    return value


def read_verified(path: str, name: str, digest: str) -> bytes:
    """Returns the bytes of the file `name` in the bundle directory `path`.

    Raises ValueError if `name` is not a plain file name, the file is missing, is not a regular file or cannot
    be read, or its hexadecimal SHA-256 is not `digest`.
    """
    if os.path.basename(name) != name or name in ("", ".", "..", MANIFEST_FILE) or not name.isprintable():
        raise ValueError(
            f"{path}/{MANIFEST_FILE}: field files: {name[:100]!r}: expected a plain file name; export the"
            " bundle again"
        )
    try:
        if not stat.S_ISREG(os.stat(os.path.join(path, name)).st_mode):  # a pipe may never end
            raise ValueError(f"{path}/{name}: not a regular file; copy or export the bundle again")
        with open(os.path.join(path, name), "rb") as file:
            data = file.read()
    except OSError as error:
        raise ValueError(
            f"{path}/{name}: cannot be read: {error.strerror}; copy or export the bundle again"
        ) from error
    if sha256(data) != digest:
        raise ValueError(
            f"{path}/{name}: modified or damaged: its SHA-256 differs from that in {MANIFEST_FILE};"
            " copy or export the bundle again"
        )
    return data


def encoder_file_name(kind: str) -> str:
    """Returns the file name in a bundle of the ONNX file of a kind.

    It is `audio_encoder.onnx` for `audio`, `face_encoder.onnx` for `face` and `face_detector.onnx` for
    `detector`. Raises KeyError for another kind.
    """
    return f"{onnx_files.FLAG_NAMES[kind]}.onnx"


def check_encoder_kinds(encoder_paths: Mapping[str, str]) -> None:
    """Raises ValueError if a key of `encoder_paths` is not `audio`, `face` or `detector`; names the key."""
    for kind in encoder_paths:
        if kind not in onnx_files.FLAG_NAMES:
            raise ValueError(
                f"encoders: {str(kind)[:60]!r}, expected only the kinds {', '.join(onnx_files.FLAG_NAMES)}"
            )


def find_encoders(path: str, metadata: BundleMetadata, encoder_paths: Mapping[str, str]) -> dict[str, str]:
    """Returns the path of each ONNX file that prepares the model's inputs, by kind.

    The kinds are `audio`, `face` and `detector`; a kind that the model does not use is missing. A path in
    `encoder_paths` takes precedence over the file in the bundle; the path is "" if there is neither.

    Args:
      path: bundle directory.
      metadata: contents of bundle.json.
      encoder_paths: paths passed by the user, by kind; "" if not passed.

    Raises:
      ValueError: a kind in `encoder_paths` is unknown, a passed file cannot be read or has another SHA-256
        than bundle.json states, or the model does not use such an encoder.
    """
    check_encoder_kinds(encoder_paths)
    encoders = metadata.get("encoders", {})
    for kind, encoder_path in encoder_paths.items():
        if encoder_path and kind not in encoders:
            raise ValueError(
                f"--{onnx_files.FLAG_NAMES[kind]}={encoder_path}: the model in {path} uses no"
                f" {onnx_files.DISPLAY_NAMES[kind]}; remove the flag"
            )
        if not encoder_path:
            continue
        try:
            digest = file_sha256(encoder_path)
        except OSError as error:
            raise ValueError(
                f"{encoder_path}: cannot be read: {error.strerror}; pass the ONNX file of the"
                f" {onnx_files.DISPLAY_NAMES[kind]} as --{onnx_files.FLAG_NAMES[kind]}"
            ) from error
        if digest != encoders[kind]["sha256"]:
            raise ValueError(
                f"{encoder_path}: sha256 {digest}: expected {encoders[kind]['sha256']}, the file that the"
                f" model in {path} was trained with; pass that file as --{onnx_files.FLAG_NAMES[kind]}"
            )
    bundled_paths = {kind: os.path.join(path, encoder_file_name(kind)) for kind in encoders}
    included_paths = {
        kind: encoder_path if encoder_file_name(kind) in metadata["files"] else ""
        for kind, encoder_path in bundled_paths.items()
    }
    return {kind: encoder_paths.get(kind) or included_paths[kind] for kind in encoders}


def write_manifest(path: str, description: ModelDescription) -> None:
    """Writes bundle.json into the directory `path`; an existing one is replaced.

    The file has the fields of `description` (as `make_manifest` returns it), `kind`, `schema`, and `files`:
    the SHA-256 of every other file in the directory, by name. Raises OSError if a file cannot be read or
    bundle.json cannot be written.
    """
    files = {}
    for name in sorted(set(os.listdir(path)) - {MANIFEST_FILE}):
        files[name] = file_sha256(os.path.join(path, name))
    metadata: BundleMetadata = {
        "kind": BUNDLE_KIND,
        "schema": SCHEMA_VERSION,
        **description,
        "files": files,
    }
    with open(os.path.join(path, MANIFEST_FILE), "w", encoding="utf-8") as file:
        json.dump(metadata, file, indent=1)
        file.write("\n")


def sha256(data: bytes) -> str:
    """Returns the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
