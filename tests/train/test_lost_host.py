"""A host that dies: the other stops within a bounded time, and the same commands go on."""

import socket
import time

import pytest

from tests.peers.feature_records import write_features
from tests.train.test_crossval import MADE, small
from tests.train.test_loop import finish, log_of, start
from tests.train.test_preemption import assert_same_losses, wait_for

SECONDS = 90
"""Of which 30 pass before a silent host counts as lost."""


def start_both(workdir, config):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    return [start(workdir, config, devices=1, process=(i, 2, address)) for i in range(2)]


@pytest.mark.parametrize("lost", [1, pytest.param(0, marks=pytest.mark.long)])
def test_the_other_stops_and_both_go_on(tmp_path, lost):
    """0 is the one that the others report to, and that writes."""
    config = small(
        write_features(str(tmp_path / "records"), MADE), **{"train.log_every": 1, "train.epochs": 6}
    )
    finish(start(tmp_path / "straight", config, devices=2))
    workdir = tmp_path / "two"
    both = start_both(workdir, config)
    wait_for(both[0], workdir, 14)
    both[lost].kill()
    began = time.monotonic()
    assert both[1 - lost].wait(SECONDS) != 0, log_of(workdir, 1 - lost)
    print("seconds:", time.monotonic() - began, log_of(workdir, 1 - lost))
    assert [process.wait(240) for process in start_both(workdir, config)] == [0, 0]
    assert_same_losses(workdir, tmp_path / "straight")
