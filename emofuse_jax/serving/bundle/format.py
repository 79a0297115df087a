"""The files of a bundle and what `bundle.json` must say."""

import hashlib
import json
import math
import os
import stat

from emofuse_jax.serving.interfaces import MANIFEST
from emofuse_jax.utils import onnx_files

KIND = "emofuse bundle"
SCHEMA_VERSION = 2
"""The newest that is read. A bundle is written as the oldest that can be read right: 2 where its weights have
fewer bits (quantised.py), which the readers of 1 knew nothing of at first, else 1."""
GRAPH, WEIGHTS, PARITY = "model.stablehlo", "params.safetensors", "parity.npz"
ONNX = "model.onnx"
"""Where the export was asked for it."""
_FIELDS = {
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
_SIZES = ("t", "f", "s", "h", "w", "classes")
_MORE_SIZES = ("feature_steps", "audio_features", "face_features")


def read_manifest(path: str) -> dict:
    """bundle.json of the bundle at `path`, its fields checked.

    Raises:
      ValueError: not a bundle, of a newer schema, or a field is missing; one line that names the file.
    """
    name = os.path.join(path, MANIFEST)
    if not os.path.isfile(name):
        raise ValueError(f"{path}: not a bundle: it has no {MANIFEST}")
    try:
        with open(name, encoding="utf-8") as file:
            metadata = json.load(file, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: not JSON: {error}") from error
    if not isinstance(metadata, dict) or metadata.get("kind") != KIND:
        raise ValueError(f"{name}: not a bundle: field kind is not {KIND!r}")
    schema = metadata.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA_VERSION:
        raise ValueError(
            f"{name}: schema {str(schema)[:60]}, this emofuse reads up to {SCHEMA_VERSION}: update it"
        )
    for field, kind in _FIELDS.items():
        if not isinstance(metadata.get(field), kind):
            found = type(metadata.get(field)).__name__
            raise ValueError(f"{name}: field {field}: expected {kind.__name__}, found {found}")
    _check_encoders(name, metadata.get("encoders", {}))
    _check_values(name, metadata)
    for required in (GRAPH, WEIGHTS, PARITY):
        if required not in metadata["files"]:
            raise ValueError(f"{name}: field files: expected {required} in it")
    return metadata


def _finite(text: str) -> float:
    """A number of JSON; Python's parser lets NaN and Infinity pass, which no browser reads."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]}")
    return value


def _check_encoders(name: str, encoders: object) -> None:
    for kind, encoder in _typed(name, encoders, "encoders").items():
        if kind not in onnx_files.FLAG_NAMES:
            raise ValueError(
                f"{name}: field encoders: {kind[:60]!r}, expected {', '.join(onnx_files.FLAG_NAMES)}"
            )
        for field in ("file", "sha256"):
            if not isinstance(_typed(name, encoder, f"encoders.{kind}").get(field), str):
                raise ValueError(f"{name}: field encoders.{kind}.{field}: expected str")


def _check_values(name: str, metadata: dict) -> None:
    """The fields that the answer, its windows and its inputs are made with."""
    spec, seconds, modalities = metadata["spec"], metadata["window"].get("seconds"), metadata["modalities"]
    for field in (*_SIZES, *(field for field in _MORE_SIZES if field in spec)):
        if type(spec.get(field)) is not int or not 0 <= spec[field] < 1 << 31:
            raise ValueError(
                f"{name}: field spec.{field}: expected a size, found {str(spec.get(field))[:60]}"
            )
    if unknown := sorted(spec.keys() - {*_SIZES, *_MORE_SIZES}):
        raise ValueError(f"{name}: field spec: no such field: {unknown[0][:60]!r}")
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds < 1e6:
        raise ValueError(f"{name}: field window.seconds: expected seconds, found {str(seconds)[:60]}")
    if not modalities or any(one not in _MODALITIES for one in modalities):
        raise ValueError(f"{name}: field modalities: expected {' or '.join(_MODALITIES)}, or both")
    for field in ("classes", "training_speakers"):
        if not all(isinstance(one, str) for one in metadata[field]):
            raise ValueError(f"{name}: field {field}: expected names")
    if len({*metadata["classes"]}) != spec["classes"]:
        raise ValueError(
            f"{name}: field classes: expected {spec['classes']} different names, as spec.classes says"
        )


def _typed(name: str, value, field: str) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{name}: field {field}: expected dict, found {type(value).__name__}")
    return value


def read_checked(path: str, name: str, digest: str) -> bytes:
    """Bytes of a file of the bundle; ValueError where it is missing or is not the one that was written."""
    if os.path.basename(name) != name or name in ("", ".", "..", MANIFEST) or not name.isprintable():
        raise ValueError(f"{path}/{MANIFEST}: field files names {name[:100]!r}, expected a plain file name")
    try:
        if not stat.S_ISREG(os.stat(os.path.join(path, name)).st_mode):  # a pipe or device may never end
            raise ValueError(f"{path}/{name}: not a file")
        with open(os.path.join(path, name), "rb") as file:
            data = file.read()
    except OSError as error:
        raise ValueError(f"{path}/{name}: cannot be read: {error.strerror}") from error
    if sha256(data) != digest:
        raise ValueError(f"{path}/{name}: altered or damaged: its SHA-256 is not the one in {MANIFEST}")
    return data


def encoder_file(kind: str) -> str:
    """Name of the ONNX file of a frozen encoder or detector in a bundle that carries it."""
    return f"{onnx_files.FLAG_NAMES[kind]}.onnx"


def find_encoders(path: str, metadata: dict, given: dict[str, str]) -> dict[str, str]:
    """Path of each frozen encoder that the model reads: as given, or in the bundle; "" where there is none.

    Raises ValueError where a given file is not the one that bundle.json names, or the model reads none.
    """
    named = metadata.get("encoders", {})
    for kind, file in given.items():
        if file and kind not in named:
            raise ValueError(f"{path}: the model reads no {onnx_files.DISPLAY_NAMES[kind]}, {file} was given")
        if file and (found := file_sha256(file)) != named[kind]["sha256"]:
            raise ValueError(f"{file}: sha256 {found}, {path} needs {named[kind]['sha256']}")
    inside = {kind: os.path.join(path, encoder_file(kind)) for kind in named}
    carried = {kind: file if encoder_file(kind) in metadata["files"] else "" for kind, file in inside.items()}
    return {kind: given.get(kind) or carried[kind] for kind in named}


def write_manifest(path: str, metadata: dict) -> None:
    """Writes bundle.json, with the hash of every file that lies beside it by now."""
    files = {}
    for name in sorted(set(os.listdir(path)) - {MANIFEST}):
        with open(os.path.join(path, name), "rb") as file:
            files[name] = sha256(file.read())
    schema = 2 if metadata.get("quantized") else 1
    with open(os.path.join(path, MANIFEST), "w", encoding="utf-8") as file:
        json.dump({"kind": KIND, "schema": schema, **metadata, "files": files}, file, indent=1)
        file.write("\n")


def file_sha256(path: str) -> str:
    """Hexadecimal SHA-256 of a file; ValueError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()
