"""What the world does to a training: lost bits, numbers that run away, no memory, a second process."""

import json
import os
import random
import re
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from emofuse_jax.data.dataset import DamagedRecord, open_dataset
from emofuse_jax.data.records import shard_paths
from emofuse_jax.host import locked
from emofuse_jax.train.crossval import crossval
from emofuse_jax.train.experiment import open_experiment
from emofuse_jax.train.feed import Streamed
from emofuse_jax.train.loop import train
from emofuse_jax.train.nonfinite import NotFinite
from emofuse_jax.train.writer import read_epochs
from tests.fakes import write_dataset
from tests.peers.feature_records import write_features
from tests.train.damage import lose_bit, truncate
from tests.train.test_crossval import MADE, small
from tests.train.test_loop import rows


@pytest.fixture
def config(tmp_path):
    return small(write_features(str(tmp_path / "records"), MADE), **{"train.epochs": 2})


def clip_of(config, part, number=0):
    experiment = open_experiment(config)
    return experiment.dataset.clip_ids[experiment.clips[part][number]]


@pytest.mark.parametrize("mode", ["stream", "resident"])
def test_a_lost_bit_stops_training_or_costs_a_clip(config, tmp_path, mode):
    config.data.mode = mode
    clip = clip_of(config, "train", 3)
    shard = lose_bit(config.data.path, clip)
    with pytest.raises(DamagedRecord, match=f"{re.escape(shard)}: clip '{clip}': .*hash mismatch.*; remove"):
        train(open_experiment(config), str(tmp_path / "stops"))
    config.data.on_corrupt = "skip"
    with pytest.warns(UserWarning, match=f"left out: {re.escape(shard)}: clip '{clip}'"):
        train(open_experiment(config), str(tmp_path / "skips"))
    epochs = read_epochs(str(tmp_path / "skips"))
    assert [row["damaged"] for row in epochs] == [1, 1]
    assert np.isfinite([row["train_loss"] for row in epochs]).all()


@pytest.mark.parametrize("mode", ["stream", "resident"])
def test_a_clip_that_is_scored_is_never_left_out(config, tmp_path, mode):
    config.data.update(mode=mode, on_corrupt="skip")
    clip = clip_of(config, "validation")
    lose_bit(config.data.path, clip)
    with pytest.raises(DamagedRecord, match=f"clip '{clip}'"):
        train(open_experiment(config), str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"config.data.on_corrupt=skip: only emofuse train takes it"):
        crossval(config, str(tmp_path / "crossval"), seeds=1)
    config.data.on_corrupt = "stop"
    with pytest.raises(DamagedRecord, match=f"clip '{clip}'"):
        crossval(config, str(tmp_path / "crossval"), seeds=1)


def test_a_shard_that_is_cut_short_is_named(tmp_path):
    dataset = open_dataset(write_dataset(str(tmp_path / "records")))
    shard = shard_paths(dataset.path)[1]
    truncate(shard)
    assert dataset.read(0).clip_id == "clip000"  # of the first
    with pytest.raises(DamagedRecord, match=f"{re.escape(shard)}: clip 'clip018': .*; remove that file"):
        dataset.read(18)


def test_a_shard_of_another_directory_is_named(tmp_path):
    small_one, large = (write_dataset(str(tmp_path / str(n)), clips=n) for n in (24, 36))
    os.replace(shard_paths(small_one)[0], shard_paths(large)[0])
    with pytest.raises(DamagedRecord, match=r"clip 'clip001': 12 records, prep.json says 18"):
        open_dataset(large).read(1)


def test_unknown_words_are_refused(config, tmp_path):
    config.data.on_corrupt = "ignore"
    with pytest.raises(ValueError, match=r"config.data.on_corrupt='ignore': expected one of stop, skip"):
        train(open_experiment(config), str(tmp_path / "run"))


RUNAWAY = {"learning_rate": 1e38, "warmup": 0.0, "weight_decay": 0.0}
"""Steps after which products are too large for float32."""


def test_a_loss_that_runs_away_is_traced(config, tmp_path):
    """Over eight devices."""
    config.optimizer.update(RUNAWAY)
    workdir = str(tmp_path / "run")
    with pytest.raises(NotFinite, match=r"the loss is nan.*; it began at step 2: result .* is NaN: NaN from"):
        train(open_experiment(config), workdir)
    with open(os.path.join(workdir, "nonfinite.json")) as file:
        found = json.load(file)
    experiment = open_experiment(config)
    trained = {experiment.dataset.clip_ids[clip] for clip in experiment.clips["train"]}
    assert found["step"] == 2
    assert len(found["clips"]) == config.data.batch_size
    assert set(found["clips"]) <= trained
    assert not os.path.isdir(os.path.join(workdir, "checkpoints"))


def test_a_replica_that_runs_away_is_named(config, tmp_path):
    config.optimizer.update(RUNAWAY)
    with pytest.raises(NotFinite, match="fold 0, seed 0, step 6: the loss is nan"):
        crossval(config, str(tmp_path / "run"), seeds=1)


def test_a_second_process_is_refused(config, tmp_path):
    with locked(str(tmp_path / "run")):
        for attempt in (lambda d: train(open_experiment(config), d), lambda d: crossval(config, d, seeds=1)):
            with pytest.raises(ValueError, match="run: another process is at work here"):
                attempt(str(tmp_path / "run"))


def test_a_clock_that_jumps_changes_nothing(config, tmp_path, monkeypatch):
    """By up to a minute at every look; over more, orbax ends a save (its deadlines are of this clock)."""
    train(open_experiment(config), str(tmp_path / "calm"))
    jumps = random.Random(0)
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + jumps.uniform(-60, 60))
    train(open_experiment(config), str(tmp_path / "jumping"))
    calm, jumping = (rows(tmp_path / name) for name in ("calm", "jumping"))
    assert calm == jumping


def test_no_memory_is_told_with_what_to_lower(config, tmp_path, monkeypatch):
    """The third step asks the device for 64 TiB."""
    step = Streamed.step

    def greedy(feed, state, number, count):
        return step(feed, state, number, count) if number < 2 else jnp.zeros(1 << 44)

    monkeypatch.setattr(Streamed, "step", greedy)
    words = (
        r"out of memory: .* 70368744177664 bytes.*; a step takes \d+\.\d\d GB of a device; lower data.batch"
    )
    with pytest.raises(ValueError, match=words):
        train(open_experiment(config), str(tmp_path / "run"))


def test_no_memory_on_the_host_is_one_line(config, tmp_path):
    """Batches of 64 TiB."""
    words = ["--config.train.eval_batch_size=1099511627776", f"--config.data.path={config.data.path}"]
    command = [sys.executable, "-m", "launch.train", "--config=tests/chaos/small.py", *words]
    found = subprocess.run(
        [*command, f"--workdir={tmp_path / 'run'}"], capture_output=True, text=True, timeout=120
    )
    assert (found.returncode, found.stdout) == (2, "")
    assert re.search(r"^emofuse: out of memory: Unable to allocate .*$", found.stderr, re.MULTILINE)
    assert "Traceback" not in found.stderr
