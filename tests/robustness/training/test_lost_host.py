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
from emofuse_jax.parallel.preemption import RESTART_EXIT_CODE
from tests.robustness.training.test_preemption import assert_same_losses, wait_for_step
from tests.support.training_runs import FEATURE_SPEC

ABORT_EXIT_CODE = -signal.SIGABRT
"""JAX's own end, where the service that counts heartbeats says that a process is lost, or is gone itself."""
STOP_TIMEOUT_SECONDS = 90
"""Of which 30 pass before a silent host counts as lost."""


def start_train(records, workdir, devices, *more_arguments):
    arguments = [
        "--config=tests/robustness/chaos/small_config.py",
        f"--config.data.path={records}",
        f"--workdir={workdir}",
    ]
    command = [sys.executable, "launch/train.py", *arguments, "--config.train.epochs=6", *more_arguments]
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def start_two_processes(records, workdir):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"--coordinator_address=localhost:{probe.getsockname()[1]}"
    distributed_flags = [(address, "--num_processes=2", f"--process_id={i}") for i in range(2)]
    return [start_train(records, workdir, 1, *flags) for flags in distributed_flags]


LOST_PROCESSES = [
    (1, signal.SIGKILL),
    (1, signal.SIGSTOP),
    (0, signal.SIGKILL),
    (0, signal.SIGSTOP),
]
"""SIGKILL closes what it was connected by; who stands still is silent, as after a loss of power."""


@pytest.mark.long
@pytest.mark.parametrize(("lost", "how"), LOST_PROCESSES)
def test_the_other_stops_and_both_go_on(tmp_path, lost, how):
    """0 is the one that the others report to, and that writes."""
    records, workdir = write_features(str(tmp_path / "records"), FEATURE_SPEC), tmp_path / "two"
    uninterrupted = start_train(records, tmp_path / "straight", 2)
    uninterrupted.communicate()
    assert uninterrupted.returncode == 0
    processes = start_two_processes(records, workdir)
    wait_for_step(processes[0], workdir, 14)
    processes[lost].send_signal(how)
    start_time = time.monotonic()
    _, stderr = processes[1 - lost].communicate(timeout=STOP_TIMEOUT_SECONDS)
    print(f"the other stopped after {time.monotonic() - start_time:.1f} s:", stderr[-2000:])
    processes[lost].kill()
    processes[lost].communicate()
    exit_code = processes[1 - lost].returncode
    assert exit_code == RESTART_EXIT_CODE or (
        exit_code == ABORT_EXIT_CODE and (how == signal.SIGSTOP or not lost)
    ), stderr[-3000:]
    message = re.search("^emofuse: another process of the run was lost; start", stderr, re.MULTILINE)
    assert message or exit_code == ABORT_EXIT_CODE
    processes = start_two_processes(records, workdir)
    assert [process.communicate(timeout=240) and process.returncode for process in processes] == [0, 0]
    assert_same_losses(workdir, tmp_path / "straight")
