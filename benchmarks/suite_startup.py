"""Suite `startup`: time from the command until one epoch is trained, with and without cached programs."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.timing import make_row, measure_medians

TRAIN_SCRIPT = os.path.join(os.path.dirname(__file__), "..", "launch", "train.py")
TRAIN_FLAGS = "--config=features --config.data.audio_steps=12 --config.data.batch_size=16"
TRAIN_FLAGS += " --config.train.epochs=1"
CORPUS_SIZES = {
    "clips": 96,
    "speakers": 6,
    "folds": 3,
    "classes": 6,
    "steps": 6,
    "audio": 88,
    "frames": 6,
    "face": 128,
}


def measure_startup(workdir: str, *, repeats: int) -> Iterator[dict]:
    """Yields one row: starts per second of AM-FBP on features, with cached programs; peer: the first start.

    A start is a process that trains one epoch; both median times are of `repeats` starts. Records and the
    cache are stored under `workdir`.

    Raises:
      subprocess.CalledProcessError: The training fails.
    """
    from benchmarks.feature_records import CorpusSpec, write_features

    records = os.path.join(workdir, "features", "startup")
    cache_directory = os.path.join(workdir, "startup", "cache")
    run_directory, train_flags = os.path.join(workdir, "startup", "run"), TRAIN_FLAGS.split()
    if not os.path.isdir(records):
        write_features(records, CorpusSpec(**CORPUS_SIZES))

    def time_start(*, first: bool) -> float:
        shutil.rmtree(run_directory, ignore_errors=True)
        if first:
            shutil.rmtree(cache_directory, ignore_errors=True)
        env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache_directory}
        start_time = time.perf_counter()
        command = [sys.executable, TRAIN_SCRIPT, *train_flags, f"--config.data.path={records}"]
        subprocess.run([*command, f"--workdir={run_directory}"], env=env, check=True, capture_output=True)
        return time.perf_counter() - start_time

    median_seconds = measure_medians(
        {"first": lambda: time_start(first=True), "second": lambda: time_start(first=False)}, repeats
    )
    yield make_row(
        "second start, am_fbp on features",
        "starts/s",
        1 / median_seconds["second"],
        1 / median_seconds["first"],
        peer_name="the first start",
        repeats=repeats,
    )
