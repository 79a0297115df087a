"""Reads and validates prep.json and manifest.csv of a prepared directory."""

import math
import os
from typing import cast

from emofuse_jax.data import records
from emofuse_jax.data.metadata import PrepMetadata, PrepSettingsDict
from emofuse_jax.utils.errors import other_schema_error
from emofuse_jax.utils.files import JsonValue, load_json
from emofuse_jax.utils.validation import require_fields

REQUIRED_FIELDS = {
    "schema_version": int,
    "corpus": str,
    "settings": dict,
    "shape": dict,
    "classes": list,
    "speakers": list,
    "shards": list,
    "sex": dict,
    "versions": dict,
    "sources_sha256": str,
    "notes": list,
}
"""Fields that prep.json must have, and their types."""
PREPARE_AGAIN = "prepare the clips again"
TYPE_NAMES = {int: "an integer", str: "a string", dict: "an object", list: "a list"}


def read_prep(path: str) -> PrepMetadata:
    """Returns the content of prep.json in the directory `path`, a dict.

    Validated as far as reading the records needs it: `schema_version`; `settings`, a dict with `recipe`, a
    name, and the dicts `audio`, `face` and `features`; `shape`, a dict of the sizes `f`, `h`, `w`,
    `audio_features`, `face_features` and the bool `waveform`; the lists of names `classes` and `speakers`;
    and `shards`, a list of dicts with `name`, `records` (their number) and `sha256`. Of `corpus` and
    `sources_sha256` (texts), `sex` and `versions` (dicts) and `notes` (list), only the types are validated;
    `dataset`, `class_map` and `frames` are not validated.

    Raises:
      FileNotFoundError: The directory has no prep.json.
      OSError: prep.json cannot be read.
      ValueError: The file is not valid JSON, has another schema, or a field is missing or not valid.
    """
    prep_path = os.path.join(path, "prep.json")
    content = read_json(prep_path)
    values = content if isinstance(content, dict) else {}
    schema = values.get("schema_version")
    if type(schema) is int and schema != records.SCHEMA_VERSION:  # before its fields, which may be different
        raise other_schema_error(prep_path, "records", schema, records.SCHEMA_VERSION, values, PREPARE_AGAIN)
    for field, expected_type in REQUIRED_FIELDS.items():
        value = values.get(field)
        if not isinstance(value, expected_type) or isinstance(value, bool):
            raise ValueError(
                f"{prep_path}: field {field} is {repr(value)[:100]}, expected {TYPE_NAMES[expected_type]};"
                f" {PREPARE_AGAIN}"
            )
    prep = cast(PrepMetadata, values)
    try:
        require_fields(prep["shape"], vars(records.RecordShape(0, 0, 0)), "shape")
        shape = records.RecordShape(**prep["shape"])
        sizes = {f"shape.{name}": size for name, size in vars(shape).items()}
        sizes["settings.face.frames"] = prep["settings"]["face"]["frames"]
        sizes |= {f"shards[{i}].records": shard["records"] for i, shard in enumerate(prep["shards"])}
        for field, size in sizes.items():
            if not (isinstance(size, int) and 0 <= size < 1 << 20):
                raise TypeError(f"{field} is {repr(size)[:100]}, expected an integer from 0 to 1048575")
        recipe = [prep["settings"]["recipe"]]
        lists = {"settings.recipe": recipe, "classes": prep["classes"], "speakers": prep["speakers"]}
        for field, values_of_field in lists.items():
            for value in values_of_field:
                if not isinstance(value, str):
                    raise TypeError(f"{field} has {repr(value)[:100]}, expected only strings")
        _check_hops(prep["settings"], shape)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{prep_path}: missing or invalid field: {error}; {PREPARE_AGAIN}") from error
    return prep


def feature_hop_ms(settings: PrepSettingsDict) -> float:
    """Returns the milliseconds between two vectors of the frozen audio encoder, from settings of prep.json.

    Raises:
      ValueError: The settings of prep.json have no audio encoder.
    """
    encoder = settings["features"]["audio"]
    if encoder is None:
        raise ValueError(
            "settings.features.audio of prep.json is None, expected the settings of a frozen audio encoder;"
            " prepare the clips with --audio_encoder"
        )
    return encoder["layout"]["hop_ms"]


def _check_hops(settings: PrepSettingsDict, shape: records.RecordShape) -> None:
    """Checks that spectrogram steps and, if there are any, vectors of audio features have a duration.

    Raises TypeError if a `hop_ms` is not a finite number above 0, KeyError or ValueError if a field is
    missing, and ValueError if there are audio features but no settings of their encoder.
    """
    hops = {"settings.audio.hop_ms": settings["audio"]["hop_ms"]}
    if shape.audio_features:
        hops["settings.features.audio.layout.hop_ms"] = feature_hop_ms(settings)
    require_fields(settings["features"], {"tensors": "", "audio": None}, "settings.features")
    for field, hop in hops.items():
        if not (isinstance(hop, int | float) and 0 < hop < math.inf):
            raise TypeError(f"{field} is {repr(hop)[:100]}, expected milliseconds, a number above 0")


def read_index(path: str) -> tuple[dict[str, int], dict[str, str]]:
    """Returns `(index, speakers)` from manifest.csv: the record index and the speaker of each clip_id.

    Both dicts have only the clips with a record.

    Raises:
      OSError: manifest.csv is missing or cannot be read.
      ValueError: The file is not a CSV file in UTF-8, a column is missing, an index or label is not an
        integer, clip_ids are not unique, or the indices are not 0, 1, 2, ....
    """
    manifest_path = os.path.join(path, "manifest.csv")
    manifest = records.read_manifest(path)
    try:
        rows = [row for row in manifest if int(row["index"]) >= 0]
        index = {row["clip_id"]: int(row["index"]) for row in rows}
        for row in rows:
            int(row["label"])  # read later
    except ValueError as error:
        raise ValueError(f"{manifest_path}: not a valid manifest: {error}; {PREPARE_AGAIN}") from error
    if sorted(index.values()) != list(range(len(rows))):
        raise ValueError(
            f"{manifest_path}: {len(rows)} rows with a record, expected unique clip_ids and indices from 0"
            " without gaps; prepare the clips again"
        )
    return index, {row["clip_id"]: row["speaker"] for row in rows}


def read_json(path: str) -> JsonValue:
    """Returns the content of a JSON file that `emofuse prepare` writes; it may be of any JSON type.

    Raises:
      FileNotFoundError: The file does not exist; the message says to run emofuse prepare first.
      OSError: The file cannot be read.
      ValueError: The file is not valid JSON; the message begins with its path.
    """
    try:
        return load_json(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: file not found; run emofuse prepare first") from None
