"""Disks that are full or read-only: one line, no process left, and with room the same command goes on."""

import contextlib
import os
import resource
import subprocess
import sys

import pytest

from tests.robustness.chaos.leftovers import find_leftovers, list_shared_memory
from tests.robustness.chaos.scenarios import make_scenarios
from tests.support.tiers import mark_others_long

VERBS = ("prepare", "train", "crossval", "predict")
DISK_FULL_MESSAGE = "No space left on device"


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory):
    return make_scenarios(str(tmp_path_factory.mktemp("scenarios")))


@pytest.fixture(scope="module")
def baseline_digest(scenarios, tmp_path_factory):
    """Checksums of what each verb leaves when all is well, made when it is asked for."""
    digests = {}

    def get_digest(verb):
        if verb not in digests:
            directory = str(tmp_path_factory.mktemp(f"{verb}_usual"))
            assert run_scenario(scenarios[verb], directory).returncode == 0
            digests[verb] = scenarios[verb].digest(directory)
        return digests[verb]

    return get_digest


def run_scenario(scenario, directory, max_file_bytes=None):
    def limit_file_size():
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, resource.RLIM_INFINITY))

    command, memory_before = (
        [sys.executable, scenario.script, *scenario.arguments(str(directory))],
        list_shared_memory(),
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(
        command, **pipes, start_new_session=True, preexec_fn=limit_file_size if max_file_bytes else None
    )
    output = process.communicate(timeout=300)
    leftovers = find_leftovers(process.pid, memory_before)
    assert (leftovers["orphans"], leftovers["shared_memory"]) == (0, []), output
    return subprocess.CompletedProcess(command, process.returncode, *output)


def mount(*arguments):
    completed = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if completed.returncode:
        pytest.skip(f"can't mount: {completed.stderr.strip()}")


@pytest.fixture
def disk(tmp_path):
    """A file system of its own; `disk(size)` makes it, or gives it another size."""
    path, mount_options = tmp_path / "disk", []

    def mount_disk(options):
        path.mkdir(exist_ok=True)
        mount("-t", "tmpfs", "-o", ",".join([*mount_options, options]), "tmpfs", str(path))
        mount_options[:] = ["remount"]
        return str(path)

    yield mount_disk
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(["umount", str(path)], capture_output=True)


def assert_one_line(done, message):
    messages = [line for line in done.stderr.splitlines() if line.startswith("emofuse: ")]
    assert done.returncode == 2, done.stderr[-3000:]
    assert any(message in line for line in messages), done.stderr[-3000:]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", mark_others_long(VERBS, "predict"))
def test_a_full_disk(scenarios, baseline_digest, disk, verb):
    """It fills up on the way; with more room the same command ends with the same results."""
    sizes = {"prepare": "300k", "train": "250k", "crossval": "300k", "predict": "4k"}
    directory = disk(f"size={sizes[verb]}")
    assert_one_line(run_scenario(scenarios[verb], directory), DISK_FULL_MESSAGE)
    disk("size=1g")
    done = run_scenario(scenarios[verb], directory)
    assert done.returncode == 0, done.stderr[-3000:]
    assert scenarios[verb].digest(directory) == baseline_digest(verb)


@pytest.mark.parametrize("verb", mark_others_long(VERBS, "predict"))
def test_files_that_may_not_grow(scenarios, baseline_digest, tmp_path, verb):
    """Where nothing can be mounted: the system's limit on the size of a file."""
    max_file_bytes = {"prepare": 40_000, "train": 6_000, "crossval": 6_000, "predict": 3_000}
    assert_one_line(
        run_scenario(scenarios[verb], tmp_path, max_file_bytes=max_file_bytes[verb]), "File too large"
    )
    assert run_scenario(scenarios[verb], tmp_path).returncode == 0
    assert scenarios[verb].digest(str(tmp_path)) == baseline_digest(verb)


@pytest.mark.parametrize("verb", mark_others_long(VERBS, "prepare", "train"))
def test_a_disk_that_is_read_only(scenarios, disk, verb):
    directory = disk("ro,size=1m")
    assert_one_line(run_scenario(scenarios[verb], directory), "Read-only file system")
    assert os.listdir(directory) == []
