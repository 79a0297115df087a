"""What the world does to a training: lost bits, numbers that run away, no memory, a second process."""

import dataclasses
import itertools
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import time
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.feature_records import write_features
from emofuse_jax.data.dataset import DamagedRecordError, open_dataset
from emofuse_jax.data.records import shard_paths
from emofuse_jax.training.batch_source import StreamedBatchSource
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.crossval.crossval import crossval
from emofuse_jax.training.crossval.stacked_replicas import StackedReplicas
from emofuse_jax.training.crossval.sweep import sweep
from emofuse_jax.training.experiment import count_epoch_steps, make_experiment_sampler, open_experiment
from emofuse_jax.training.metric_writer import read_epoch_rows
from emofuse_jax.training.nan_guard import NonFiniteError, trace_nonfinite_step
from emofuse_jax.training.single_replica import SingleReplica
from emofuse_jax.training.train import skip_data_description, train
from emofuse_jax.utils.locks import lock_directory
from tests.support.checkpoint_damage import flip_bit_of_clip, truncate
from tests.support.fakes import write_dataset
from tests.support.rights import as_nobody, make_unreadable
from tests.support.training_runs import FEATURE_SPEC, read_untimed_rows, small_config


@pytest.fixture
def config(tmp_path):
    """The network that compiles fastest; a trace of NaN runs its operations one by one."""
    path = write_features(str(tmp_path / "records"), FEATURE_SPEC)
    return small_config(path, "audio_only", **{"train.epochs": 2})


def get_clip_id(config, part, number=0):
    experiment = open_experiment(config)
    return experiment.dataset.clip_ids[experiment.clips[part][number]]


@pytest.mark.parametrize("mode", ["stream", "resident"])
def test_a_lost_bit_stops_training_or_costs_a_clip(config, tmp_path, mode):
    config.data.mode = mode
    clip = get_clip_id(config, "train", 3)
    shard = flip_bit_of_clip(config.data.path, clip)
    with pytest.raises(
        DamagedRecordError, match=f"{re.escape(shard)}: clip '{clip}': .*hash mismatch.*; remove"
    ):
        train(open_experiment(config), str(tmp_path / "stops"))
    config.data.on_corrupt = "skip"
    with pytest.warns(UserWarning, match=f"damaged clip left out: {re.escape(shard)}: clip '{clip}'"):
        train(open_experiment(config), str(tmp_path / "skips"))
    epochs = read_epoch_rows(str(tmp_path / "skips"))
    assert [row["damaged"] for row in epochs] == [1, 1]
    assert np.isfinite([row["train_loss"] for row in epochs]).all()


@pytest.mark.parametrize("mode", ["stream", "resident"])
def test_a_shard_that_is_cut_short_stops_training_or_costs_its_clips(tmp_path, mode):
    """Its second half is trained on alone; an ArrayRecord that is cut has lost its index, and so all."""
    path = write_features(str(tmp_path / "records"), FEATURE_SPEC, shards=2)
    second_half = [f"clip{i:05d}" for i in range(FEATURE_SPEC.clips // 2, FEATURE_SPEC.clips)]
    fold = pathlib.Path(path, "splits", "made_folds", "fold_0.json")
    lists = json.loads(fold.read_text())
    remaining_clips = {
        part: [clip for clip in lists[part] if clip not in second_half] for part in ("validation", "test")
    }
    fold.write_text(json.dumps(lists | remaining_clips))
    shard = shard_paths(path)[1]
    truncate(shard)
    config = small_config(path, "audio_only", **{"train.epochs": 2, "data.mode": mode})
    with pytest.raises(DamagedRecordError, match=f"{re.escape(shard)}: clip 'clip.*; remove this file"):
        train(open_experiment(config), str(tmp_path / "stops"))
    config.data.on_corrupt = "skip"
    with pytest.warns(UserWarning, match=f"damaged clip left out: {re.escape(shard)}: clip"):
        train(open_experiment(config), str(tmp_path / "skips"))
    lost_count = len(set(lists["train"]) & set(second_half))
    assert read_epoch_rows(str(tmp_path / "skips"))[-1]["damaged"] == lost_count


def test_a_damaged_shard_is_one_line(config, tmp_path):
    shard = shard_paths(config.data.path)[0]
    truncate(shard)
    done = run_train(config, tmp_path / "run")
    assert done.returncode == 2
    assert re.search(
        f"^emofuse: {re.escape(shard)}: clip '.*; remove this file.*$", done.stderr, re.MULTILINE
    )
    assert "Traceback" not in done.stderr


def run_train(config, workdir):
    """`emofuse train`, as a process."""
    arguments = [
        "--config=tests/robustness/chaos/small_config.py",
        f"--config.data.path={config.data.path}",
        f"--workdir={workdir}",
    ]
    command_line = [sys.executable, "-m", "emofuse_jax.cli", "train", *arguments]
    return subprocess.run(command_line, capture_output=True, text=True, timeout=120)


def test_a_shard_that_may_not_be_read_is_not_damaged(config):
    """Nobody is told to remove it."""
    dataset = open_dataset(config.data.path)
    make_unreadable(pathlib.Path(shard_paths(dataset.path)[0]))
    with as_nobody(), pytest.raises(PermissionError, match=re.escape(shard_paths(dataset.path)[0])):
        dataset.read(0)


@pytest.mark.parametrize("mode", ["stream", "resident"])
def test_nothing_is_left_out_of_a_shard_that_is_not_there(config, tmp_path, mode):
    """A link to a disk that is gone: no reason to train without it."""
    config.data.update(mode=mode, on_corrupt="skip")
    shard = shard_paths(config.data.path)[0]
    os.remove(shard)
    os.symlink(tmp_path / "gone", shard)
    with pytest.raises(FileNotFoundError, match=re.escape(shard)):
        train(open_experiment(config), str(tmp_path / "run"))


@pytest.mark.parametrize("mode", ["stream", "resident"])
def test_a_clip_that_is_scored_is_never_left_out(config, tmp_path, mode):
    config.data.update(mode=mode, on_corrupt="skip")
    clip = get_clip_id(config, "validation")
    flip_bit_of_clip(config.data.path, clip)
    with pytest.raises(DamagedRecordError, match=f"clip '{clip}'"):
        train(open_experiment(config), str(tmp_path / "run"))
    config.data.mode = "auto"
    with pytest.raises(
        ValueError, match=r"on_corrupt=skip: expected stop, .*; or set config.crossval.mode=single"
    ):
        crossval(config, str(tmp_path / "crossval"), seeds=1)
    config.data.on_corrupt = "stop"
    with pytest.raises(DamagedRecordError, match=f"clip '{clip}'"):
        crossval(config, str(tmp_path / "crossval"), seeds=1)


def test_a_shard_that_is_cut_short_is_named(tmp_path):
    dataset = open_dataset(write_dataset(str(tmp_path / "records")))
    shard = shard_paths(dataset.path)[1]
    truncate(shard)
    assert dataset.read(0).clip_id == "clip000"  # of the first
    with pytest.raises(DamagedRecordError, match=f"{re.escape(shard)}: clip 'clip018': .*; remove this file"):
        dataset.read(18)


def test_a_shard_of_another_directory_is_named(tmp_path):
    small_one, large = (write_dataset(str(tmp_path / str(n)), num_clips=n) for n in (24, 36))
    os.replace(shard_paths(small_one)[0], shard_paths(large)[0])
    with pytest.raises(
        DamagedRecordError,
        match=r"clip 'clip001': damaged shard: the shard has 12 records, prep.json lists 18",
    ):
        open_dataset(large).read(1)


def test_unknown_words_are_refused(config, tmp_path):
    config.data.on_corrupt = "ignore"
    with pytest.raises(ValueError, match=r"config.data.on_corrupt='ignore': expected one of stop, skip"):
        train(open_experiment(config), str(tmp_path / "run"))


FUSED_STEPS = {"data.mode": "resident", "train.steps_per_call": 3}
RUNAWAY_OPTIMIZER = {"learning_rate": 1e38, "warmup": 0.0, "weight_decay": 0.0}
"""Steps after which products are too large for float32."""


def check_traced(config, workdir, step):
    """The loss is not a number from a step on, and the report has that step and its clips."""
    with pytest.raises(
        NonFiniteError, match=f"the loss is nan.*; it began at step {step}: result .* NaN from"
    ):
        train(open_experiment(config), str(workdir))
    check_report(config, workdir, step)


def check_report(config, workdir, step):
    report = json.loads((workdir / "nonfinite.json").read_text())
    experiment = open_experiment(config)
    rows = make_experiment_sampler(experiment).batch(step - 1)
    assert [report[name] for name in ("fold", "seed", "step")] == [config.data.fold, config.seed, step]
    assert report["clips"] == [experiment.dataset.clip_ids[clip] for clip in rows]


@pytest.mark.parametrize("mode", [pytest.param({}, marks=pytest.mark.long), FUSED_STEPS])
def test_a_loss_that_runs_away_is_traced(config, tmp_path, mode):
    """Over eight devices."""
    config.optimizer.update(RUNAWAY_OPTIMIZER)
    config.update_from_flattened_dict(mode)
    check_traced(config, tmp_path, step=2)
    assert not os.path.isdir(tmp_path / "checkpoints")


def test_a_loss_that_runs_away_after_a_resume_is_traced(config, tmp_path, monkeypatch):
    """From the second epoch on: the first one's checkpoint is given parameters that no step can bear."""
    experiment, step = open_experiment(config), StreamedBatchSource.step
    steps_per_epoch = count_epoch_steps(experiment)

    def stop_after_epoch(batch_source, state, number, count):
        if number == steps_per_epoch:
            raise KeyboardInterrupt
        return step(batch_source, state, number, count)

    monkeypatch.setattr(StreamedBatchSource, "step", stop_after_epoch)
    with pytest.raises(KeyboardInterrupt):
        train(experiment, str(tmp_path))
    monkeypatch.undo()
    state, metadata = load_run_state(experiment, tmp_path)[0], store.read_metadata(str(tmp_path), "last")
    assert int(state.step) == steps_per_epoch
    spoilt_state = dataclasses.replace(state, params=jax.tree.map(lambda x: x * 1e30, state.params))
    store.save(str(tmp_path), "last", spoilt_state, metadata)
    check_traced(config, tmp_path, step=steps_per_epoch + 1)


def load_run_state(experiment, workdir):
    """The state of a run as it stands there, its optimizer and its mesh."""
    replica = SingleReplica(experiment, str(workdir), skip_data_description)
    replica.restore_or_init()
    traced = replica.take_replica(())
    return traced.state, traced.tx, traced.mesh


def test_steps_that_are_finite_this_time_leave_their_clips(config, tmp_path):
    """As after a fault of the device."""
    experiment = open_experiment(config)
    state, tx, mesh = load_run_state(experiment, tmp_path)
    message = trace_nonfinite_step(experiment, state, tx, mesh, 2, str(tmp_path))
    assert message.startswith(
        "when repeated one by one, steps 1 to 2 were finite; their clips are listed in "
    )
    report = json.loads((tmp_path / "nonfinite.json").read_text())
    rows = np.concatenate([make_experiment_sampler(experiment).batch(step) for step in range(2)])
    assert set(report["clips"]) == {experiment.dataset.clip_ids[clip] for clip in rows}


@pytest.mark.long
def test_a_replica_that_runs_away_is_named(config, tmp_path):
    config.optimizer.update(RUNAWAY_OPTIMIZER)
    message = "fold 0, seed 1, step 6: the loss is nan.*; it began at step 2: result .* NaN from"
    config.seed = 1
    with pytest.raises(NonFiniteError, match=message):
        crossval(config, str(tmp_path), seeds=1)
    check_report(config, tmp_path, step=2)


def test_a_trial_that_runs_away_is_named(config, tmp_path):
    trials = [{"optimizer.learning_rate": 1e-3}, {"optimizer.learning_rate": 1e38}]
    config.optimizer.update(RUNAWAY_OPTIMIZER)
    message = "fold 1, seed 0, trial 1, step 6: the loss is nan.*; it began at step 2: result .* NaN from"
    with pytest.raises(NonFiniteError, match=message):
        sweep(config, str(tmp_path), trials, folds=[1], seeds=1)
    config.data.fold = 1
    check_report(config, tmp_path, step=2)


def test_what_is_not_a_number_is_not_saved_within_an_epoch(config, tmp_path, monkeypatch):
    """SIGTERM finds a replica at its third step, beyond the one that ran away."""
    config.optimizer.update(RUNAWAY_OPTIMIZER)
    config.crossval.mode = "loop"
    call_count = itertools.count()
    monkeypatch.setattr(
        "emofuse_jax.training.crossval.crossval.watch_preemption",
        lambda: nullcontext(lambda: next(call_count) == 3),
    )
    with pytest.raises(
        NonFiniteError, match=r"fold 0, seed 0, step 3: the loss is nan.*; it began at step 2"
    ):
        crossval(config, str(tmp_path), seeds=1)
    assert not os.path.isdir(tmp_path / "checkpoints")


def test_a_second_process_ends_with_one_line(config, tmp_path):
    with lock_directory(str(tmp_path / "run")):
        done = run_train(config, tmp_path / "run")
    assert (done.returncode, done.stdout) == (2, "")
    message = "another process is using it; wait until it ends, or use another directory"
    assert done.stderr.endswith(f"emofuse: {tmp_path / 'run'}: {message}\n")


def test_a_second_process_is_refused(config, tmp_path):
    with lock_directory(str(tmp_path / "run")):
        for attempt in (lambda d: train(open_experiment(config), d), lambda d: crossval(config, d, seeds=1)):
            with pytest.raises(ValueError, match="run: another process is using it"):
                attempt(str(tmp_path / "run"))


def test_a_clock_that_jumps_changes_nothing(config, tmp_path, monkeypatch):
    """By up to a minute at every look."""
    train(open_experiment(config), str(tmp_path / "calm"))
    jumps = random.Random(0)
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + jumps.uniform(-60, 60))
    train(open_experiment(config), str(tmp_path / "jumping"))
    calm, jumping = (read_untimed_rows(tmp_path / name) for name in ("calm", "jumping"))
    assert calm == jumping


@pytest.mark.long
def test_a_clock_that_jumps_by_hours_costs_a_save_at_most(config, tmp_path, monkeypatch):
    """Orbax ends a save over it: its deadlines are of this clock."""
    train(open_experiment(config), str(tmp_path / "calm"))
    jumps = random.Random(0)
    clock = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: clock() + jumps.choice([-7200, 7200]))
        with pytest.raises(OSError, match=r"jumping/checkpoints/\w+: can't be written: .* timed out"):
            train(open_experiment(config), str(tmp_path / "jumping"))
    train(open_experiment(config), str(tmp_path / "jumping"))
    calm, jumping = (read_untimed_rows(tmp_path / name) for name in ("calm", "jumping"))
    assert calm == jumping


def test_out_of_memory_message_says_what_to_lower(config, tmp_path, monkeypatch):
    """The third step asks the device for 64 TiB."""
    step = StreamedBatchSource.step

    def step_out_of_memory(batch_source, state, number, count):
        return step(batch_source, state, number, count) if number < 2 else jnp.zeros(1 << 44)

    monkeypatch.setattr(StreamedBatchSource, "step", step_out_of_memory)
    message = (
        r"out of memory: .* 70368744177664 bytes.*; the program needs \d+\.\d\d GB per device;"
        r" to use less memory, lower data"
    )
    with pytest.raises(ValueError, match=message):
        train(open_experiment(config), str(tmp_path / "run"))


def test_out_of_memory_message_for_replicas_says_what_to_change(config, tmp_path, monkeypatch):
    monkeypatch.setattr(StackedReplicas, "train_steps", lambda *arguments: jnp.zeros(1 << 44))
    message = r"out of memory: .* 70368744177664 bytes.*; the program needs \d+\.\d\d GB .*, choose another"
    with pytest.raises(ValueError, match=message):
        crossval(config, str(tmp_path / "run"), seeds=1)


def test_no_memory_on_the_host_is_one_line(config, tmp_path):
    """Batches of 64 TiB."""
    arguments = ["--config.train.eval_batch_size=1099511627776", f"--config.data.path={config.data.path}"]
    command_line = [
        sys.executable,
        "-m",
        "emofuse_jax.cli",
        "train",
        "--config=tests/robustness/chaos/small_config.py",
        *arguments,
    ]
    completed = subprocess.run(
        [*command_line, f"--workdir={tmp_path / 'run'}"], capture_output=True, text=True, timeout=120
    )
    assert (completed.returncode, completed.stdout) == (2, "")
    assert re.search(r"^emofuse: out of memory: Unable to allocate .*$", completed.stderr, re.MULTILINE)
    assert "Traceback" not in completed.stderr
