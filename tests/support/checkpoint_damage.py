"""Lost bits in the shards of prepared records."""

from array_record.python.array_record_module import ArrayRecordReader

from emofuse_jax.data import records


def flip_bit_of_clip(path: str, clip: str) -> str:
    """Turns a bit over within the record of a clip; gives the shard's path."""
    for shard in records.shard_paths(path):
        reader = ArrayRecordReader(shard)
        for record in reader.read_all():
            if clip.encode() in record:
                flip_bit(shard, record)
                return shard
    raise LookupError(clip)


def flip_bit(shard: str, record: bytes) -> None:
    with open(shard, "r+b") as file:
        data = bytearray(file.read())
        data[data.index(record) + len(record) // 2] ^= 16
        file.seek(0)
        file.write(data)


def truncate(shard: str) -> None:
    """Takes away its last third, as a copy that was broken off."""
    with open(shard, "r+b") as file:
        file.truncate(file.seek(0, 2) * 2 // 3)
