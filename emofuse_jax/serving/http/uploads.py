"""Temporary directory for uploads; removed when the server stops."""

import contextlib
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Iterator

from emofuse_jax.utils.locks import fcntl

UPLOADS_PREFIX = "emofuse-uploads-"
"""Prefix of the names of upload directories."""
MIN_LEFTOVER_AGE_SECONDS = 60.0
"""Minimum age of a directory that is removed; a younger one may not be locked yet by its server."""


@contextlib.contextmanager
def uploads_folder() -> Iterator[str]:
    """Creates a temporary directory and yields its path; removes the directory on exit.

    First removes upload directories of this user that are older than a minute and whose server was killed.
    Those of running servers are locked and are left alone; on systems without locks, none is removed. Raises
    OSError if the directory cannot be created.
    """
    if fcntl is None:  # without locks, leftovers can't be told from the directories of running servers
        with tempfile.TemporaryDirectory(prefix=UPLOADS_PREFIX) as uploads_dir:
            yield uploads_dir
        return
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
        with contextlib.suppress(OSError):  # without locks, no other server removes it either
            _lock_directory(descriptor)
        yield uploads_dir


@contextlib.contextmanager
def _open_directory(path: str) -> Iterator[int]:
    """Yields a file descriptor of a directory and closes it on exit.

    Raises OSError if `path` is not a directory, is a link or cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock_directory(descriptor: int) -> None:
    """Locks a directory until its descriptor is closed.

    Raises OSError if the directory is locked already or the system has no locks.
    """
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
