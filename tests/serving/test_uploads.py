"""What a killed server leaves of its callers' files is removed by the next one."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

import pytest

from emofuse_jax.serving.uploads import PREFIX, YOUNG, uploads_folder

SERVER = """
import os, signal, sys, tempfile
tempfile.tempdir = sys.argv[1]
from emofuse_jax.serving.uploads import uploads_folder
with uploads_folder() as folder:
    open(os.path.join(folder, "film"), "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def age(folder, seconds):
    then = time.time() - seconds
    os.utime(folder, (then, then))


def test_what_a_killed_server_left_goes(tmp_path):
    subprocess.run([sys.executable, "-c", SERVER, str(tmp_path)], check=False)
    (left,) = tmp_path.iterdir()
    assert (left / "files" / "film").exists()
    with uploads_folder():
        assert left.exists()  # too young to tell
    age(left, 2 * YOUNG)
    with uploads_folder() as folder:
        assert [path.name for path in tmp_path.iterdir()] == [pathlib.Path(folder).parent.name]
        assert os.stat(pathlib.Path(folder).parent).st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == []


def test_what_another_server_uses_stays(tmp_path):
    with uploads_folder() as first:
        age(pathlib.Path(first).parent, 2 * YOUNG)
        with uploads_folder() as second:
            assert os.path.isdir(first)
            assert first != second


def test_what_others_made_of_that_name_stays(tmp_path):
    """In a directory that all may write to."""
    target = tmp_path / "mine"
    target.mkdir()
    age(target, 2 * YOUNG)
    (tmp_path / f"{PREFIX}link").symlink_to(target)
    with uploads_folder():
        pass
    assert list(target.iterdir()) == []
    assert (tmp_path / f"{PREFIX}link").is_symlink()
