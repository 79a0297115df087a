"""Reads and writes a serialised ``tf.train.Example`` and copies its arrays at most once.

`parse_example` returns views of the record; the parser of the protobuf library copies each array twice, which
takes most of the decoding time for records of 700 KB. `serialize_example` copies each array once, into the
result; the writer of the protobuf library holds three copies at a time, 200 MB for half an hour of audio.
Wire format: https://protobuf.dev/programming-guides/encoding; message: tensorflow/core/example.
"""

from collections.abc import Iterator, Mapping, Sequence

VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
BYTES_LIST, INT64_LIST = 1, 3
PASS_ENCODED_BYTES = "pass the complete bytes that records.encode returned"
"""End of every message on bytes that are not a record."""
Buffer = bytes | memoryview
FeatureValues = list[int | memoryview]
"""Values of one feature: memoryviews of a bytes_list, or ints of an int64_list."""


def parse_example(data: bytes) -> dict[str, FeatureValues]:
    """Returns the values of each feature by name: memoryviews for a bytes_list, ints for an int64_list.

    Raises:
      ValueError: The bytes are not a `tf.train.Example`, or a feature is neither a bytes_list nor an
        int64_list.
    """
    values_by_name: dict[str, FeatureValues] = {}
    for features in iter_submessages(memoryview(data), 1):
        for entry in iter_submessages(features, 1):
            entry_fields = {number: value for number, _, value in iter_fields(entry)}
            name, feature = entry_fields.get(1), entry_fields.get(2)
            if not isinstance(name, memoryview) or not isinstance(feature, memoryview):
                raise ValueError(
                    f"not a record or damaged: a feature has no name or no value; {PASS_ENCODED_BYTES}"
                )
            values_by_name[bytes(name).decode(errors="replace")] = read_feature_values(feature)
    return values_by_name


def read_feature_values(feature: memoryview) -> FeatureValues:
    """Returns the values of one serialised feature: memoryviews of a bytes_list, or ints of an int64_list.

    Raises ValueError if the feature is damaged or neither a bytes_list nor an int64_list.
    """
    values: FeatureValues = []
    for list_kind, list_wire_type, content in iter_fields(feature):
        if (
            list_wire_type != LENGTH_DELIMITED
            or list_kind not in (BYTES_LIST, INT64_LIST)
            or not isinstance(content, memoryview)
        ):
            raise ValueError(
                f"not a record or damaged: a feature has list kind {list_kind}, expected {BYTES_LIST}"
                f" (bytes_list) or {INT64_LIST} (int64_list); {PASS_ENCODED_BYTES}"
            )
        for _, wire_type, value in iter_fields(content):
            is_packed = list_kind == INT64_LIST and wire_type == LENGTH_DELIMITED
            values += read_varints(value) if is_packed and isinstance(value, memoryview) else [value]
    return values


def iter_submessages(data: memoryview, wanted_number: int) -> Iterator[memoryview]:
    """Yields the bytes of each length-delimited field that has the field number `wanted_number`.

    `data` is a serialised protobuf message. Raises ValueError if the message is damaged.
    """
    for number, wire_type, value in iter_fields(data):
        if number == wanted_number and wire_type == LENGTH_DELIMITED and isinstance(value, memoryview):
            yield value


def iter_fields(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yields (field number, wire type, value) of each field of a serialised protobuf message.

    The value is a signed integer for wire type 0 (varint), else a view of the bytes. Raises ValueError if the
    message is truncated, has an integer longer than 10 bytes, or a wire type other than 0, 1, 2 and 5.
    """
    position, end = 0, len(data)
    while position < end:
        # Most varints have one byte; reading those here, without a call, halves the time.
        tag, position = (
            (data[position], position + 1) if data[position] < 0x80 else read_varint(data, position)
        )
        number, wire_type = tag >> 3, tag & 7
        if wire_type == VARINT:
            value, position = read_varint(data, position)
            yield number, wire_type, to_signed(value)
            continue
        size = FIXED_SIZES.get(wire_type)
        if wire_type == LENGTH_DELIMITED:
            size, position = (
                (data[position], position + 1)
                if position < end and data[position] < 0x80
                else read_varint(data, position)
            )
        if size is None or position + size > end:
            raise ValueError(
                f"not a record or damaged: field {number} is truncated or has wire type {wire_type},"
                f" expected 0, 1, 2 or 5; {PASS_ENCODED_BYTES}"
            )
        yield number, wire_type, data[position : position + size]
        position += size


def read_varints(data: memoryview) -> list[int]:
    """Returns the signed integers of a packed list of varints.

    Raises ValueError if an integer is truncated or longer than 10 bytes.
    """
    values, position = [], 0
    while position < len(data):
        value, position = read_varint(data, position)
        values.append(to_signed(value))
    return values


def read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """Returns `(value, next_position)`: the varint (base 128, lowest digits first) at `position`, unsigned.

    Raises ValueError if the varint is truncated or longer than 10 bytes.
    """
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte, position = data[position], position + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(
        f"not a record or damaged: an integer is truncated or longer than 10 bytes; {PASS_ENCODED_BYTES}"
    )


def to_signed(value: int) -> int:
    """Returns the signed integer whose 64-bit two's complement is `value`."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def serialize_example(features: Mapping[str, Buffer | int]) -> bytes:
    """Returns a serialised `tf.train.Example` in which each feature has one value, sorted by name.

    An int becomes an int64_list, of which only the lowest 64 bits are kept; bytes and the memory of an array
    (`array.data`) become a bytes_list. The result equals the deterministic serialisation of the protobuf
    library. Raises ValueError if a name cannot be encoded as UTF-8; TypeError if a value is neither.
    """
    buffers = [buffer for name in sorted(features) for buffer in _encode_entry(name, features[name])]
    return b"".join(_encode_message(1, buffers))


def _encode_entry(name: str, value: Buffer | int) -> list[Buffer]:
    """Returns the byte buffers that, joined, are the entry of one feature: its name and its value.

    Raises ValueError if the name cannot be encoded as UTF-8; TypeError if the value is no int and no buffer.
    """
    if isinstance(value, int):
        feature = _encode_message(INT64_LIST, _encode_message(1, [encode_varint(value % (1 << 64))]))
    else:
        feature = _encode_message(BYTES_LIST, _encode_message(1, [value]))
    return _encode_message(1, _encode_message(1, [name.encode()]) + _encode_message(2, feature))


def _encode_message(number: int, buffers: Sequence[Buffer]) -> list[Buffer]:
    """Returns the buffers of a length-delimited field: its tag and length, then `buffers` as its content.

    `number` is the field number, which must be below 16; this is not checked.
    """
    byte_count = sum(memoryview(buffer).nbytes for buffer in buffers)
    return [bytes([number << 3 | LENGTH_DELIMITED]) + encode_varint(byte_count), *buffers]


def encode_varint(value: int) -> bytes:
    """Returns an unsigned integer as a varint (base 128, lowest digits first); inverse of `read_varint`.

    Raises ValueError if `value` is negative.
    """
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
