"""Reads arrays of an untrusted `.npz` file; array headers are validated before any array is decompressed."""

import math
import zipfile
from collections.abc import Mapping
from typing import IO

import numpy as np

from emofuse_jax.utils.errors import format_error

NUMERIC_DTYPE_KINDS, MAX_ITEM_BYTES = "biuf", 8
"""Allowed dtype kinds of an array (NumPy's letters), and largest number of bytes per item."""
MAX_HEADER_BYTES = 1 << 14
"""Largest number of bytes before the data of an array; NumPy writes fewer."""
MAX_ROWS = 64
"""Largest number of rows of an array that is read with `has_rows`."""
MAX_ERROR_CHARS = 300
"""Longest text of an error from zipfile or zlib; zipfile repeats file names of any length."""
ALLOWED_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The compressions that NumPy writes; with others, the file decides how much memory decompression takes."""
HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(
    source: str | IO[bytes], shapes: Mapping[str, tuple[int, ...]], *, has_rows: bool = False
) -> dict[str, np.ndarray]:
    """Reads arrays of an `.npz` file; arrays that `shapes` does not name are ignored.

    Args:
      source: Path of the file, or an open binary file.
      shapes: Expected shape of each array by name.
      has_rows: True if each array has an additional first axis, the rows, of length 1 to 64 (MAX_ROWS), which
        can differ between the arrays.

    Returns:
      A dict of the arrays by name: of the expected shape, or [rows, *shape] with `has_rows`, in the dtype of
      the file (bool, integers or floats).

    Raises:
      ValueError: The file cannot be opened or is no zip archive; or an array is missing, damaged, larger than
        its shape allows, not numeric, of another shape, or stored in a way in which NumPy does not write it.
        The message does not name the file.
      MemoryError: An array does not fit in memory.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            return {name: _read_array(archive, name, shape, has_rows) for name, shape in shapes.items()}
    except (MemoryError, ValueError):
        raise
    except Exception as error:  # the errors of zipfile and zlib have no common base class
        raise ValueError(format_error(error)[:MAX_ERROR_CHARS]) from error


def _read_array(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], has_rows: bool) -> np.ndarray:
    """Returns the array `<name>.npy` of the archive, of shape `shape`, or [rows, *shape] with `has_rows`.

    Raises ValueError if it is larger than its shape allows, has another shape or a dtype that is not numeric,
    or if NumPy does not write its compression or .npy version; KeyError if it is missing; and an error of
    zipfile or zlib if it is damaged.
    """
    member = archive.getinfo(f"{name}.npy")
    max_bytes = MAX_HEADER_BYTES + MAX_ITEM_BYTES * math.prod(shape) * (MAX_ROWS if has_rows else 1)
    # zipfile decompresses at most file_size bytes
    if member.file_size > max_bytes or member.compress_type not in ALLOWED_COMPRESSIONS:
        raise ValueError(
            f"the .npz file's array {name} has {member.file_size} bytes unpacked, expected at most"
            f" {max_bytes}, or it has another compression than none or deflate, with which NumPy writes it"
        )
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in HEADER_READERS:
            raise ValueError(
                f"the .npz file's array {name} has version {version} of the .npy format, expected (1, 0) or"
                " (2, 0), as numpy.savez writes it"
            )
        actual_shape, _, dtype = HEADER_READERS[version](file)
        if dtype.kind not in NUMERIC_DTYPE_KINDS:
            raise ValueError(f"the .npz file's array {name} has dtype {dtype.name[:60]}, expected numbers")
        row_counts, row_shape = actual_shape[: int(has_rows)], actual_shape[int(has_rows) :]
        if (
            row_shape != shape
            or len(row_counts) < has_rows
            or not all(1 <= row_count <= MAX_ROWS for row_count in row_counts)
        ):
            expected_shape = ", ".join(map(str, [*[f"1 to {MAX_ROWS}"] * has_rows, *shape]))
            raise ValueError(
                f"the .npz file's array {name} has shape {list(actual_shape[:9])}, expected"
                f" [{expected_shape}]"
            )
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
