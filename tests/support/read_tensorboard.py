"""Reads TensorBoard's files, which tensorboardX writes."""

import pathlib
import struct
from collections.abc import Iterator

from tensorboardX.proto.event_pb2 import Event


def read_values(folder) -> dict[str, list]:
    """The values of every tag below a folder, in the order of the files."""
    values_by_tag: dict[str, list] = {}
    for path in sorted(pathlib.Path(folder).glob("events*")):
        for event in parse_events(path.read_bytes()):
            for value in event.summary.value:
                values_by_tag.setdefault(value.tag, []).append(value)
    return values_by_tag


def parse_events(data: bytes) -> Iterator[Event]:
    """Of a file of records: length, its checksum, bytes, their checksum."""
    offset = 0
    while offset < len(data):
        (length,) = struct.unpack_from("<Q", data, offset)
        yield Event.FromString(data[offset + 12 : offset + 12 + length])
        offset += length + 16
