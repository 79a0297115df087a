"""Disks that are full or read-only: one line, no process left, and with room the same command goes on."""

import contextlib
import os
import resource
import subprocess
import sys

import pytest

from tests.chaos.leavings import leavings, memory
from tests.chaos.scenes import make_scenes

VERBS = ("prepare", "train", "crossval", "predict")
FULL = "No space left on device"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return make_scenes(str(tmp_path_factory.mktemp("scenes")))


@pytest.fixture(scope="module")
def usual(scenes, tmp_path_factory):
    """Checksums of what each verb leaves when all is well, made when it is asked for."""
    made = {}

    def of(verb):
        if verb not in made:
            directory = str(tmp_path_factory.mktemp(f"{verb}_usual"))
            assert run(scenes[verb], directory).returncode == 0
            made[verb] = scenes[verb].digest(directory)
        return made[verb]

    return of


def run(scene, directory, limit=None):
    def confine():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    command, before = [sys.executable, scene.script, *scene.arguments(str(directory))], memory()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(
        command, **pipes, start_new_session=True, preexec_fn=confine if limit else None
    )
    told = process.communicate(timeout=300)
    left = leavings(process.pid, before)
    assert (left["orphans"], left["shared_memory"]) == (0, []), told
    return subprocess.CompletedProcess(command, process.returncode, *told)


def mount(*words):
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"can't mount: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path):
    """A file system of its own; `disk(size)` makes it, or gives it another size."""
    path, mounted = tmp_path / "disk", []

    def sized(options):
        path.mkdir(exist_ok=True)
        mount("-t", "tmpfs", "-o", ",".join([*mounted, options]), "tmpfs", str(path))
        mounted[:] = ["remount"]
        return str(path)

    yield sized
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(["umount", str(path)], capture_output=True)


def assert_one_line(done, words):
    told = [line for line in done.stderr.splitlines() if line.startswith("emofuse: ")]
    assert done.returncode == 2, done.stderr[-3000:]
    assert any(words in line for line in told), done.stderr[-3000:]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk(scenes, usual, disk, verb):
    """It fills up on the way; with more room the same command ends with the same results."""
    room = {"prepare": "300k", "train": "250k", "crossval": "300k", "predict": "4k"}
    directory = disk(f"size={room[verb]}")
    assert_one_line(run(scenes[verb], directory), FULL)
    disk("size=1g")
    done = run(scenes[verb], directory)
    assert done.returncode == 0, done.stderr[-3000:]
    assert scenes[verb].digest(directory) == usual(verb)


@pytest.mark.parametrize("verb", VERBS)
def test_files_that_may_not_grow(scenes, usual, tmp_path, verb):
    """Where nothing can be mounted: the system's limit on the size of a file."""
    limit = {"prepare": 40_000, "train": 6_000, "crossval": 6_000, "predict": 3_000}
    assert_one_line(run(scenes[verb], tmp_path, limit=limit[verb]), "File too large")
    assert run(scenes[verb], tmp_path).returncode == 0
    assert scenes[verb].digest(str(tmp_path)) == usual(verb)


@pytest.mark.parametrize("verb", VERBS)
def test_a_disk_that_is_read_only(scenes, disk, verb):
    directory = disk("ro,size=1m")
    assert_one_line(run(scenes[verb], directory), "Read-only file system")
    assert os.listdir(directory) == []
