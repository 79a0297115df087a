"""Kills the commands at seeded random moments, starts them again, and compares what they leave.

    python -m tests.chaos.run --kills=100 --output=results/chaos.json [--seed=0]

Of the moments some are times, some lie within a write (as soon as an unfinished checkpoint or shard is seen),
some before or after one of the renames by which results become whole. Every run must end with the bytes of
one that was left in peace.
"""

import argparse
import collections
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from emofuse_jax.train.preemption import EXIT_CODE
from tests.chaos.scenes import Scene, make_scenes

MOST = 5
"""Kills of one run, before it is left to end."""
SECONDS = 300
"""After which a start counts as a hang."""
KINDS = ("time", "write", "rename")
UNFINISHED = re.compile(r"orbax-checkpoint-tmp|\.tmp$|\.partial$")
RENAMES = 60
"""Of a start, at most, before the one that kills."""
ENDED = {-signal.SIGKILL, -signal.SIGTERM, EXIT_CODE}


def start(scene: Scene, directory: str, victim: tuple = ()) -> subprocess.Popen:
    """The command, or the command that ends itself (victim.py)."""
    doomed = ["-m", "tests.chaos.victim", *map(str, victim)] if victim else []
    with open(f"{directory}.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, *doomed, scene.script, *scene.arguments(directory)],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def ended(process: subprocess.Popen, seconds: float) -> bool:
    """Whether it ends within so many seconds."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def writes(process: subprocess.Popen, directory: str, rng: random.Random) -> None:
    """Waits until something unfinished that was not there before is seen, and a little longer."""
    before, deadline = unfinished(directory), time.monotonic() + SECONDS
    while process.poll() is None and not unfinished(directory) - before and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.02))


def unfinished(directory: str) -> set:
    """Files and folders that await their rename; some are gone while they are listed."""
    found = ((parent, name) for parent, folders, names in os.walk(directory) for name in folders + names)
    return {(parent, name) for parent, name in found if UNFINISHED.search(name)}


def disturb(scene: Scene, directory: str, usual: float, rng: random.Random) -> dict:
    """Starts the command and kills it; tells how, and how it ended."""
    kind, name = rng.choice(KINDS), rng.choice(("SIGKILL", "SIGKILL", "SIGTERM"))
    rename = (rng.randrange(RENAMES), rng.choice(("before", "after")), name) if kind == "rename" else ()
    process = start(scene, directory, rename)
    if kind == "time":
        ended(process, rng.uniform(0.1, 1.0) * usual)
    if kind == "write":
        writes(process, directory, rng)
    if kind != "rename" and process.poll() is None:
        process.send_signal(signal.Signals[name])
    hung = not ended(process, SECONDS)
    if hung:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    killed = process.returncode in ENDED
    return {"moment": kind, "signal": name, "status": process.returncode, "killed": killed, "hung": hung}


def undisturbed(scene: Scene, directory: str) -> tuple[float, dict[str, str]]:
    """Seconds, and checksums of the results."""
    began = time.monotonic()
    status = start(scene, directory).wait(SECONDS)
    assert status == 0, log_of(directory)
    return time.monotonic() - began, scene.digest(directory)


def results(scene: Scene, directory: str) -> dict[str, str]:
    """Checksums of what is there; nothing where it is not all there."""
    try:
        return scene.digest(directory)
    except (OSError, ValueError):
        return {}


def round_of(scene: Scene, directory: str, usual: tuple, kills: int, rng: random.Random) -> dict:
    """One run with up to so many kills, left to end, and compared."""
    seconds, expected = usual
    attempts = []
    while sum(one["killed"] for one in attempts) < kills:
        attempts.append(disturb(scene, directory, seconds, rng))
        found = results(scene, directory)
        if not attempts[-1]["killed"] or found == expected:
            break  # it was through, maybe killed only when all was done, or it failed
    hung = False
    if again := found != expected:
        process = start(scene, directory)
        hung = not ended(process, SECONDS)
        found = results(scene, directory) if process.returncode == 0 else {}
    differ = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    wrong = [one for one in attempts if not one["killed"] and one["status"] != 0]
    resumes = len(attempts) - 1 + again
    return {"attempts": attempts, "resumes": resumes, "hung": hung, "wrong": wrong, "differ": differ[:5]}


def main(kills: int, seed: int, home: str) -> dict:
    """Runs until there were so many kills; the same number of each scene, to one."""
    rng, scenes, runs = random.Random(seed), make_scenes(home), []
    usual = {}
    for name, scene in scenes.items():
        usual[name] = undisturbed(scene, os.path.join(home, f"{name}_usual"))
        print(f"{name}: {usual[name][0]:.1f} s undisturbed", flush=True)
    done = collections.Counter()
    while sum(done.values()) < kills and len(runs) < 3 * kills:
        name = min(scenes, key=lambda name: done[name])
        directory = os.path.join(home, f"{name}_{len(runs):03d}")
        most = min(MOST, -(-kills // len(scenes)) - done[name], kills - sum(done.values()))
        found = round_of(scenes[name], directory, usual[name], max(1, most), rng)
        runs.append({"verb": name, **found})
        done[name] += sum(one["killed"] for one in found["attempts"])
        print(f"{sum(done.values())} kills; {name}: {json.dumps(found)}", flush=True)
        if found["hung"] or found["wrong"] or found["differ"]:
            print(log_of(directory), flush=True)
        else:
            shutil.rmtree(directory)
    return report(runs, seed)


def report(runs: list[dict], seed: int) -> dict:
    """What `results/chaos.json` holds."""
    attempts = [(run["verb"], one) for run in runs for one in run["attempts"]]
    killed = [(verb, one) for verb, one in attempts if one["killed"]]
    return {
        "seed": seed,
        "kills": len(killed),
        "by_verb": dict(collections.Counter(verb for verb, _ in killed)),
        "by_moment": dict(collections.Counter(one["moment"] for _, one in killed)),
        "by_signal": dict(collections.Counter(one["signal"] for _, one in killed)),
        "runs": len(runs),
        "resumes": sum(run["resumes"] for run in runs),
        "mismatches": sum(bool(run["differ"]) for run in runs),
        "hangs": sum(run["hung"] + sum(one["hung"] for one in run["attempts"]) for run in runs),
        "errors": sum(len(run["wrong"]) for run in runs),
        "all": runs,
    }


def log_of(directory: str) -> str:
    with open(f"{directory}.log", errors="replace") as log:
        return log.read()[-3000:]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", required=True)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="emofuse-chaos-") as home:
        found = main(asked.kills, asked.seed, home)
    with open(asked.output, "w", encoding="utf-8") as file:
        json.dump(found, file, indent=1)
    sys.exit(bool(found["mismatches"] or found["hangs"] or found["errors"]))
