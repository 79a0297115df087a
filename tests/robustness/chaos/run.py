"""Kills the commands at seeded random moments, starts them again, and compares what they leave.

    python -m tests.robustness.chaos.run --kills=100 --output=results/chaos.json [--seed=0]

Of the moments some are times, some lie within a write (while an unfinished checkpoint, shard or file of
answers is there), some before or after one of the renames by which results become whole. Every run must end
with the bytes of one that was left in peace, and none may leave a process or shared memory behind.
"""

import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from emofuse_jax.parallel.preemption import RESTART_EXIT_CODE
from tests.robustness.chaos.file_watcher import BaselineRun, WriteWatcher, file_class
from tests.robustness.chaos.kill_schedule import KillSchedule
from tests.robustness.chaos.killed_process import STRUCK_PREFIX
from tests.robustness.chaos.leftovers import find_leftovers, list_shared_memory
from tests.robustness.chaos.report import count_failures, make_report
from tests.robustness.chaos.scenarios import Scenario, make_scenarios

MAX_KILLS_PER_RUN = 5
"""Kills of one run, before it is left to end."""
START_TIMEOUT_SECONDS = 300
"""After which a start counts as a hang."""
KILLED_EXIT_CODES = {-signal.SIGKILL, -signal.SIGTERM, RESTART_EXIT_CODE}
NO_KILL = ("nothing", 0, "before", "SIGKILL")
"""A rename that there is not."""


class Start:
    """A command at work below a directory, or the command that ends itself (killed_process.py)."""

    def __init__(self, scenario: Scenario, directory: str, kill_arguments: tuple = (), workers: tuple = ()):
        killed_process_arguments = (
            ["-m", "tests.robustness.chaos.killed_process", directory, *map(str, kill_arguments)]
            if kill_arguments
            else []
        )
        self.memory_before, self.start_time = list_shared_memory(), time.monotonic()
        with open(f"{directory}.log", "ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    *killed_process_arguments,
                    scenario.script,
                    *scenario.arguments(directory, *workers),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, timeout_seconds: float) -> bool:
        """Whether it ends within so many seconds."""
        try:
            self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def finish(self) -> dict:
        """How it ended, and what it left behind."""
        is_hung = not self.wait(START_TIMEOUT_SECONDS)
        if is_hung:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        seconds = round(time.monotonic() - self.start_time, 1)
        leftovers = find_leftovers(self.process.pid, self.memory_before)
        return {"status": self.process.returncode, "hung": is_hung, "seconds": seconds, **leftovers}


def kill_once(
    scenario: Scenario, directory: str, baseline: BaselineRun, moment: tuple[str, str], rng: random.Random
) -> dict:
    """Starts the command and kills it; tells how, what was struck, and how it ended."""
    kind, target = moment
    signal_name, when = rng.choice(("SIGKILL", "SIGKILL", "SIGTERM")), rng.choice(("before", "after"))
    workers = tuple(rng.sample(scenario.workers, 1)) if scenario.workers else ()
    paths = baseline.remaining_paths(kind, target, directory) if target else []
    number, time_fraction = rng.randrange(max(1, len(paths))), rng.random()
    watcher = WriteWatcher(directory)
    start = Start(
        scenario, directory, (target, number, when, signal_name) if kind == "rename" else (), workers
    )
    current_write = None
    if kind == "time":
        start.wait((0.1 + 0.9 * time_fraction) * baseline.seconds)
    if kind == "write":
        current_write = watcher.wait_within_write(
            start.process,
            target,
            number,
            time_fraction * baseline.write_seconds[paths[number]],
            START_TIMEOUT_SECONDS,
        )
    unfinished = set()
    if kind != "rename" and start.process.poll() is None:
        unfinished = watcher.new_unfinished()
        start.process.send_signal(signal.Signals[signal_name])
    outcome = start.finish()
    if unfinished and signal_name == "SIGKILL":
        unfinished &= watcher.new_unfinished()  # what was still unfinished when it died
    struck = (
        read_struck_path(directory)
        if kind == "rename"
        else current_write
        if current_write in unfinished
        else min(unfinished, default=None)
    )
    return {
        "moment": kind,
        "target": target,
        "struck": struck,
        "class": file_class(struck) if struck else "nothing",
        "signal": signal_name,
        **({"when": when} if kind == "rename" else {}),
        **({"workers": workers[0]} if workers else {}),
        **outcome,
        "killed": outcome["status"] in KILLED_EXIT_CODES,
    }


def read_struck_path(directory: str) -> str | None:
    """The path that the last kill_arguments in a directory was struck at, if it was."""
    lines = read_renames(directory)
    os.remove(f"{directory}.renames")
    return next((line.removeprefix(STRUCK_PREFIX) for line in lines if line.startswith(STRUCK_PREFIX)), None)


def read_renames(directory: str) -> list[str]:
    """The lines of kill_arguments.py."""
    if not os.path.exists(f"{directory}.renames"):
        return []
    with open(f"{directory}.renames", encoding="utf-8") as file:
        return file.read().splitlines()


def run_baseline(scenario: Scenario, directory: str) -> BaselineRun:
    """The command, left in peace."""
    start_time, watcher = time.monotonic(), WriteWatcher(directory)
    start = Start(scenario, directory, NO_KILL)
    write_seconds = watcher.measure_write_seconds(start.process, START_TIMEOUT_SECONDS)
    seconds, outcome = time.monotonic() - start_time, start.finish()
    assert (outcome["status"], outcome["orphans"], outcome["shared_memory"]) == (0, 0, []), (
        outcome,
        read_log(directory),
    )
    return BaselineRun(seconds, scenario.digest(directory), read_renames(directory), write_seconds)


def read_digest(scenario: Scenario, directory: str) -> dict[str, str]:
    """Checksums of what is there; nothing where it is not all there."""
    try:
        return scenario.digest(directory)
    except (OSError, ValueError):
        return {}


def run_until_done(scenario: Scenario, directory: str, schedule: KillSchedule, kills: int) -> dict:
    """One run with up to so many kills, left to end, and compared."""
    expected, attempts, last_start = schedule.baseline.digest, [], None
    while sum(one["killed"] for one in attempts) < kills:
        moment = schedule.next_moment(directory)
        attempts.append(kill_once(scenario, directory, schedule.baseline, moment, schedule.rng))
        if attempts[-1]["killed"] and moment[1] in ("", attempts[-1]["class"]):
            schedule.mark_struck(moment)
        digest = read_digest(scenario, directory)
        if not attempts[-1]["killed"] or digest == expected:
            break  # it was through, maybe killed only when all was done, or it failed
    if digest != expected:
        last_start = Start(scenario, directory).finish()
        digest = read_digest(scenario, directory) if last_start["status"] == 0 else {}
    different_names = sorted(
        name for name in expected.keys() | digest.keys() if expected.get(name) != digest.get(name)
    )
    failed_starts = [one for one in attempts if not one["killed"] and one["status"] != 0]
    resumes = len(attempts) - 1 + bool(last_start)
    return {
        "attempts": attempts,
        "last": last_start,
        "resumes": resumes,
        "wrong": failed_starts,
        "differ": different_names[:5],
    }


def main(kills: int, seed: int, home: str) -> dict:
    """Runs until there were so many kills; the same number of each scenario, to one."""
    rng, scenarios, runs = random.Random(seed), make_scenarios(home), []
    schedules, kill_counts = {}, collections.Counter()
    for name, scenario in scenarios.items():
        schedules[name] = KillSchedule(run_baseline(scenario, os.path.join(home, f"{name}_usual")), rng)
        print(f"{name}: {schedules[name].baseline.seconds:.1f} s undisturbed", flush=True)
    while sum(kill_counts.values()) < kills and len(runs) < 3 * kills:
        name = min(scenarios, key=lambda name: kill_counts[name])
        directory = os.path.join(home, f"{name}_{len(runs):03d}")
        max_kills = min(
            MAX_KILLS_PER_RUN,
            -(-kills // len(scenarios)) - kill_counts[name],
            kills - sum(kill_counts.values()),
        )
        round_result = run_until_done(scenarios[name], directory, schedules[name], max(1, max_kills))
        runs.append({"verb": name, **round_result})
        kill_counts[name] += sum(one["killed"] for one in round_result["attempts"])
        print(f"{sum(kill_counts.values())} kills; {name}: {json.dumps(round_result)}", flush=True)
        if any(count_failures(runs[-1:]).values()):
            print(read_log(directory), flush=True)
        else:
            shutil.rmtree(directory)
    return make_report(runs, seed)


def read_log(directory: str) -> str:
    with open(f"{directory}.log", errors="replace") as log:
        return log.read()[-3000:]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="emofuse-chaos-") as home:
        summary = main(args.kills, args.seed, home)
    with open(args.output, "w", encoding="utf-8") as file:
        json.dump(summary, file, indent=1)
    sys.exit(any(count_failures(summary["all"]).values()))
