"""Cross-validation as processes: killed, it goes on to the same bytes, and two do the work of one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks.feature_records import write_features
from tests.support.training_runs import FEATURE_SPEC, small_config

RUN = [sys.executable, "-m", "tests.support.run_crossval"]
RUNS = [f"fold_{fold}_seed_{seed}" for fold in range(3) for seed in range(2)]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("crossval_processes")


@pytest.fixture(scope="module")
def config(home):
    """Two replicas at a time: three groups; every epoch is saved."""
    fields = {"crossval.save_seconds": 0.0, "crossval.mode": "loop", "train.epochs": 10}
    return small_config(write_features(str(home / "records"), FEATURE_SPEC), **fields)


def start_crossval(workdir, config, *, devices=2, process=()):
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
    arguments = [*RUN, str(workdir), json.dumps(config.to_dict()), "2", *map(str, process)]
    with open(f"{workdir}-{process[0] if process else ''}.log", "a") as log:
        return subprocess.Popen(arguments, env=env, stdout=log, stderr=subprocess.STDOUT)


def wait_for_success(process, timeout=300):
    assert process.wait(timeout) == 0, read_log(f"{process.args[3]}-")


def read_log(path_prefix):
    with open(f"{path_prefix}.log") as log:
        return log.read()[-3000:]


def read_result_bytes(workdir):
    return {name: (workdir / "runs" / name / "result.json").read_bytes() for name in RUNS}


@pytest.fixture(scope="module")
def uninterrupted(home, config):
    wait_for_success(start_crossval(home / "straight", config))
    return home / "straight"


def read_progress(workdir):
    """Finished runs, and the epoch that was saved last."""
    finished_runs = sum((workdir / "runs" / name / "result.json").exists() for name in RUNS)
    checkpoint_folder = workdir / "checkpoints" / "replicas"
    epochs = (
        [int(p.name) for p in checkpoint_folder.iterdir() if p.name.isdigit()]
        if checkpoint_folder.is_dir()
        else []
    )
    return finished_runs, max(epochs, default=0)


@pytest.mark.long
def test_killed_between_epochs_and_between_chunks_it_ends_the_same(home, config, uninterrupted):
    workdir, kills = home / "killed", 0
    for target_progress in ((0, 2), (2, 0), (4, 1)):
        process = start_crossval(workdir, config)
        deadline = time.monotonic() + 200
        while (
            process.poll() is None
            and time.monotonic() < deadline
            and read_progress(workdir) < target_progress
        ):
            time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills == 3
    wait_for_success(start_crossval(workdir, config))
    assert read_result_bytes(workdir) == read_result_bytes(uninterrupted)
    for name in RUNS:
        histories = [
            (run_folder / "runs" / name / "metrics.jsonl").read_text()
            for run_folder in (workdir, uninterrupted)
        ]
        assert histories[0] == histories[1]


@pytest.mark.long
def test_two_processes_share_the_replicas(home, config, uninterrupted):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    workdir = home / "two"
    processes = [start_crossval(workdir, config, devices=1, process=(i, 2, address)) for i in range(2)]
    for process in processes:
        assert process.wait(300) == 0, read_log(f"{workdir}-0")
    for ours, one in zip(
        read_result_bytes(workdir).values(), read_result_bytes(uninterrupted).values(), strict=True
    ):
        ours, one = json.loads(ours), json.loads(one)
        assert ours["best_step"] == one["best_step"]
        np.testing.assert_allclose(ours["probabilities"], one["probabilities"], atol=1e-5)
