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
PROGRESS = ".prepare"
"""Folder in the output that holds the lock, the identity of the preparation, and a note for each shard."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which clips go to which shard: blocks of equal size, fixed before the first is decoded."""

    output: str
    dataset: str
    clips: tuple[Clip, ...]
    count: int

    def block(self, shard: int) -> tuple[Clip, ...]:
        """The clips of a shard."""
        n = len(self.clips)
        return self.clips[shard * n // self.count : (shard + 1) * n // self.count]

    def name(self, shard: int) -> str:
        """File name of a shard."""
        return records.shard_name(self.dataset, shard, self.count)

    def note(self, shard: int) -> str:
        """Path of the note that says a shard is complete."""
        return os.path.join(self.output, PROGRESS, f"shard_{shard:05d}.json")

    def finished(self, shard: int) -> dict | None:
        """The note of a shard that is complete, or None."""
        path = os.path.join(self.output, self.name(shard))
        try:
            with open(self.note(shard), encoding="utf-8") as file:
                note = json.load(file)
            return note if os.path.getsize(path) == note["bytes"] else None
        except FileNotFoundError:
            return None


def plan_shards(output: str, dataset: str, clips: tuple[Clip, ...], count: int | None) -> Plan:
    """A shard for every 64 clips unless `count` is given; raises ValueError when `count` is not in 1 to n."""
    if count is None:
        count = -(-len(clips) // CLIPS_PER_SHARD)
    if not 1 <= count <= len(clips):
        raise ValueError(f"shards: {count}, expected 1 to {len(clips)} (the number of clips)")
    return Plan(output, dataset, clips, count)


def write_shard(plan: Plan, shard: int, rows: list[dict], encoded: Iterable[bytes | None]) -> None:
    """Writes one shard and then its note; `rows` is filled while `encoded` is drawn (None: a failed clip)."""
    path = os.path.join(plan.output, plan.name(shard))
    with _writing(path + ".tmp"):
        writer = array_record_module.ArrayRecordWriter(path + ".tmp", records.WRITER_OPTIONS)
    kept = 0
    for data in encoded:
        if data is not None:
            with _writing(path + ".tmp"):
                writer.write(data)
            kept += 1
    with _writing(path + ".tmp"):
        writer.close()
    note = {"records": kept, "bytes": os.path.getsize(path + ".tmp"), "sha256": file_sha256(path + ".tmp")}
    os.replace(path + ".tmp", path)
    write_json(plan.note(shard), {**note, "rows": rows})


@contextlib.contextmanager
def _writing(path: str) -> Iterator[None]:
    """OSError for the RuntimeError by which ArrayRecord tells that the disk is full."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(f"{path}: {error}") from error


def read_shard(path: str, batch: int = 16) -> Iterator[bytes]:
    """The records of a shard in order, a few at a time."""
    reader = array_record_module.ArrayRecordReader(path, "readahead_buffer_size:0")
    try:
        count = reader.num_records()
        for start in range(0, count, batch):
            yield from reader.read(start, min(start + batch, count))
    finally:
        reader.close()


def claim(output: str, identity: dict) -> dict:
    """Begins or continues a preparation, and gives the identity that it was begun with.

    Raises ValueError naming what differs from the one begun here.
    """
    path = os.path.join(output, PROGRESS, "identity.json")
    if not os.path.exists(path):
        if any(f"-{records.TFDS_SPLIT}.array_record" in name for name in os.listdir(output)):
            raise ValueError(f"{output}: holds records of something else; use another --output")
        write_json(path, identity)
    with open(path, encoding="utf-8") as file:
        stored = json.load(file)
    begun, now = (
        _flat(one | {"settings": records.comparable_settings(one["settings"])})
        for one in (stored, json.loads(json.dumps(identity)))
    )
    for name in [*now, *begun]:
        if begun.get(name) != now.get(name):
            told = f"{name} {begun.get(name)!r}, now {now.get(name)!r}"
            raise ValueError(f"{output}: was begun with {told}; use another --output")
    return stored


def _flat(values: dict, prefix: str = "") -> dict:
    flat = {}
    for name, value in values.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat
