"""Locks a directory or an open file for one process."""

import contextlib
import fcntl
import os
import warnings
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def lock_directory(directory: str) -> Iterator[None]:
    """Keeps a second process out of a directory, which is made; raises ValueError in that process.

    The lock is the system's: it goes with the process, however that ends.
    """
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "lock"), "w") as file:
        lock_file(file, f"{directory}: another process is at work here")
        yield


def lock_file(file: IO, message: str) -> None:
    """Locks an open file until it is closed; ValueError with these words where another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(message) from None
    except OSError as error:  # as some shared file systems answer
        warnings.warn(
            f"{file.name}: can't be locked ({error}): see that no other process is there", stacklevel=2
        )
