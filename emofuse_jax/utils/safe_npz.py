"""Arrays of an `.npz` that comes from elsewhere: its headers are checked before anything is unpacked."""

import math
import zipfile
from collections.abc import Mapping
from typing import IO

import numpy as np

from emofuse_jax.utils.errors import with_kind

KINDS, WIDEST = "biuf", 8
"""Of the numbers in an array: numpy's letters, and bytes of one."""
HEADER = 1 << 14
"""Bytes before an array's numbers; numpy takes fewer."""
ROWS = 64
TOLD = 300
"""Characters of what a library said; zipfile repeats names of any length."""
PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What numpy writes; other compressions choose how much memory it takes to undo them."""
READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(
    source: str | IO[bytes], shapes: Mapping[str, tuple[int, ...]], *, rows: bool = False
) -> dict[str, np.ndarray]:
    """The arrays of these names and shapes; with `rows` each has 1 to ROWS of its shape.

    Raises:
      ValueError: no such archive, or an array is missing, damaged, of another shape, or none of numbers;
        names the array.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            return {name: _read(archive, name, shape, rows) for name, shape in shapes.items()}
    except (MemoryError, ValueError):
        raise
    except Exception as error:  # what zipfile and zlib raise has no common class
        raise ValueError(with_kind(error)[:TOLD]) from error


def _read(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], rows: bool) -> np.ndarray:
    member = archive.getinfo(f"{name}.npy")
    most = HEADER + WIDEST * math.prod(shape) * (ROWS if rows else 1)
    if member.file_size > most or member.compress_type not in PLAIN:  # no more than file_size is unpacked
        raise ValueError(f"{name} has {member.file_size} bytes unpacked, expected at most {most}")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in READERS:
            raise ValueError(f"{name} has version {version} of the format")
        found, _, dtype = READERS[version](file)
        if dtype.kind not in KINDS:
            raise ValueError(f"{name} has dtype {dtype.name[:60]}, expected numbers")
        counts, rest = found[: int(rows)], found[int(rows) :]
        if rest != shape or len(counts) < rows or not all(1 <= count <= ROWS for count in counts):
            wanted = ", ".join(map(str, [*[f"1 to {ROWS}"] * rows, *shape]))
            raise ValueError(f"{name} has shape {list(found[:9])}, expected [{wanted}]")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
