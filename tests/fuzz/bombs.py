"""Archives of arrays that are small until they are unpacked, or that claim to be large."""

import io
import os
import zipfile
from collections.abc import Sequence

import numpy as np

BOMBS = "bombs"
PIECE = bytes(1 << 24)
CLAIMED = (1 << 27, 1 << 34, 1 << 60)
"""Numbers: two more than a worker may hold (worker.MEMORY), one more than any machine has."""


def header(shape: tuple[int, ...], dtype: str = "<f4", version: tuple[int, int] = (1, 0)) -> bytes:
    """The beginning of an array's file."""
    file = io.BytesIO()
    about = {"descr": dtype, "fortran_order": False, "shape": shape}
    write = (
        np.lib.format.write_array_header_1_0 if version == (1, 0) else np.lib.format.write_array_header_2_0
    )
    write(file, about)
    return file.getvalue()


def archive(names: Sequence[str], head: bytes, pieces: int, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive in which each array has this beginning and so many pieces of 16 MiB of zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method, compresslevel=1) as made:
        for name in names:
            with made.open(f"{name}.npy", "w", force_zip64=True) as member:
                member.write(head)
                for _ in range(pieces):
                    member.write(PIECE)
    return file.getvalue()


def bombs(names: Sequence[str], pieces: int = 80) -> dict[str, bytes]:
    """By what they do: claim numbers that are not there, unpack to 1.25 GiB, or have a header that does."""
    found = {f"claims_{n}": archive(names, header((n,)), 0) for n in CLAIMED}
    found["unpacks"] = archive(names[:1], header((pieces << 22,)), pieces)
    long = b"\x93NUMPY\x02\x00" + (pieces << 24).to_bytes(4, "little")
    return found | {"long_header": archive(names[:1], long, pieces)}


def write_bombs(folder: str, names: Sequence[str]) -> None:
    """Each as a file in BOMBS below a folder."""
    os.makedirs(os.path.join(folder, BOMBS))
    for name, data in bombs(names).items():
        with open(os.path.join(folder, BOMBS, name), "wb") as file:
            file.write(data)
