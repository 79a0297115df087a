"""Writes shards so that a preparation can be stopped at any moment and resumed.

A shard is written to a temporary file, renamed when it is complete, and then gets a marker file.
"""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from array_record.python import array_record_module

from emofuse_jax.data import records
from emofuse_jax.data.metadata import ManifestRow, PrepIdentity, ShardFileFields, ShardMarker
from emofuse_jax.data.writing.corpus import MediaClip
from emofuse_jax.utils.errors import to_one_line
from emofuse_jax.utils.files import file_sha256, read_json_object, write_json
from emofuse_jax.utils.validation import require_fields

CLIPS_PER_SHARD = 64
"""Default number of clips in a shard."""
REQUIRED_ROW_FIELDS: dict[str, type] = {
    "clip_id": str,
    "path": str,
    "speaker": str,
    "take": str,
    "label": int,
    "status": str,
    "reason": str,
    "sha256": str,
}
"""Fields that each row in a marker must have, and their types."""
PROGRESS_FOLDER = ".prepare"
"""Folder in the output with the lock, the preparation's identity, and a marker for each complete shard."""


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """Assigns the clips to shards: blocks of equal size in order, fixed before any clip is decoded."""

    output: str
    """Directory of the records."""
    dataset: str
    """Name of the dataset, the first part of the shards' file names."""
    clips: tuple[MediaClip, ...]
    """All clips, in order."""
    num_shards: int
    """Number of shards."""

    def clips_in_shard(self, shard: int) -> tuple[MediaClip, ...]:
        """Returns the entries of `clips` in shard `shard`, a number from 0 to `num_shards` - 1."""
        n = len(self.clips)
        return self.clips[shard * n // self.num_shards : (shard + 1) * n // self.num_shards]

    def name(self, shard: int) -> str:
        """Returns the file name of a shard: `<dataset>-clips.array_record-<shard>-of-<num_shards>`.

        Both numbers have five digits.
        """
        return records.shard_name(self.dataset, shard, self.num_shards)

    def marker_path(self, shard: int) -> str:
        """Returns the path of a shard's marker file, `<output>/.prepare/shard_<shard>.json`.

        The number has five digits. The file exists if the shard is complete.
        """
        return os.path.join(self.output, PROGRESS_FOLDER, f"shard_{shard:05d}.json")

    def read_marker(self, shard: int) -> ShardMarker | None:
        """Returns the marker of a complete shard, a dict, or None if the shard is not complete.

        The marker has `records`, the number of records, `bytes`, the size of the shard, `sha256`, its hash,
        and `rows`, the manifest rows. The result is None if the marker or the shard is missing, or if the
        shard has another size than the marker says.

        Raises:
          ValueError: The marker is not a JSON object with these fields, or a row lacks a field or has one of
            another type; names its file and the field.
          OSError: The marker cannot be read.
        """
        path, marker_path = os.path.join(self.output, self.name(shard)), self.marker_path(shard)
        try:
            fields = read_json_object(marker_path, records=int, bytes=int, sha256=str, rows=list)
            marker = cast(ShardMarker, fields)
            if os.path.getsize(path) != marker["bytes"]:
                return None
        except FileNotFoundError:
            return None
        for i, row in enumerate(marker["rows"]):
            _check_marker_row(row, f"{marker_path}: rows[{i}]")
        return marker


def _check_marker_row(row: object, name: str) -> None:
    """Raises ValueError, which begins with `name`, unless `row` is a dict with all REQUIRED_ROW_FIELDS.

    These are the strings `clip_id`, `path`, `speaker`, `take`, `status`, `reason` and `sha256`, and the
    integer `label`.
    """
    for field, expected_type in REQUIRED_ROW_FIELDS.items():
        value = row.get(field) if isinstance(row, dict) else None
        if not isinstance(value, expected_type):
            raise ValueError(
                f"{name}: field {field} is {repr(value)[:60]}, expected {expected_type.__name__}; remove this"
                " file, then run the same command again to rewrite the shard"
            )


def file_safe_name(dataset: str) -> str:
    """Returns the name of a data set with `_` for each character but letters, digits and underscores.

    Letters and digits of all scripts stay, such as `é`.
    """
    return re.sub(r"\W", "_", dataset)


def plan_shards(output: str, dataset: str, clips: tuple[MediaClip, ...], num_shards: int | None) -> ShardPlan:
    """Returns the plan for `num_shards` shards; None: one for every 64 clips, rounded up.

    The plan has `output`, the directory of the records, `dataset`, the first part of the file names, `clips`
    and `num_shards`. It assigns the clips, in order, to shards whose numbers of clips differ by at most 1.

    Raises:
      ValueError: `num_shards` is not between 1 and the number of clips, or there are no clips.
    """
    if num_shards is None:
        num_shards = -(-len(clips) // CLIPS_PER_SHARD)
    if not 1 <= num_shards <= len(clips):
        raise ValueError(f"--shards={num_shards}: expected 1 to {len(clips)}, the number of clips")
    return ShardPlan(output, dataset, clips, num_shards)


def write_shard(
    plan: ShardPlan, shard: int, rows: list[ManifestRow], encoded_records: Iterable[bytes | None]
) -> None:
    """Writes one shard, to the file `plan.name(shard)`, and then its marker, to `plan.marker_path(shard)`.

    The marker has the number of records, the size and SHA-256 of the shard, and `rows`. Existing files are
    replaced. Errors of the iterable `encoded_records` pass through.

    Args:
      plan: The plan of all shards.
      shard: Number of the shard.
      rows: Rows of the manifest for the marker; the caller may fill the list while `encoded_records` is
        consumed.
      encoded_records: The encoded record of each clip; None for a failed clip, which has no record.

    Raises:
      OSError: A file cannot be written, e.g. because the disk is full.
      ValueError: A text in `rows` cannot be encoded as UTF-8.
    """
    path = os.path.join(plan.output, plan.name(shard))
    file_fields = write_shard_file(path + ".tmp", encoded_records)
    os.replace(path + ".tmp", path)
    marker: ShardMarker = {**file_fields, "rows": rows}
    write_json(plan.marker_path(shard), marker)


def write_shard_file(path: str, encoded_records: Iterable[bytes | None]) -> ShardFileFields:
    """Writes the records of one shard to the file `path`, leaving out None; replaces an existing file.

    Returns `{"records": number of records, "bytes": size of the file, "sha256": its hash}`. Raises OSError if
    the file cannot be written, for example because the disk is full.
    """
    with _runtime_error_as_oserror(path):
        writer = array_record_module.ArrayRecordWriter(path, records.WRITER_OPTIONS)
    num_records = 0
    for data in encoded_records:
        if data is not None:
            with _runtime_error_as_oserror(path):
                writer.write(data)
            num_records += 1
    with _runtime_error_as_oserror(path):
        writer.close()
    return {"records": num_records, "bytes": os.path.getsize(path), "sha256": file_sha256(path)}


@contextlib.contextmanager
def _runtime_error_as_oserror(path: str) -> Iterator[None]:
    """Raises OSError with `path` if the `with` block raises RuntimeError; yields None.

    ArrayRecord raises RuntimeError if a file cannot be written, for example because the disk is full.
    """
    try:
        yield
    except RuntimeError as error:
        raise OSError(
            f"{path}: the shard cannot be written: {error}; check the free space and the permissions,"
            " then try again"
        ) from error


def read_shard(path: str, batch_size: int = 16) -> Iterator[bytes]:
    """Yields the encoded records of a shard in order; reads `batch_size` records at a time.

    Raises:
      ValueError: The shard is damaged; the message begins with its path.
      OSError: The shard is missing or cannot be read.
    """
    try:
        reader = array_record_module.ArrayRecordReader(path, "readahead_buffer_size:0")
        try:
            num_records = reader.num_records()
            for start in range(0, num_records, batch_size):
                yield from reader.read(start, min(start + batch_size, num_records))
        finally:
            reader.close()  # also raises the error of a file that could not be opened
    except RuntimeError as error:  # raised by ArrayRecord
        with open(path, "rb"):  # a missing or unreadable file raises OSError here
            pass
        raise ValueError(
            f"{path}: damaged shard: {to_one_line(error)}; remove this file, then run the same command again"
            " to rewrite it"
        ) from error


def begin_or_resume(output: str, identity: PrepIdentity) -> PrepIdentity:
    """Starts or resumes a preparation in a directory and returns the identity that it was started with.

    At the start it stores `identity` in `.prepare/identity.json`. When it resumes, the stored identity is
    compared with `identity`; file names of ONNX models may differ. The result is a dict with the keys of
    `identity`.

    Args:
      output: Directory of the records; it must exist.
      identity: Everything that must not change, as JSON values: `schema_version`, `corpus`, `settings` (those
        of prep.json), `number of clips`, `classes`, `list of clips (sha256)`, `shards` and `versions`.

    Raises:
      ValueError: The directory has other records or another preparation (names the first field that differs),
        the stored identity is not a JSON object with `settings.features`, or a text in `identity` cannot be
        encoded as UTF-8.
      OSError: The directory cannot be read, or the identity cannot be read or written.
      TypeError: JSON cannot represent a value of `identity`.
      AttributeError: `settings.features` of an identity is not an object.
    """
    path = os.path.join(output, PROGRESS_FOLDER, "identity.json")
    if not os.path.exists(path):
        if any(f"-{records.TFDS_SPLIT}.array_record" in name for name in os.listdir(output)):
            raise ValueError(f"{output}: contains records of another preparation; use another --output")
        write_json(path, identity)
    stored_identity = cast(PrepIdentity, read_json_object(path, settings=dict))
    require_fields(stored_identity["settings"], {"features": {}}, f"{path}: settings")
    stored_fields, current_fields = (
        _flatten({**one_identity, "settings": records.comparable_settings(one_identity["settings"])})
        for one_identity in (stored_identity, json.loads(json.dumps(identity)))
    )
    for name in [*current_fields, *stored_fields]:
        if stored_fields.get(name) != current_fields.get(name):
            raise ValueError(
                f"{output}: was started with {name} {stored_fields.get(name)!r}, now"
                f" {current_fields.get(name)!r}; use the same value, or use another --output"
            )
    return stored_identity


def _flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Returns nested dicts as one dict with dotted keys, such as `settings.audio.bins`.

    Every key starts with `prefix`, which contains its own final dot. Empty dicts are left out.
    """
    flat: dict[str, object] = {}
    for name, value in values.items():
        flat.update(
            _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return flat
