"""A SIGTERM saves in mid-epoch, in one process and in two; started again, the run ends the same."""

import os
import signal
import socket
import time

import jax
import numpy as np
import pytest

from benchmarks.feature_records import write_features
from emofuse_jax.parallel.preemption import EXIT_CODE
from emofuse_jax.training.metric_writer import read_rows
from tests.training.test_crossval import MADE, small
from tests.training.test_loop import final_params, finish, rows, start


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("preemption")


@pytest.fixture(scope="module")
def config(home):
    """Ten steps an epoch, each logged."""
    return small(write_features(str(home / "records"), MADE), **{"train.log_every": 1, "train.epochs": 8})


@pytest.fixture(scope="module")
def straight(home, config):
    finish(start(home / "straight", config, devices=2))
    return home / "straight"


def steps(workdir):
    path = os.path.join(workdir, "metrics.jsonl")
    return max([row["step"] for row in read_rows(path)], default=0)


def wait_for(process, workdir, count):
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline and steps(workdir) < count:
        time.sleep(0.002)


def assert_same_losses(workdir, other, split=("step", "epoch")):
    mine, theirs = ([row for row in rows(path) if row["split"] in split] for path in (workdir, other))
    assert [row["step"] for row in mine] == [row["step"] for row in theirs]
    for ours, one in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(
            [v for k, v in ours.items() if k != "split"],
            [v for k, v in one.items() if k != "split"],
            rtol=5e-3,
            atol=1e-4,
        )


def test_one_process(home, config, straight):
    workdir, stops = home / "stopped", []
    for wanted in (3, 25):
        process = start(workdir, config, devices=2)
        wait_for(process, workdir, wanted)
        process.send_signal(signal.SIGTERM)
        stops.append(process.wait(120))
        saved = max(int(n) for n in os.listdir(workdir / "checkpoints" / "last") if n.isdigit())
        assert saved >= wanted
    assert stops == [EXIT_CODE, EXIT_CODE]
    finish(start(workdir, config, devices=2))
    assert rows(workdir) == rows(straight)
    for a, b in zip(*map(jax.tree.leaves, (final_params(workdir), final_params(straight))), strict=True):
        np.testing.assert_array_equal(a, b)


FUSED = {"data.mode": "resident", "train.steps_per_call": 3}


@pytest.mark.parametrize(("name", "fields"), [("streamed", {}), ("fused", FUSED)])
def test_two_processes_of_which_one_is_told(home, config, straight, name, fields):
    """Also where several steps are one call."""
    workdir, statuses = home / name, []
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(fields)
    for round_ in range(2):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        both = [start(workdir, config, devices=1, process=(i, 2, address)) for i in range(2)]
        if round_ == 0:
            wait_for(both[0], workdir, 4)
            both[1].send_signal(signal.SIGTERM)
        statuses.append([process.wait(240) for process in both])
    assert statuses == [[EXIT_CODE, EXIT_CODE], [0, 0]]
    assert_same_losses(workdir, straight, split=("epoch",) if fields else ("step", "epoch"))


@pytest.mark.long
def test_a_checkpoint_of_eight_devices_goes_on_with_four_two_and_one(home, config):
    """Parameters are split over the devices at each count; the losses are those of one device throughout."""
    config = config.copy_and_resolve_references()
    config.mesh.fsdp = True
    finish(start(home / "one", config, devices=1))
    workdir, saved = home / "fewer", []
    for devices, wanted in ((8, 3), (4, 14), (2, 30)):
        process = start(workdir, config, devices=devices)
        wait_for(process, workdir, wanted)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == EXIT_CODE
        saved += [int(n) for n in os.listdir(workdir / "checkpoints" / "last") if n.isdigit()]
    assert saved == sorted(set(saved))
    finish(start(workdir, config, devices=1))
    assert_same_losses(workdir, home / "one")
