"""What a killed server leaves of its callers' files is removed by the next one."""

import errno
import fcntl
import os
import subprocess
import sys
import tempfile
import time

import pytest

from emofuse_jax.serving.http.uploads import MIN_LEFTOVER_AGE_SECONDS, UPLOADS_PREFIX, uploads_folder

KILLED_SERVER_CODE = """
import os, signal, sys, tempfile
tempfile.tempdir = sys.argv[1]
from emofuse_jax.serving.http.uploads import uploads_folder
with uploads_folder() as folder:
    open(os.path.join(folder, "film"), "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def temporary_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def leftover(tmp_path):
    """The folder of a server that was killed long ago."""
    subprocess.run([sys.executable, "-c", KILLED_SERVER_CODE, str(tmp_path)], check=False)
    (folder,) = tmp_path.iterdir()
    assert (folder / "film").exists()
    make_old(folder)
    return folder


def make_old(folder):
    old_time = time.time() - 2 * MIN_LEFTOVER_AGE_SECONDS
    os.utime(folder, (old_time, old_time))


def test_what_a_killed_server_left_goes(leftover, tmp_path):
    with uploads_folder() as folder:
        assert [str(path) for path in tmp_path.iterdir()] == [folder]
        assert os.listdir(folder) == []
        assert os.stat(folder).st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == []


def test_what_is_too_young_to_tell_stays(leftover):
    os.utime(leftover)
    with uploads_folder():
        assert leftover.exists()


def test_what_another_server_uses_stays():
    with uploads_folder() as first:
        make_old(first)
        with uploads_folder() as second:
            assert os.path.isdir(first)
            assert first != second


def test_what_another_user_left_stays(leftover, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with uploads_folder():
        assert leftover.exists()


def test_nothing_is_removed_where_nothing_can_be_locked(leftover, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with uploads_folder() as folder:
        assert os.path.isdir(folder)
        assert leftover.exists()


def test_a_link_of_that_name_is_not_followed(tmp_path):
    """In a directory that all may write to."""
    target = tmp_path / "mine"
    target.mkdir()
    make_old(target)
    (tmp_path / f"{UPLOADS_PREFIX}link").symlink_to(target)
    with uploads_folder():
        assert target.exists()
        assert (tmp_path / f"{UPLOADS_PREFIX}link").is_symlink()
