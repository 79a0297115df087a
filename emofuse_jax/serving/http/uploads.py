"""Where what callers send lies while it is decoded."""

import contextlib
import fcntl
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Iterator

PREFIX = "emofuse-uploads-"
YOUNG = 60.0
"""Seconds in which a folder may not be locked yet by the server that made it."""


@contextlib.contextmanager
def uploads_folder() -> Iterator[str]:
    """A folder that goes with the server; those of servers that were killed are removed now."""
    for left in glob.glob(os.path.join(tempfile.gettempdir(), f"{PREFIX}*")):
        with contextlib.suppress(OSError), _opened(left) as folder:
            about = os.fstat(folder)
            if about.st_uid == os.getuid() and time.time() - about.st_mtime > YOUNG:
                _lock(folder)
                shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=PREFIX) as made, _opened(made) as folder:
        with contextlib.suppress(OSError):  # where nothing can be locked, nobody removes it either
            _lock(folder)
        yield made


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    """A directory, not a link to one; OSError where it is none."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield folder
    finally:
        os.close(folder)


def _lock(folder: int) -> None:
    """Until it is closed; OSError where another process has it, or the file system has no locks."""
    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
