"""Finds the benchmark suites (benchmarks/main.py), which only a clone of the repository has."""

import pathlib
import sys

import emofuse_jax

_REPOSITORY_ROOT = pathlib.Path(emofuse_jax.__file__).parents[1]
if not (_REPOSITORY_ROOT / "benchmarks" / "main.py").is_file():
    sys.exit("emofuse: benchmarks are not installed; run python launch/benchmark.py in a clone of emofuse")
sys.path.insert(0, str(_REPOSITORY_ROOT))  # a folder of that name in the working directory is not meant

from benchmarks.main import main as main  # noqa: E402
