"""Kind of the driver's own test: each seed does another thing that the driver must tell apart."""

import ctypes
import os

NAMED = "field"
MEMORY = 1 << 28


def make(folder: str) -> None:
    """No samples."""


def load(folder: str) -> None:
    """No samples."""


def attempt(case: None, seed: int, scratch: str) -> None:
    """By the number of the input."""
    if seed == 1:
        ctypes.string_at(0)
    if seed == 2:
        while True:
            pass
    if seed == 3:
        hog = []
        while True:
            hog.append(bytearray(1 << 24))
    if seed == 4:
        raise KeyError("a")
    if seed == 5:
        raise ValueError("field a: 1, expected 2")
    if seed == 6:
        raise ValueError("something is wrong")
    if seed == 7:
        with open(os.path.join(scratch, "..", "..", "outside"), "w"):
            pass
    if seed == 8:
        os.system("true")
    if seed == 10:
        os._exit(3)
    if seed == 11:
        with open(os.path.join(scratch, "inside"), "w"):
            pass
