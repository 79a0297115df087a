"""Arrays of an `.npz` that comes from elsewhere: its headers are checked before anything is unpacked."""

import math
import zipfile
from collections.abc import Mapping
from typing import IO

import numpy as np

from emofuse_jax.utils.errors import format_error

NUMERIC_DTYPE_KINDS, MAX_ITEM_BYTES = "biuf", 8
"""Of the numbers in an array: numpy's letters, and bytes of one."""
MAX_HEADER_BYTES = 1 << 14
"""Bytes before an array's numbers; numpy takes fewer."""
MAX_ROWS = 64
MAX_ERROR_CHARS = 300
"""Characters of what a library said; zipfile repeats names of any length."""
ALLOWED_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What numpy writes; other compressions choose how much memory it takes to undo them."""
HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(
    source: str | IO[bytes], shapes: Mapping[str, tuple[int, ...]], *, has_rows: bool = False
) -> dict[str, np.ndarray]:
    """The arrays of these names and shapes; with `has_rows` each has 1 to MAX_ROWS of its shape.

    Raises:
      ValueError: no such archive, or an array is missing, damaged, of another shape, or none of numbers;
        names the array.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            return {name: _read_array(archive, name, shape, has_rows) for name, shape in shapes.items()}
    except (MemoryError, ValueError):
        raise
    except Exception as error:  # what zipfile and zlib raise has no common class
        raise ValueError(format_error(error)[:MAX_ERROR_CHARS]) from error


def _read_array(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], has_rows: bool) -> np.ndarray:
    member = archive.getinfo(f"{name}.npy")
    max_bytes = MAX_HEADER_BYTES + MAX_ITEM_BYTES * math.prod(shape) * (MAX_ROWS if has_rows else 1)
    # no more than file_size is unpacked
    if member.file_size > max_bytes or member.compress_type not in ALLOWED_COMPRESSIONS:
        raise ValueError(f"{name} has {member.file_size} bytes unpacked, expected at most {max_bytes}")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in HEADER_READERS:
            raise ValueError(f"{name} has version {version} of the format")
        actual_shape, _, dtype = HEADER_READERS[version](file)
        if dtype.kind not in NUMERIC_DTYPE_KINDS:
            raise ValueError(f"{name} has dtype {dtype.name[:60]}, expected numbers")
        row_counts, row_shape = actual_shape[: int(has_rows)], actual_shape[int(has_rows) :]
        if (
            row_shape != shape
            or len(row_counts) < has_rows
            or not all(1 <= row_count <= MAX_ROWS for row_count in row_counts)
        ):
            expected_shape = ", ".join(map(str, [*[f"1 to {MAX_ROWS}"] * has_rows, *shape]))
            raise ValueError(f"{name} has shape {list(actual_shape[:9])}, expected [{expected_shape}]")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
