"""Archives of arrays that are small until they are unpacked, or that claim to be large."""

import io
import os
import zipfile
from collections.abc import Sequence

import numpy as np

BOMB_FOLDER = "bombs"
ZERO_BLOCK = bytes(1 << 24)
CLAIMED_SIZES = (1 << 27, 1 << 34, 1 << 60)
"""Numbers: two more than a worker may hold (worker.MAX_EXTRA_BYTES), one more than any machine has."""


def make_array_header(shape: tuple[int, ...], dtype: str = "<f4", version: tuple[int, int] = (1, 0)) -> bytes:
    """The beginning of an array's file."""
    file = io.BytesIO()
    header_fields = {"descr": dtype, "fortran_order": False, "shape": shape}
    write = (
        np.lib.format.write_array_header_1_0 if version == (1, 0) else np.lib.format.write_array_header_2_0
    )
    write(file, header_fields)
    return file.getvalue()


def make_archive(
    names: Sequence[str], header: bytes, block_count: int, method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """An archive in which each array has this beginning and so many pieces of 16 MiB of zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method, compresslevel=1) as zip_file:
        for name in names:
            with zip_file.open(f"{name}.npy", "w", force_zip64=True) as member:
                member.write(header)
                for _ in range(block_count):
                    member.write(ZERO_BLOCK)
    return file.getvalue()


def make_bombs(names: Sequence[str], block_count: int = 80) -> dict[str, bytes]:
    """By what they do: claim numbers that are not there, unpack to 1.25 GiB, or have a header that does."""
    archives = {f"claims_{n}": make_archive(names, make_array_header((n,)), 0) for n in CLAIMED_SIZES}
    archives["unpacks"] = make_archive(names[:1], make_array_header((block_count << 22,)), block_count)
    long_header = b"\x93NUMPY\x02\x00" + (block_count << 24).to_bytes(4, "little")
    return archives | {"long_header": make_archive(names[:1], long_header, block_count)}


def write_bombs(folder: str, names: Sequence[str]) -> None:
    """Each as a file in BOMBS below a folder."""
    os.makedirs(os.path.join(folder, BOMB_FOLDER))
    for name, data in make_bombs(names).items():
        with open(os.path.join(folder, BOMB_FOLDER, name), "wb") as file:
            file.write(data)
