"""The suite `startup`: from the command to a trained epoch, with and without cached programs."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.timing import medians, row

PROGRAM = os.path.join(os.path.dirname(__file__), "..", "launch", "train.py")
COMMAND = "--config=features --config.data.audio_steps=12 --config.data.batch_size=16"
COMMAND += " --config.train.epochs=1"
MADE = {
    "clips": 96,
    "speakers": 6,
    "folds": 3,
    "classes": 6,
    "steps": 6,
    "audio": 88,
    "frames": 6,
    "face": 128,
}


def startup(workdir: str, *, repeats: int) -> Iterator[dict]:
    """Starts a second, of AM-FBP on features: a second start of the same config against a first."""
    from benchmarks.feature_records import Made, write_features

    records = os.path.join(workdir, "features", "startup")
    cache = os.path.join(workdir, "startup", "cache")
    run, words = os.path.join(workdir, "startup", "run"), COMMAND.split()
    if not os.path.isdir(records):
        write_features(records, Made(**MADE))

    def seconds(*, first: bool) -> float:
        shutil.rmtree(run, ignore_errors=True)
        if first:
            shutil.rmtree(cache, ignore_errors=True)
        env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
        began = time.perf_counter()
        command = [sys.executable, PROGRAM, *words, f"--config.data.path={records}"]
        subprocess.run([*command, f"--workdir={run}"], env=env, check=True, capture_output=True)
        return time.perf_counter() - began

    taken = medians({"first": lambda: seconds(first=True), "second": lambda: seconds(first=False)}, repeats)
    yield row(
        "second start, am_fbp on features",
        "starts/s",
        1 / taken["second"],
        1 / taken["first"],
        peer_name="the first start",
        repeats=repeats,
    )
