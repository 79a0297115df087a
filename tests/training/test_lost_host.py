"""A host that dies: the other stops within a bounded time, and the same commands go on."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from benchmarks.feature_records import write_features
from emofuse_jax.parallel.preemption import EXIT_CODE
from tests.training.test_crossval import MADE
from tests.training.test_preemption import assert_same_losses, wait_for

ABORTED = -signal.SIGABRT
"""JAX's own end, where the service that counts heartbeats says that a process is lost, or is gone itself."""
SECONDS = 90
"""Of which 30 pass before a silent host counts as lost."""


def start(records, workdir, devices, *more):
    words = ["--config=tests/chaos/small.py", f"--config.data.path={records}", f"--workdir={workdir}"]
    command = [sys.executable, "launch/train.py", *words, "--config.train.epochs=6", *more]
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def start_both(records, workdir):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"--coordinator_address=localhost:{free.getsockname()[1]}"
    both = [(address, "--num_processes=2", f"--process_id={i}") for i in range(2)]
    return [start(records, workdir, 1, *words) for words in both]


LOSSES = [
    (1, signal.SIGKILL),
    (1, signal.SIGSTOP),
    pytest.param(0, signal.SIGKILL, marks=pytest.mark.long),
    pytest.param(0, signal.SIGSTOP, marks=pytest.mark.long),
]
"""SIGKILL closes what it was connected by; who stands still is silent, as after a loss of power."""


@pytest.mark.parametrize(("lost", "how"), LOSSES)
def test_the_other_stops_and_both_go_on(tmp_path, lost, how):
    """0 is the one that the others report to, and that writes."""
    records, workdir = write_features(str(tmp_path / "records"), MADE), tmp_path / "two"
    straight = start(records, tmp_path / "straight", 2)
    straight.communicate()
    assert straight.returncode == 0
    both = start_both(records, workdir)
    wait_for(both[0], workdir, 14)
    both[lost].send_signal(how)
    began = time.monotonic()
    _, told = both[1 - lost].communicate(timeout=SECONDS)
    print(f"the other stopped after {time.monotonic() - began:.1f} s:", told[-2000:])
    both[lost].kill()
    both[lost].communicate()
    ended = both[1 - lost].returncode
    assert ended == EXIT_CODE or (ended == ABORTED and (how == signal.SIGSTOP or not lost)), told[-3000:]
    said = re.search("^emofuse: another process of the run is lost; start", told, re.MULTILINE)
    assert said or ended == ABORTED
    both = start_both(records, workdir)
    assert [process.communicate(timeout=240) and process.returncode for process in both] == [0, 0]
    assert_same_losses(workdir, tmp_path / "straight")
