"""Seeded damage to media files: bits, lengths, order, headers, and halves of other files."""

import numpy as np

HEADER_MARKERS = (
    *b"ftyp moov mvhd tkhd elst mdhd hdlr stsd avc1 avcC mp4a esds stts ctts stsc stsz stco stss".split(),
    *(b"mdat", b"RIFF", b"fmt ", *b"data avih strh strf movi idx1".split()),  # MP4; WAV, AVI
    *(b"\x1aE\xdf\xa3", b"\x2a\xd7\xb1", b"\x44\x89", b"\x16\x54\xae\x6b", b"\x1fC\xb6u"),
    *(b"\xe0", b"\xe1"),  # MKV
    *(b"\0\0\1\xb3", b"\0\0\1\xba", b"\0\0\1\xe0", b"\0\0\1\xc0"),  # MPEG
    *(*b"fLaC OggS OpusHead ID3 Xing Info FLV".split(), b"\x47\x40"),  # sound, FLV, TS
)
"""Bytes after which headers keep sizes, durations, rates, dimensions and clocks."""
CODEC_NAMES = [
    code.ljust(4)
    for code in b"avc1 hev1 vp09 av01 FMP4 MPG4 WMV2 mjpg png raw rle smc FFV1 HFYU ULRG SVQ3 cvid dvsd apch"
    b" v210 2vuy msvc tscc ZMBV mp4a alac ac-3 samr QDM2 Opus sowt in24 fl64 ulaw MAC3 dtsc".split()
]
"""What stands in MP4 and AVI for a codec."""
WAVE_TAGS = (1, 2, 3, 6, 7, 17, 49, 80, 85, 255, 353, 354, 8192, 61868, 65534)
EXTREME_VALUES = (0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


def few_bits(data, rng, other):
    return _flip_bits(data, rng, rng.integers(1, 9))


def many_bits(data, rng, other):
    return _flip_bits(data, rng, 1 + len(data) // rng.integers(20, 2000))


def head_bits(data, rng, other):
    head = min(len(data), 1024)
    return _flip_bits(data[:head], rng, rng.integers(1, 40)) + data[head:]


def truncated(data, rng, other):
    return data[: rng.integers(len(data))]


def headless(data, rng, other):
    return data[rng.integers(1, len(data)) :]


def removed(data, rng, other):
    start, end = _random_span(data, rng)
    return data[:start] + data[end:]


def doubled(data, rng, other):
    start, end = _random_span(data, rng)
    return data[:end] + data[start:]


def swapped(data, rng, other):
    a, b, c, d = sorted(rng.integers(0, len(data) + 1, 4))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def zeroed(data, rng, other):
    start, end = _random_span(data, rng)
    return data[:start] + bytes(end - start) + data[end:]


def noise_behind(data, rng, other):
    """Random bytes behind a head that stays."""
    start = rng.integers(len(data))
    return data[:start] + rng.bytes(len(data) - start)


def extreme_field(data, rng, other):
    """One to three numbers near the marks of a header become extreme."""
    damaged = bytearray(data)
    markers = [marker for marker in HEADER_MARKERS if marker in data]
    for _ in range(rng.integers(1, 4)):
        if not markers:
            break
        marker = markers[rng.integers(len(markers))]
        position = _positions_after(data, marker)
        position = int(position[rng.integers(len(position))]) + rng.integers(-4, 48)
        size = int(rng.choice([1, 2, 4, 8]))
        value = EXTREME_VALUES[rng.integers(len(EXTREME_VALUES))] % 256**size
        position = max(0, min(int(position), len(data) - size))
        damaged[position : position + size] = value.to_bytes(size, "big" if rng.integers(2) else "little")
    return bytes(damaged)


def other_codec(data, rng, other):
    """The header names another codec than the one that wrote the packets."""
    damaged = bytearray(data)
    for code in CODEC_NAMES:
        for position in _positions_after(data, code)[:1]:
            damaged[position - 4 : position] = CODEC_NAMES[rng.integers(len(CODEC_NAMES))]
    for position in _positions_after(data, b"fmt ")[:1]:
        tag, bits = rng.choice(WAVE_TAGS), rng.choice([1, 4, 8, 16, 24, 32, 64])
        damaged[position + 4 : position + 6], damaged[position + 18 : position + 20] = (
            int(n).to_bytes(2, "little") for n in (tag, bits)
        )
    return bytes(damaged) if damaged != data else head_bits(data, rng, other)


def spliced(data, rng, other):
    """The beginning of one file and the end of another, of whatever kind."""
    return data[: rng.integers(len(data))] + other[rng.integers(len(other)) :]


def inserted(data, rng, other):
    """A piece of another file amid this one."""
    (start, end), position = _random_span(other, rng), rng.integers(len(data))
    return data[:position] + other[start:end] + data[position:]


def as_it_is(data, rng, other):
    """For a wrong extension alone."""
    return data


MUTATORS = (
    *(few_bits, many_bits, head_bits, truncated, headless, removed, doubled, swapped, zeroed, noise_behind),
    *(extreme_field, extreme_field, extreme_field, other_codec, other_codec, spliced, inserted, as_it_is),
)
"""Each as often as it stands here: header fields are many."""


def mutate(samples: dict[str, bytes], seed: int) -> tuple[str, bytes]:
    """(name, bytes) of the damaged file of that number, from files by name; equal seeds, equal files."""
    rng = np.random.default_rng([seed, 2])
    names = sorted(samples)
    name, other, extension = (names[i] for i in rng.integers(0, len(names), 3))
    mutator = MUTATORS[rng.integers(len(MUTATORS))]
    if mutator is not as_it_is and rng.integers(8):
        extension = name  # one in eight bears a wrong one
    suffix = extension.rpartition(".")[2]
    file_name = f"{seed:05d}_{mutator.__name__}_{name.replace('.', '_')}.{suffix}"
    return file_name, mutator(samples[name], rng, samples[other])


def _flip_bits(data, rng, count):
    damaged = np.frombuffer(data, np.uint8).copy()
    positions = rng.integers(0, len(data), count)
    np.bitwise_xor.at(damaged, positions, (1 << rng.integers(0, 8, count)).astype(np.uint8))
    return damaged.tobytes()


def _random_span(data, rng):
    """Bounds of a piece, short ones as likely as long ones."""
    length = int(np.exp(rng.uniform(0, np.log(len(data)))))
    start = int(rng.integers(0, len(data) - length + 1))
    return start, start + length


def _positions_after(data, marker):
    positions, position = [], data.find(marker)
    while position >= 0:
        positions.append(position + len(marker))
        position = data.find(marker, position + 1)
    return positions
