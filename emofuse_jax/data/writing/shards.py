"""Shards of a preparation that may be stopped at any moment: written aside, renamed, noted when complete."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator

from array_record.python import array_record_module

from emofuse_jax.data import records
from emofuse_jax.data.writing.corpus import Clip
from emofuse_jax.utils.files import file_sha256, write_json

CLIPS_PER_SHARD = 64
PROGRESS_FOLDER = ".prepare"
"""Folder in the output that holds the lock, the identity of the preparation, and a note for each shard."""


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """Which clips go to which shard: blocks of equal size, fixed before the first is decoded."""

    output: str
    dataset: str
    clips: tuple[Clip, ...]
    num_shards: int

    def clips_in_shard(self, shard: int) -> tuple[Clip, ...]:
        """The clips of a shard."""
        n = len(self.clips)
        return self.clips[shard * n // self.num_shards : (shard + 1) * n // self.num_shards]

    def name(self, shard: int) -> str:
        """File name of a shard."""
        return records.shard_name(self.dataset, shard, self.num_shards)

    def marker_path(self, shard: int) -> str:
        """Path of the note that says a shard is complete."""
        return os.path.join(self.output, PROGRESS_FOLDER, f"shard_{shard:05d}.json")

    def read_marker(self, shard: int) -> dict | None:
        """The note of a shard that is complete, or None."""
        path = os.path.join(self.output, self.name(shard))
        try:
            with open(self.marker_path(shard), encoding="utf-8") as file:
                marker = json.load(file)
            return marker if os.path.getsize(path) == marker["bytes"] else None
        except FileNotFoundError:
            return None


def plan_shards(output: str, dataset: str, clips: tuple[Clip, ...], num_shards: int | None) -> ShardPlan:
    """A shard for every 64 clips unless `num_shards` is given; raises ValueError when `num_shards` is not in
    1 to n."""
    if num_shards is None:
        num_shards = -(-len(clips) // CLIPS_PER_SHARD)
    if not 1 <= num_shards <= len(clips):
        raise ValueError(f"shards: {num_shards}, expected 1 to {len(clips)} (the number of clips)")
    return ShardPlan(output, dataset, clips, num_shards)


def write_shard(
    plan: ShardPlan, shard: int, rows: list[dict], encoded_records: Iterable[bytes | None]
) -> None:
    """Writes one shard and then its note; `rows` is filled while `encoded_records` is drawn (None: a failed
    clip)."""
    path = os.path.join(plan.output, plan.name(shard))
    with _runtime_error_as_oserror(path + ".tmp"):
        writer = array_record_module.ArrayRecordWriter(path + ".tmp", records.WRITER_OPTIONS)
    num_records = 0
    for data in encoded_records:
        if data is not None:
            with _runtime_error_as_oserror(path + ".tmp"):
                writer.write(data)
            num_records += 1
    with _runtime_error_as_oserror(path + ".tmp"):
        writer.close()
    marker = {
        "records": num_records,
        "bytes": os.path.getsize(path + ".tmp"),
        "sha256": file_sha256(path + ".tmp"),
    }
    os.replace(path + ".tmp", path)
    write_json(plan.marker_path(shard), {**marker, "rows": rows})


@contextlib.contextmanager
def _runtime_error_as_oserror(path: str) -> Iterator[None]:
    """OSError for the RuntimeError by which ArrayRecord tells that the disk is full."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(f"{path}: {error}") from error


def read_shard(path: str, batch_size: int = 16) -> Iterator[bytes]:
    """The records of a shard in order, a few at a time."""
    reader = array_record_module.ArrayRecordReader(path, "readahead_buffer_size:0")
    try:
        num_records = reader.num_records()
        for start in range(0, num_records, batch_size):
            yield from reader.read(start, min(start + batch_size, num_records))
    finally:
        reader.close()


def begin_or_resume(output: str, identity: dict) -> dict:
    """Begins or continues a preparation, and gives the identity that it was begun with.

    Raises ValueError naming what differs from the one begun here.
    """
    path = os.path.join(output, PROGRESS_FOLDER, "identity.json")
    if not os.path.exists(path):
        if any(f"-{records.TFDS_SPLIT}.array_record" in name for name in os.listdir(output)):
            raise ValueError(f"{output}: holds records of something else; use another --output")
        write_json(path, identity)
    with open(path, encoding="utf-8") as file:
        stored_identity = json.load(file)
    stored_fields, current_fields = (
        _flatten(one_identity | {"settings": records.comparable_settings(one_identity["settings"])})
        for one_identity in (stored_identity, json.loads(json.dumps(identity)))
    )
    for name in [*current_fields, *stored_fields]:
        if stored_fields.get(name) != current_fields.get(name):
            difference = f"{name} {stored_fields.get(name)!r}, now {current_fields.get(name)!r}"
            raise ValueError(f"{output}: was begun with {difference}; use another --output")
    return stored_identity


def _flatten(values: dict, prefix: str = "") -> dict:
    flat = {}
    for name, value in values.items():
        flat.update(
            _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return flat
