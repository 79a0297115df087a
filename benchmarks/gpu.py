"""Runs the suites of benchmarks/gpu.sh one after the other within a time budget.

Each suite (benchmarks/gpu_suites.py) is a process with a time limit. Its results are read even if it fails or
is stopped, and the JSON file is written after each suite, so that no suite loses the results of another.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from absl import app, flags

from benchmarks.timing import describe_machine
from emofuse_jax.utils.files import write_json

LIMIT_SECONDS = {"check": 90, "step": 260, "profile": 90, "fbp": 90, "crossval": 120, "serve": 120}
"""Time limit of each suite. They are listed in the order in which they run: what matters most comes
first, and `profile` reuses a compiled program of `step`."""
DRY_LIMIT_FACTOR = 3
"""Factor of the time limits with --dry: CPUs compile slowly."""
MIN_SECONDS = 10
"""A suite does not start with less time than this."""
MARGIN_SECONDS = 3
"""Part of the budget that no suite gets: to stop a process and write the file."""
ERROR_CHARS = 2000
"""Number of characters of the output of a failed suite that are stored."""
PACKAGES = ("jax", "jaxlib", "flax", "numpy", "torch")

BUDGET = flags.DEFINE_float("budget_seconds", 600, "Time for everything.", lower_bound=0)
ELAPSED = flags.DEFINE_float("elapsed_seconds", 0, "Part of the budget that is already used.")
SUITE = flags.DEFINE_list("suite", list(LIMIT_SECONDS), f"Suites to run, from: {', '.join(LIMIT_SECONDS)}.")
PEER = flags.DEFINE_enum("peer", "torch", ["torch", "none"], "Library to compare with; none: do not compare.")
DRY = flags.DEFINE_bool(
    "dry", False, "Tiny sizes, to test this script on any machine; the rates mean nothing."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Directory for records and compiled programs.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "JSON file for the results.", required=True)


@dataclasses.dataclass(frozen=True)
class Budget:
    """A number of seconds that ends at `end_time`, of `time.monotonic`."""

    end_time: float

    def limit(self, suite_seconds: float) -> float:
        """Returns the seconds that a suite with this time limit gets; 0 if they would be too few."""
        seconds = min(suite_seconds, self.end_time - MARGIN_SECONDS - time.monotonic())
        return seconds if seconds >= min(MIN_SECONDS, suite_seconds) else 0.0


def main(argv: Sequence[str]) -> int:
    """Runs the suites of --suite, writes --output after each, and returns 1 if one of them is not complete.

    Raises:
      ValueError: A suite is unknown.
      OSError: The output cannot be written.
    """
    unknown = [*argv[1:], *(name for name in SUITE.value if name not in LIMIT_SECONDS)]
    if unknown:
        raise ValueError(f"unexpected {unknown[0]!r}; --suite: expected some of {', '.join(LIMIT_SECONDS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `run_suite` stops its processes too
    budget = Budget(time.monotonic() + BUDGET.value - ELAPSED.value)
    results = {
        "machine": describe_machine(PACKAGES),
        "dry": DRY.value,
        "budget_seconds": BUDGET.value,
        "suites": {},
        "rows": [],
    }
    for name in SUITE.value:
        options = [f"--suite={name}", f"--workdir={WORKDIR.value}", f"--peer={PEER.value}"]
        command = [sys.executable, "-m", "benchmarks.gpu_suites", *options, *(["--dry"] if DRY.value else [])]
        print(f"{name}:", flush=True)
        limit_seconds = LIMIT_SECONDS[name] * (DRY_LIMIT_FACTOR if DRY.value else 1)
        status, lines = run_suite(command, budget.limit(limit_seconds))
        add_results(results, name, status, lines)
        write_json(OUTPUT.value, results)
        print(f"{name}: {status['status']} after {status['seconds']:.0f} s", flush=True)
    return int(any(suite["status"] != "complete" for suite in results["suites"].values()))


def run_suite(command: list[str], limit_seconds: float) -> tuple[dict, list[dict]]:
    """Runs the process of a suite, and stops it with all its child processes at the time limit.

    Args:
      command: The command; `--lines=FILE` is appended, in which the process writes JSON objects, one a line.
      limit_seconds: The time limit; 0: do not start.

    Returns:
      `status`, `seconds`, and `error` if the status is not "complete" (but "failed", "stopped" or
      "skipped"); and the objects that the process has written.
    """
    if not limit_seconds:
        return {"status": "skipped", "seconds": 0.0, "error": "no time was left in --budget_seconds"}, []
    start_time = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        lines_path, log_path = os.path.join(folder, "lines.jsonl"), os.path.join(folder, "log")
        with open(log_path, "wb") as log:
            # a session of its own, so that servers and compilers that it started are stopped too
            process = subprocess.Popen(
                [*command, f"--lines={lines_path}"], stdout=log, stderr=log, start_new_session=True
            )
            try:
                process.wait(limit_seconds)
            except subprocess.TimeoutExpired:
                status = {"status": "stopped", "error": f"time limit of {limit_seconds:.0f} s"}
            else:
                status = {"status": "complete" if process.returncode == 0 else "failed"}
            finally:
                stop_session(process)
        with open(log_path, encoding="utf-8", errors="replace") as log:
            output = log.read()
        print(output, end="", flush=True)
        if status["status"] == "failed":
            status["error"] = f"exit status {process.returncode}: {output[-ERROR_CHARS:]}"
        return {**status, "seconds": round(time.monotonic() - start_time, 1)}, read_lines(lines_path)


def stop_session(process: subprocess.Popen) -> None:
    """Kills all processes of the session that `process` leads, and waits for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read_lines(path: str) -> list[dict]:
    """Returns the JSON objects of the lines of a file; a last line that is not complete is left out.

    Returns an empty list if there is no such file.
    """
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def add_results(results: dict, name: str, status: dict, lines: list[dict]) -> None:
    """Adds the status and the lines of a suite to `results`, in place.

    A line is an object with a section and its value: `rows` and `checks` are lists, `device`, `peer` and
    `profile` are single values.
    """
    results["suites"][name] = status
    for line in lines:
        for section, value in line.items():
            if section == "rows":
                results["rows"].append({"suite": name, **value})
            elif section == "checks":
                results.setdefault("checks", []).append(value)
            elif section == "device":
                results["machine"]["device"] = value
            else:
                results[section] = value


if __name__ == "__main__":
    app.run(main)
