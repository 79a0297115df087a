"""prep.json and manifest.csv of a prepared directory, checked as they are read."""

import csv
import os

from emofuse_jax.data import records
from emofuse_jax.utils.errors import other_schema_error
from emofuse_jax.utils.files import load_json
from emofuse_jax.utils.validation import require_fields

REQUIRED_FIELDS = {
    "schema_version": int,
    "settings": dict,
    "shape": dict,
    "classes": list,
    "speakers": list,
    "shards": list,
}
"""Fields of prep.json that are read here, and their types."""
PREPARE_AGAIN = "prepare the clips again"
TYPE_NAMES = {int: "a number", dict: "an object", list: "a list"}


def read_prep(path: str) -> dict:
    """Reads prep.json of a directory.

    Raises:
      ValueError: its schema is another one, or a field is missing or cannot be used.
    """
    name = os.path.join(path, "prep.json")
    prep = read_json(name)
    prep = prep if isinstance(prep, dict) else {}
    schema = prep.get("schema_version")
    if type(schema) is int and schema != records.SCHEMA_VERSION:  # its fields may be others
        raise other_schema_error(name, "records", schema, records.SCHEMA_VERSION, prep, PREPARE_AGAIN)
    for field, expected_type in REQUIRED_FIELDS.items():
        value = prep.get(field)
        if not isinstance(value, expected_type) or isinstance(value, bool):
            raise ValueError(
                f"{name}: field {field} is {repr(value)[:100]}, expected {TYPE_NAMES[expected_type]}"
            )
    try:
        require_fields(prep["shape"], vars(records.RecordShape(0, 0, 0)), "shape")
        shape = records.RecordShape(**prep["shape"])
        sizes = [*vars(shape).values(), prep["settings"]["face"]["frames"]]
        sizes += [shard["records"] for shard in prep["shards"]]
        if not all(isinstance(size, int) and 0 <= size < 1 << 20 for size in sizes):
            raise TypeError("a size that is none")
        names = [prep["settings"]["recipe"], *prep["classes"], *prep["speakers"]]
        if not all(isinstance(name, str) for name in names):
            raise TypeError("a recipe, class or speaker that is no name")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: shape, settings or shards: {error}") from error
    return prep


def read_index(path: str) -> tuple[dict[str, int], dict[str, str]]:
    """Record index and speaker of each stored clip, from manifest.csv; ValueError where of no use."""
    manifest_path = os.path.join(path, "manifest.csv")
    try:
        rows = [row for row in records.read_manifest(path) if int(row["index"]) >= 0]
        index = {row["clip_id"]: int(row["index"]) for row in rows}
        speakers = {row["clip_id"]: row["speaker"] for row in rows}
    except KeyError as error:
        raise ValueError(f"{manifest_path}: no column {error}") from error
    except (TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{manifest_path}: {error}") from error
    if sorted(index.values()) != list(range(len(rows))) or None in speakers.values():
        raise ValueError(
            f"{manifest_path}: {len(rows)} rows with a record, expected unique clips, numbered from 0"
        )
    return index, speakers


def read_json(path: str) -> dict:
    """Reads a JSON file; FileNotFoundError and ValueError name it."""
    try:
        return load_json(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: not there; run emofuse prepare first") from None
