"""Reads TensorBoard's files, which tensorboardX writes."""

import pathlib
import struct
from collections.abc import Iterator

from tensorboardX.proto.event_pb2 import Event


def shown(folder) -> dict[str, list]:
    """The values of every tag below a folder, in the order of the files."""
    found: dict[str, list] = {}
    for path in sorted(pathlib.Path(folder).glob("events*")):
        for event in events(path.read_bytes()):
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(value)
    return found


def events(data: bytes) -> Iterator[Event]:
    """Of a file of records: length, its checksum, bytes, their checksum."""
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield Event.FromString(data[at + 12 : at + 12 + length])
        at += length + 16
