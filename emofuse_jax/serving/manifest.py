"""The files of a bundle and what `bundle.json` must say."""

import hashlib
import json
import os

from emofuse_jax import onnx_files

KIND = "emofuse bundle"
SCHEMA_VERSION = 1
MANIFEST, GRAPH, WEIGHTS, PARITY = "bundle.json", "model.stablehlo", "params.safetensors", "parity.npz"
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
            metadata = json.load(file)
    except ValueError as error:
        raise ValueError(f"{name}: not JSON: {error}") from error
    if not isinstance(metadata, dict) or metadata.get("kind") != KIND:
        raise ValueError(f"{name}: not a bundle: field kind is not {KIND!r}")
    schema = metadata.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA_VERSION:
        raise ValueError(f"{name}: schema {schema!r}, this emofuse reads up to {SCHEMA_VERSION}: update it")
    for field, kind in _FIELDS.items():
        if not isinstance(metadata.get(field), kind):
            found = type(metadata.get(field)).__name__
            raise ValueError(f"{name}: field {field}: expected {kind.__name__}, found {found}")
    for kind, encoder in _typed(name, metadata.get("encoders", {}), "encoders").items():
        for field in ("file", "sha256"):
            if not isinstance(_typed(name, encoder, f"encoders.{kind}").get(field), str):
                raise ValueError(f"{name}: field encoders.{kind}.{field}: expected str")
    for required in (GRAPH, WEIGHTS, PARITY):
        if required not in metadata["files"]:
            raise ValueError(f"{name}: field files: expected {required} in it")
    return metadata


def _typed(name: str, value, field: str) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{name}: field {field}: expected dict, found {type(value).__name__}")
    return value


def read_checked(path: str, name: str, digest: str) -> bytes:
    """Bytes of a file of the bundle; ValueError where it is missing or is not the one that was written."""
    if os.path.basename(name) != name:
        raise ValueError(f"{path}/{MANIFEST}: field files names {name!r}, expected a plain file name")
    try:
        with open(os.path.join(path, name), "rb") as file:
            data = file.read()
    except OSError as error:
        raise ValueError(f"{path}/{name}: cannot be read: {error.strerror}") from error
    if sha256(data) != digest:
        raise ValueError(f"{path}/{name}: altered or damaged: its SHA-256 is not the one in {MANIFEST}")
    return data


def encoder_file(kind: str) -> str:
    """Name of the ONNX file of a frozen encoder or detector in a bundle that carries it."""
    return f"{onnx_files.FLAGS[kind]}.onnx"


def find_encoders(path: str, metadata: dict, given: dict[str, str]) -> dict[str, str]:
    """Path of each frozen encoder that the model reads: as given, or in the bundle; "" where there is none.

    Raises ValueError where a given file is not the one that bundle.json names, or the model reads none.
    """
    named = metadata.get("encoders", {})
    for kind, file in given.items():
        if file and kind not in named:
            raise ValueError(f"{path}: the model reads no {onnx_files.NAMES[kind]}, {file} was given")
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
    with open(os.path.join(path, MANIFEST), "w", encoding="utf-8") as file:
        json.dump({"kind": KIND, "schema": SCHEMA_VERSION, **metadata, "files": files}, file, indent=1)
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
