"""Training as real processes on a tiny dataset: it learns, resumes bit for bit, and devices do not matter."""

import os
import signal
import socket
import time

import jax
import numpy as np
import pytest

from benchmarks.feature_records import write_features
from emofuse_jax.training.experiment import count_epoch_steps, open_experiment
from emofuse_jax.training.metric_writer import read_epoch_rows
from emofuse_jax.training.train import train
from tests.support.training_runs import (
    FEATURE_SPEC,
    final_params,
    read_log,
    read_untimed_rows,
    small_config,
    start_train,
    wait_for_success,
)

EPOCHS = 6


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("loop")


@pytest.fixture(scope="module")
def config(home):
    return small_config(write_features(str(home / "records"), FEATURE_SPEC), **{"train.epochs": EPOCHS})


def count_saved_epochs(workdir, steps_per_epoch):
    """Epochs in the last whole checkpoint."""
    directory = os.path.join(workdir, "checkpoints", "last")
    names = os.listdir(directory) if os.path.isdir(directory) else []
    return max([int(name) // steps_per_epoch for name in names if name.isdigit()], default=0)


@pytest.fixture(scope="module")
def uninterrupted(home, config):
    """Without a stop, on one device and on eight."""
    for devices in (1, 8):
        wait_for_success(start_train(home / f"straight{devices}", config, devices=devices))
    return {devices: home / f"straight{devices}" for devices in (1, 8)}


def test_it_learns(uninterrupted):
    epochs = read_epoch_rows(str(uninterrupted[1]))
    assert [row["epoch"] for row in epochs] == [*range(1, EPOCHS + 1)]
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]
    assert all(np.isfinite(row["validation_loss"]) for row in epochs)


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.long), 8])
def test_killed_and_resumed_equals_straight_bit_for_bit(home, config, uninterrupted, devices):
    workdir, steps_per_epoch = home / f"killed{devices}", count_epoch_steps(open_experiment(config))
    process = start_train(workdir, config, devices=devices)
    deadline = time.monotonic() + 240
    while count_saved_epochs(workdir, steps_per_epoch) < 2:
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert count_saved_epochs(workdir, steps_per_epoch) < EPOCHS
    wait_for_success(start_train(workdir, config, devices=devices))
    jax.tree.map(np.testing.assert_array_equal, final_params(workdir), final_params(uninterrupted[devices]))
    assert read_untimed_rows(workdir) == read_untimed_rows(uninterrupted[devices])


def test_one_device_and_eight_give_the_same_numbers(uninterrupted):
    for one, eight in zip(
        read_untimed_rows(uninterrupted[1]), read_untimed_rows(uninterrupted[8]), strict=True
    ):
        assert one.keys() == eight.keys()
        for name in ("loss", "train_loss", "validation_loss"):
            if name in one:
                np.testing.assert_allclose(one[name], eight[name], rtol=2e-3)


@pytest.mark.long
@pytest.mark.parametrize("count", [2, 4])
def test_processes_give_the_same_losses_as_one(home, config, uninterrupted, count):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    workdir, devices = home / f"processes{count}", 8 // count
    processes = [
        start_train(workdir, config, devices=devices, process=(i, count, address)) for i in range(count)
    ]
    try:
        for process in processes:
            assert process.wait(300) == 0, read_log(workdir, 0)
    finally:
        for process in processes:
            process.kill()
    for one, several in zip(read_untimed_rows(uninterrupted[1]), read_untimed_rows(workdir), strict=True):
        assert one["step"] == several["step"]
        for name in ("loss", "train_loss", "validation_loss"):
            if name in one:
                np.testing.assert_allclose(one[name], several[name], rtol=2e-3)


def test_a_finished_run_does_nothing_more(home, config, uninterrupted):
    before = read_untimed_rows(uninterrupted[1])
    train(open_experiment(config), str(uninterrupted[1]))
    assert read_untimed_rows(uninterrupted[1]) == before


@pytest.mark.parametrize(("field", "value"), [("optimizer.learning_rate", 1.0), ("model.audio.embedding", 8)])
def test_another_config_in_the_same_workdir_is_refused(config, uninterrupted, field, value):
    other = config.copy_and_resolve_references()
    other.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=f"contains a run with config.{field}="):
        train(open_experiment(other), str(uninterrupted[1]))
