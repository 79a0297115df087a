"""A SIGTERM saves in mid-epoch, in one process and in two; started again, the run ends the same."""

import os
import signal
import socket
import time

import jax
import numpy as np
import pytest

from benchmarks.feature_records import write_features
from emofuse_jax.parallel.preemption import RESTART_EXIT_CODE
from emofuse_jax.training.metric_writer import read_metric_rows
from tests.support.training_runs import (
    FEATURE_SPEC,
    final_params,
    read_untimed_rows,
    small_config,
    start_train,
    wait_for_success,
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("preemption")


@pytest.fixture(scope="module")
def config(home):
    """Ten steps an epoch, each logged."""
    return small_config(
        write_features(str(home / "records"), FEATURE_SPEC), **{"train.log_every": 1, "train.epochs": 8}
    )


@pytest.fixture(scope="module")
def uninterrupted(home, config):
    wait_for_success(start_train(home / "straight", config, devices=2))
    return home / "straight"


def last_logged_step(workdir):
    path = os.path.join(workdir, "metrics.jsonl")
    return max([row["step"] for row in read_metric_rows(path)], default=0)


def wait_for_step(process, workdir, step):
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline and last_logged_step(workdir) < step:
        time.sleep(0.002)


def assert_same_losses(workdir, other, split=("step", "epoch")):
    mine, theirs = (
        [row for row in read_untimed_rows(path) if row["split"] in split] for path in (workdir, other)
    )
    assert [row["step"] for row in mine] == [row["step"] for row in theirs]
    for ours, one in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(
            [v for k, v in ours.items() if k != "split"],
            [v for k, v in one.items() if k != "split"],
            rtol=5e-3,
            atol=1e-4,
        )


def test_one_process(home, config, uninterrupted):
    workdir, exit_codes = home / "stopped", []
    for stop_step in (3, 25):
        process = start_train(workdir, config, devices=2)
        wait_for_step(process, workdir, stop_step)
        process.send_signal(signal.SIGTERM)
        exit_codes.append(process.wait(120))
        saved_step = max(int(n) for n in os.listdir(workdir / "checkpoints" / "last") if n.isdigit())
        assert saved_step >= stop_step
    assert exit_codes == [RESTART_EXIT_CODE, RESTART_EXIT_CODE]
    wait_for_success(start_train(workdir, config, devices=2))
    assert read_untimed_rows(workdir) == read_untimed_rows(uninterrupted)
    for a, b in zip(*map(jax.tree.leaves, (final_params(workdir), final_params(uninterrupted))), strict=True):
        np.testing.assert_array_equal(a, b)


FUSED_STEPS = {"data.mode": "resident", "train.steps_per_call": 3}


@pytest.mark.parametrize(
    ("name", "fields"), [("streamed", {}), pytest.param("fused", FUSED_STEPS, marks=pytest.mark.long)]
)
def test_two_processes_of_which_one_gets_sigterm(home, config, uninterrupted, name, fields):
    """Also where several steps are one call."""
    workdir, exit_codes = home / name, []
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(fields)
    for attempt in range(2):
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            address = f"localhost:{probe.getsockname()[1]}"
        processes = [start_train(workdir, config, devices=1, process=(i, 2, address)) for i in range(2)]
        if attempt == 0:
            wait_for_step(processes[0], workdir, 4)
            processes[1].send_signal(signal.SIGTERM)
        exit_codes.append([process.wait(240) for process in processes])
    assert exit_codes == [[RESTART_EXIT_CODE, RESTART_EXIT_CODE], [0, 0]]
    assert_same_losses(workdir, uninterrupted, split=("epoch",) if fields else ("step", "epoch"))


@pytest.mark.long
def test_a_checkpoint_of_eight_devices_goes_on_with_four_two_and_one(home, config):
    """Parameters are split over the devices at each count; the losses are those of one device throughout."""
    config = config.copy_and_resolve_references()
    config.mesh.fsdp = True
    wait_for_success(start_train(home / "one", config, devices=1))
    workdir, saved_steps = home / "fewer", []
    for devices, stop_step in ((8, 3), (4, 14), (2, 30)):
        process = start_train(workdir, config, devices=devices)
        wait_for_step(process, workdir, stop_step)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == RESTART_EXIT_CODE
        saved_steps += [int(n) for n in os.listdir(workdir / "checkpoints" / "last") if n.isdigit()]
    assert saved_steps == sorted(set(saved_steps))
    wait_for_success(start_train(workdir, config, devices=1))
    assert_same_losses(workdir, home / "one")
