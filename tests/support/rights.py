"""What a user may not read, also where the tests are root, who may read everything."""

import contextlib
import os

NOBODY = 65534


@contextlib.contextmanager
def as_nobody():
    """This process without the rights of root, or as it is."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def make_unreadable(path):
    """Takes away the rights to read a file; pytest's folders on the way are opened, which are one user's."""
    os.chmod(path, 0)
    for folder in list(path.parents)[:-2]:
        folder.chmod(folder.stat().st_mode | 0o055)
