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


def write_atomic(path: str | os.PathLike, data: bytes) -> None:
    """Writes beside `path`, then renames: a reader sees the old file or the new one, never half of it.

    Missing directories are made. What a killed process leaves half written is overwritten by the next.
    """
    path = os.fspath(path)
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    temporary_path = path + ".tmp"
    try:
        with name_file_in_error(path), open(temporary_path, "wb") as file:
            file.write(data)
        os.replace(temporary_path, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary_path)


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
