"""Reads and writes complete files: atomic writes, validated JSON, SHA-256 hashes."""

import contextlib
import csv
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import TextIO

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
"""Value of a JSON file."""


@contextlib.contextmanager
def name_file_in_error(path: str) -> Iterator[None]:
    """Adds the file name `path` to an OSError that is raised in the `with` block and names no file.

    Yields nothing. A write to a full disk raises such an error; it is raised again as an OSError with the
    same number and text that also names `path`. All other errors pass through unchanged, also an OSError
    without a number (`errno`).

    Raises:
      OSError: The block raised one.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, path) from error


@contextlib.contextmanager
def open_csv(path: str, action: str) -> Iterator[TextIO]:
    """Opens a CSV file in UTF-8, with or without a byte-order mark, and yields it; closes it at the end.

    `action` says what the user should do if the `with` block finds that the file is not valid, such as `save
    it again`.

    Raises:
      OSError: The file cannot be opened.
      ValueError: Text in it is not UTF-8, or the csv module cannot parse it; the message names the file.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            yield file
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a CSV file in UTF-8, {action}: {error}") from error


def file_sha256(path: str) -> str:
    """Returns the SHA-256 of a file's bytes as a hexadecimal string; raises OSError if it can't be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes `data` to `<path>.tmp`, then renames it to `path`; a reader never sees a partial file.

    An existing file is replaced. Missing directories are created. A `<path>.tmp` that a killed process left
    behind is overwritten.

    Raises:
      OSError: The file or its directory cannot be written; the error names one of them.
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


def write_json(path: str, values: Mapping[str, object]) -> None:
    """Writes `values` atomically as indented JSON in UTF-8; equal values in equal order give equal bytes.

    An existing file is replaced; missing directories are created. Floats that are not finite are written as
    `NaN`, `Infinity` and `-Infinity`, which `load_json` reads.

    Raises:
      OSError: The file or its directory cannot be written; the error names one of them.
      TypeError: JSON cannot represent a value.
      ValueError: A value contains itself, or a text has half of a surrogate pair, which UTF-8 cannot
        represent.
    """
    write_atomic(path, (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode())


def load_json(path: str) -> JsonValue:
    """Returns the content of a JSON file, which may be of any JSON type.

    Raises:
      OSError: The file cannot be read.
      ValueError: The file is not valid JSON; the message begins with its path.
    """
    with open(path, "rb") as file:
        return parse_json(file.read(), path)


def parse_json(data: bytes, source_name: str) -> JsonValue:
    """Returns the value of JSON text, which may be of any JSON type.

    Args:
      data: The JSON text in UTF-8, UTF-16 or UTF-32.
      source_name: The file or line that the text comes from, for the error message.

    Raises:
      ValueError: The text is not valid JSON or is nested too deeply; begins with `source_name`.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{source_name}: not JSON: {error}; correct or remove it, then run the command that writes it"
        ) from error


def read_json_object(path: str, **fields: type) -> dict[str, JsonValue]:
    """Returns the JSON object of a file, such as one that `write_json` wrote.

    Args:
      path: The JSON file.
      **fields: Expected type of each field that must be present, e.g. `runs=list`; the object may have more.

    Raises:
      OSError: The file cannot be read.
      ValueError: The file is not valid JSON or not an object, or one of `fields` is missing or of another
        type; the message begins with the path.
    """
    content = load_json(path)
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: expected a JSON object, found {type(content).__name__}; correct or remove it, then run"
            " the command that writes it"
        )
    for name, expected_type in fields.items():
        if not isinstance(content.get(name), expected_type):
            actual_type = type(content.get(name)).__name__
            raise ValueError(
                f"{path}: field {name}: expected {expected_type.__name__}, found {actual_type}; correct or"
                " remove the file, then run the command that writes it"
            )
    return content
