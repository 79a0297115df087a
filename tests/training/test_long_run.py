"""Memory, open files and threads over a long training stay what they were after its first epochs."""

import os
import statistics
import time

import pytest

from benchmarks.feature_records import Made, write_features
from emofuse_jax.training.experiment import epoch_steps, open_experiment
from emofuse_jax.training.metric_writer import read_rows
from tests.training.test_crossval import small
from tests.training.test_loop import finish, start

MADE = Made(clips=1200, speakers=6, folds=3, classes=3, steps=8, audio=12, frames=6, face=10, shift=0.25)


def sample(pid):
    """MB in use, open files, threads."""
    with open(f"/proc/{pid}/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    files = len(os.listdir(f"/proc/{pid}/fd"))
    return int(fields["VmRSS"].split()[0]) / 1e3, files, int(fields["Threads"])


def watch(process, seconds):
    """Samples until it ends."""
    found = []
    while process.poll() is None:
        time.sleep(seconds)
        try:
            found.append(sample(process.pid))
        except (FileNotFoundError, ProcessLookupError, KeyError):  # it has just ended
            break
    return found


def settled(part):
    """Median memory, lower quartile of files and threads: a save opens some for a moment."""
    memory, *counts = zip(*part, strict=True)
    return statistics.median(memory), *(statistics.quantiles(count, n=4)[0] for count in counts)


def check(home, *, steps, mode):
    """Trains so many steps; the last third of the samples is held against the second."""
    config = small(write_features(str(home / "records"), MADE), **{"data.mode": mode, "train.log_every": 100})
    config.train.epochs = -(-steps // epoch_steps(open_experiment(config)))
    shared = set(os.listdir("/dev/shm"))
    process = start(home / "run", config)
    found = watch(process, 0.2)
    finish(process)
    assert max(row["step"] for row in read_rows(f"{home}/run/metrics.jsonl")) >= steps
    assert set(os.listdir("/dev/shm")) <= shared
    third = len(found) // 3
    middle, last = settled(found[third : 2 * third]), settled(found[2 * third :])
    print("MB, open files, threads:", middle, last)
    # tensorstore 0.1.86 never frees what it says of itself as JSON, of which orbax asks some at every save
    assert last[0] < middle[0] + 20
    assert last[1] <= middle[1] + 1
    assert last[2] <= middle[2] + 1


@pytest.mark.parametrize("mode", ["stream", pytest.param("resident", marks=pytest.mark.long)])
def test_two_thousand_steps(tmp_path, mode):
    check(tmp_path, steps=2_000, mode=mode)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["stream", "resident"])
def test_twenty_thousand_steps(tmp_path, mode):
    check(tmp_path, steps=20_000, mode=mode)
