"""Where what callers send lies while it is decoded."""

import contextlib
import glob
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator

from emofuse_jax.host import locked

PREFIX = "emofuse-uploads-"
YOUNG = 60.0
"""Seconds in which a folder may not be locked yet by the server that made it."""


@contextlib.contextmanager
def uploads_folder() -> Iterator[str]:
    """A folder that goes with the server; those of servers that were killed are removed now."""
    for left in glob.glob(os.path.join(tempfile.gettempdir(), f"{PREFIX}*")):
        with contextlib.suppress(OSError, ValueError):  # gone by now, or in use
            about = os.lstat(left)
            ours = stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid()
            if ours and time.time() - about.st_mtime > YOUNG:
                with locked(left, "serving"):
                    shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder, locked(folder, "serving"):
        files = os.path.join(folder, "files")
        os.mkdir(files)
        yield files
