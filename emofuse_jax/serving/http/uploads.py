"""Where what callers send lies while it is decoded."""

import contextlib
import fcntl
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Iterator

UPLOADS_PREFIX = "emofuse-uploads-"
MIN_LEFTOVER_AGE_SECONDS = 60.0
"""Seconds in which a folder may not be locked yet by the server that made it."""


@contextlib.contextmanager
def uploads_folder() -> Iterator[str]:
    """A folder that goes with the server; those of servers that were killed are removed now."""
    for leftover_dir in glob.glob(os.path.join(tempfile.gettempdir(), f"{UPLOADS_PREFIX}*")):
        with contextlib.suppress(OSError), _open_directory(leftover_dir) as descriptor:
            status = os.fstat(descriptor)
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > MIN_LEFTOVER_AGE_SECONDS:
                _lock_directory(descriptor)
                shutil.rmtree(leftover_dir)
    with (
        tempfile.TemporaryDirectory(prefix=UPLOADS_PREFIX) as uploads_dir,
        _open_directory(uploads_dir) as descriptor,
    ):
        with contextlib.suppress(OSError):  # where nothing can be locked, nobody removes it either
            _lock_directory(descriptor)
        yield uploads_dir


@contextlib.contextmanager
def _open_directory(path: str) -> Iterator[int]:
    """A directory, not a link to one; OSError where it is none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock_directory(descriptor: int) -> None:
    """Until it is closed; OSError where another process has it, or the file system has no locks."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
