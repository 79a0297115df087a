"""The files of a bundle and what `bundle.json` must say; standard library alone."""

import hashlib
import json
import os

KIND = "emofuse bundle"
SCHEMA_VERSION = 1
MANIFEST, GRAPH, WEIGHTS, PARITY = "bundle.json", "model.stablehlo", "params.safetensors", "parity.npz"
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
    for required in (GRAPH, WEIGHTS, PARITY):
        if required not in metadata["files"]:
            raise ValueError(f"{name}: field files: expected {required} in it")
    return metadata


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


def write_manifest(path: str, metadata: dict) -> None:
    """Writes bundle.json, with the hash of every file that lies beside it by now."""
    files = {}
    for name in sorted(set(os.listdir(path)) - {MANIFEST}):
        with open(os.path.join(path, name), "rb") as file:
            files[name] = sha256(file.read())
    with open(os.path.join(path, MANIFEST), "w", encoding="utf-8") as file:
        json.dump({"kind": KIND, "schema": SCHEMA_VERSION, **metadata, "files": files}, file, indent=1)
        file.write("\n")


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()
