"""Imports the benchmark suites (benchmarks/main.py), which exist only in a clone of the repository."""

import pathlib
import sys

import emofuse_jax

_REPOSITORY_ROOT = pathlib.Path(emofuse_jax.__file__).parents[1]
if not (_REPOSITORY_ROOT / "benchmarks" / "main.py").is_file():
    sys.exit(
        "emofuse: the benchmarks are not installed; run python launch/benchmark.py in a clone of emofuse"
    )
sys.path.insert(0, str(_REPOSITORY_ROOT))  # before the working directory

from benchmarks.main import main as main  # noqa: E402
