"""Locks of directories, also without the module fcntl."""

import gc
import os
import subprocess
import sys

import pytest

from emofuse_jax.utils import locks

CODE = """
import os, sys
sys.modules["fcntl"] = None
from emofuse_jax.utils.locks import lock_directory
with lock_directory(sys.argv[1]):
    os._exit(0)
"""


@pytest.fixture(params=["fcntl", "no fcntl"])
def module(request, monkeypatch):
    if request.param == "no fcntl":
        monkeypatch.setattr(locks, "fcntl", None)
    return locks


def test_one_process_at_a_time(module, tmp_path):
    with (
        module.lock_directory(str(tmp_path)),
        pytest.raises(ValueError, match="another process is using it"),
        module.lock_directory(str(tmp_path)),
    ):
        pass
    gc.collect()
    with module.lock_directory(str(tmp_path)):
        pass


def test_a_process_that_was_killed_leaves_no_lock(tmp_path, monkeypatch):
    subprocess.run([sys.executable, "-c", CODE, str(tmp_path)], check=True)
    assert os.path.exists(tmp_path / "lock.marker")
    monkeypatch.setattr(locks, "fcntl", None)
    with locks.lock_directory(str(tmp_path)):
        pass
