"""Locks a directory or an open file for one process."""

import contextlib
import os
import warnings
import weakref
from collections.abc import Iterator
from typing import IO

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def lock_directory(directory: str) -> Iterator[None]:
    """Locks a directory for this process while the `with` block runs; yields nothing.

    Creates the directory if necessary, and the file `lock` in it, which stays there. The operating system
    manages the lock, so it is also released when the process is killed. On file systems without locks the
    function only warns.

    Raises:
      ValueError: The directory is already locked, by another process or by this one.
      OSError: The directory or the file `lock` in it cannot be created.
    """
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "lock"), "w", encoding="utf-8") as file:
        lock_file(
            file, f"{directory}: another process is using it; wait until it ends, or use another directory"
        )
        yield


def lock_file(file: IO[str] | IO[bytes], message: str) -> None:
    """Locks an open file for this process until the file is closed; returns nothing.

    Without the module fcntl, a file `<file>.marker` next to the locked file marks it as locked. Warns instead
    if the file system does not support locks, as on some network file systems.

    Raises:
      ValueError: The file is already locked, by another process or by another open file of this one; the text
        of the error is `message`.
      OSError: Without the module fcntl: the marker file cannot be created.
    """
    if fcntl is None:
        _create_lock_marker(file, message)
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(message) from None
    except OSError as error:  # some network file systems do not support locks
        warnings.warn(
            f"{file.name}: cannot be locked ({error}); make sure that no other process uses its directory",
            stacklevel=2,
        )


def _create_lock_marker(file: IO[str] | IO[bytes], message: str) -> None:
    """Creates `<file>.marker`, which is removed with the file object; replaces a marker of an ended process.

    Raises ValueError with the text `message` if a running process holds the marker, and OSError if the marker
    cannot be created.
    """
    import filelock

    lock = filelock.SoftFileLock(f"{file.name}.marker", thread_local=False)
    try:
        lock.acquire(timeout=0.3, poll_interval=0.05)  # a marker of an ended process is removed, then retried
    except filelock.Timeout:
        raise ValueError(message) from None
    weakref.finalize(file, lock.release)
