"""Reads and writes whole files: atomic writes, JSON that is validated, hashes."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator


@contextlib.contextmanager
def name_file_in_error(path: str) -> Iterator[None]:
    """Puts the file's name to an error that has none, as that of a write to a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, path) from error


def file_sha256(path: str) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: str, data: bytes) -> None:
    """A file that is there whole or not at all."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with name_file_in_error(path), open(path + ".tmp", "wb") as file:
        file.write(data)
    os.replace(path + ".tmp", path)


def write_json(path: str, values: dict) -> None:
    """JSON, whole or not at all; equal values give equal bytes."""
    write_atomic(path, (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode())


def load_json(path: str):
    """The value of any JSON file; ValueError that names it."""
    with open(path, "rb") as file:
        return parse_json(file.read(), path)


def parse_json(data: bytes, source_name: str):
    """The value of JSON text; ValueError that begins with `source_name`, the file or line that it is of."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source_name}: not JSON: {error}") from error


def read_json_object(path: str, **fields: type) -> dict:
    """What `write_json` wrote.

    Raises ValueError, naming the file, where it is no object or one of `fields` is not of its type.
    """
    content = load_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected an object, found {type(content).__name__}")
    for name, expected_type in fields.items():
        if not isinstance(content.get(name), expected_type):
            actual_type = type(content.get(name)).__name__
            raise ValueError(f"{path}: field {name}: expected {expected_type.__name__}, found {actual_type}")
    return content
