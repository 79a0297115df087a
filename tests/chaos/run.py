"""Kills the commands at seeded random moments, starts them again, and compares what they leave.

    python -m tests.chaos.run --kills=100 --output=results/chaos.json [--seed=0]

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

from emofuse_jax.parallel.preemption import EXIT_CODE
from tests.chaos.deck import Deck
from tests.chaos.leavings import leavings, memory
from tests.chaos.report import failures, report
from tests.chaos.scenes import Scene, make_scenes
from tests.chaos.victim import STRUCK
from tests.chaos.watch import Usual, Watch, class_of

MOST = 5
"""Kills of one run, before it is left to end."""
SECONDS = 300
"""After which a start counts as a hang."""
ENDED = {-signal.SIGKILL, -signal.SIGTERM, EXIT_CODE}
NOBODY = ("nothing", 0, "before", "SIGKILL")
"""A rename that there is not."""


class Start:
    """A command at work below a directory, or the command that ends itself (victim.py)."""

    def __init__(self, scene: Scene, directory: str, victim: tuple = (), workers: tuple = ()):
        doomed = ["-m", "tests.chaos.victim", directory, *map(str, victim)] if victim else []
        self.memory, self.began = memory(), time.monotonic()
        with open(f"{directory}.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *doomed, scene.script, *scene.arguments(directory, *workers)],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ended(self, seconds: float) -> bool:
        """Whether it ends within so many seconds."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def finish(self) -> dict:
        """How it ended, and what it left behind."""
        hung = not self.ended(SECONDS)
        if hung:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        seconds = round(time.monotonic() - self.began, 1)
        left = leavings(self.process.pid, self.memory)
        return {"status": self.process.returncode, "hung": hung, "seconds": seconds, **left}


def disturb(scene: Scene, directory: str, usual: Usual, moment: tuple[str, str], rng: random.Random) -> dict:
    """Starts the command and kills it; tells how, what was struck, and how it ended."""
    kind, target = moment
    name, when = rng.choice(("SIGKILL", "SIGKILL", "SIGTERM")), rng.choice(("before", "after"))
    workers = tuple(rng.sample(scene.workers, 1)) if scene.workers else ()
    paths = usual.left(kind, target, directory) if target else []
    number, share = rng.randrange(max(1, len(paths))), rng.random()
    watch = Watch(directory)
    start = Start(scene, directory, (target, number, when, name) if kind == "rename" else (), workers)
    at = None
    if kind == "time":
        start.ended((0.1 + 0.9 * share) * usual.seconds)
    if kind == "write":
        at = watch.within(start.process, target, number, share * usual.lives[paths[number]], SECONDS)
    found = set()
    if kind != "rename" and start.process.poll() is None:
        found = watch.fresh()
        start.process.send_signal(signal.Signals[name])
    how = start.finish()
    if found and name == "SIGKILL":
        found &= watch.fresh()  # what was still unfinished when it died
    struck = renamed(directory) if kind == "rename" else at if at in found else min(found, default=None)
    return {
        "moment": kind,
        "target": target,
        "struck": struck,
        "class": class_of(struck) if struck else "nothing",
        "signal": name,
        **({"when": when} if kind == "rename" else {}),
        **({"workers": workers[0]} if workers else {}),
        **how,
        "killed": how["status"] in ENDED,
    }


def renamed(directory: str) -> str | None:
    """The path that the last victim in a directory was struck at, if it was."""
    lines = renames(directory)
    os.remove(f"{directory}.renames")
    return next((line.removeprefix(STRUCK) for line in lines if line.startswith(STRUCK)), None)


def renames(directory: str) -> list[str]:
    """The lines of victim.py."""
    if not os.path.exists(f"{directory}.renames"):
        return []
    with open(f"{directory}.renames", encoding="utf-8") as file:
        return file.read().splitlines()


def undisturbed(scene: Scene, directory: str) -> Usual:
    """The command, left in peace."""
    began, watch = time.monotonic(), Watch(directory)
    start = Start(scene, directory, NOBODY)
    lives = watch.lives(start.process, SECONDS)
    seconds, how = time.monotonic() - began, start.finish()
    assert (how["status"], how["orphans"], how["shared_memory"]) == (0, 0, []), (how, log_of(directory))
    return Usual(seconds, scene.digest(directory), renames(directory), lives)


def results(scene: Scene, directory: str) -> dict[str, str]:
    """Checksums of what is there; nothing where it is not all there."""
    try:
        return scene.digest(directory)
    except (OSError, ValueError):
        return {}


def round_of(scene: Scene, directory: str, deck: Deck, kills: int) -> dict:
    """One run with up to so many kills, left to end, and compared."""
    expected, attempts, last = deck.usual.digest, [], None
    while sum(one["killed"] for one in attempts) < kills:
        moment = deck.deal(directory)
        attempts.append(disturb(scene, directory, deck.usual, moment, deck.rng))
        if attempts[-1]["killed"] and moment[1] in ("", attempts[-1]["class"]):
            deck.struck(moment)
        found = results(scene, directory)
        if not attempts[-1]["killed"] or found == expected:
            break  # it was through, maybe killed only when all was done, or it failed
    if found != expected:
        last = Start(scene, directory).finish()
        found = results(scene, directory) if last["status"] == 0 else {}
    differ = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    wrong = [one for one in attempts if not one["killed"] and one["status"] != 0]
    resumes = len(attempts) - 1 + bool(last)
    return {"attempts": attempts, "last": last, "resumes": resumes, "wrong": wrong, "differ": differ[:5]}


def main(kills: int, seed: int, home: str) -> dict:
    """Runs until there were so many kills; the same number of each scene, to one."""
    rng, scenes, runs = random.Random(seed), make_scenes(home), []
    decks, done = {}, collections.Counter()
    for name, scene in scenes.items():
        decks[name] = Deck(undisturbed(scene, os.path.join(home, f"{name}_usual")), rng)
        print(f"{name}: {decks[name].usual.seconds:.1f} s undisturbed", flush=True)
    while sum(done.values()) < kills and len(runs) < 3 * kills:
        name = min(scenes, key=lambda name: done[name])
        directory = os.path.join(home, f"{name}_{len(runs):03d}")
        most = min(MOST, -(-kills // len(scenes)) - done[name], kills - sum(done.values()))
        found = round_of(scenes[name], directory, decks[name], max(1, most))
        runs.append({"verb": name, **found})
        done[name] += sum(one["killed"] for one in found["attempts"])
        print(f"{sum(done.values())} kills; {name}: {json.dumps(found)}", flush=True)
        if any(failures(runs[-1:]).values()):
            print(log_of(directory), flush=True)
        else:
            shutil.rmtree(directory)
    return report(runs, seed)


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
    sys.exit(any(failures(found["all"]).values()))
