"""The machine that a process runs on."""

import contextlib
import fcntl
import hashlib
import os
import platform
import warnings
from collections.abc import Iterator
from typing import IO


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int:
    """Bytes that can be had without swapping; where the system does not tell, all that is built in."""
    if os.path.exists("/proc/meminfo"):
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":") for line in file)
        return int(lines["MemAvailable"].split()[0]) << 10
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@contextlib.contextmanager
def locked(directory: str) -> Iterator[None]:
    """Keeps a second process out of a directory, which is made; raises ValueError in that process.

    The lock is the system's: it goes with the process, however that ends.
    """
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "lock"), "w") as file:
        lock(file, f"{directory}: another process is at work here")
        yield


def lock(file: IO, refused: str) -> None:
    """Locks an open file until it is closed; ValueError with these words where another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(refused) from None
    except OSError as error:  # as some shared file systems answer
        warnings.warn(
            f"{file.name}: can't be locked ({error}): see that no other process is there", stacklevel=2
        )


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Puts the file's name to an error that has none, as that of a write to a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, path) from error


def cpu_kind() -> str:
    """A name that processors share which run the same compiled programs."""
    words = platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            words += next((line for line in file if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(words.encode()).hexdigest()[:12]
