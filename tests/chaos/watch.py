"""What a command writes and renames: learned from a run left in peace, watched in those that are not."""

import dataclasses
import os
import re
import subprocess
import time

UNFINISHED = re.compile(r"\.orbax-checkpoint-tmp$|\.tmp$|\.partial$")
"""Ends of the names of what awaits its rename."""
SHORT = 0.005
"""Seconds: what is unfinished for less can't be struck from outside, only at its rename."""
EVERY = 0.001
"""Seconds between two looks."""


def class_of(path: str) -> str:
    """What a file is part of: checkpoint, shard, or other, as are results, answers and pages."""
    if "checkpoints" in path.split("/"):
        return "checkpoint"
    return "shard" if ".array_record-" in path else "other"


def scan(directory: str) -> dict[str, int]:
    """Paths of unfinished files and folders, without what lies in such a folder, and when a file changed."""
    found, folders = {}, [directory]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if UNFINISHED.search(entry.path):
                        changed = 0 if entry.is_dir() else entry.stat().st_ctime_ns
                        found[os.path.relpath(entry.path, directory)] = changed
                    elif entry.is_dir():
                        folders.append(entry.path)
        except FileNotFoundError:  # renamed meanwhile
            continue
    return found


class Watch:
    """Tells what is new of the unfinished: a kill may have left some, which the next start writes again."""

    def __init__(self, directory: str):
        self.directory, self.old = directory, scan(directory)

    def fresh(self) -> set[str]:
        """What is unfinished now, and was not so when the watch began."""
        now = scan(self.directory)
        self.old = {path: changed for path, changed in self.old.items() if now.get(path) == changed}
        return now.keys() - self.old.keys()

    def wait(self, process: subprocess.Popen, target: str, number: int, seconds: float) -> str | None:
        """Waits for the write of that number among those of a class."""
        seen, deadline = [], time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            seen += sorted(p for p in self.fresh() - set(seen) if class_of(p) == target)
            if len(seen) > number:
                return seen[number]
            time.sleep(EVERY)
        return None

    def within(
        self, process: subprocess.Popen, target: str, number: int, into: float, seconds: float
    ) -> str | None:
        """Waits until that write, or else a later one, has gone on for so long."""
        while path := self.wait(process, target, number, seconds):
            time.sleep(into)
            if path in self.fresh():
                return path
            number, into = 0, into / 2  # it was sooner whole than usual
        return None

    def lives(self, process: subprocess.Popen, seconds: float) -> dict[str, float]:
        """Follows a process to its end: how long each path was unfinished, in order of their appearance."""
        first, last, deadline = {}, {}, time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            now = time.monotonic()
            for path in sorted(self.fresh()):
                first.setdefault(path, now)
                last[path] = now
            time.sleep(EVERY)
        return {path: last[path] - first[path] for path in first}


@dataclasses.dataclass(frozen=True)
class Usual:
    """A run that was left in peace."""

    seconds: float
    digest: dict[str, str]
    renames: list[str]
    """Where to, in order."""
    lives: dict[str, float]
    """Of `Watch`."""

    def moments(self) -> list[tuple[str, str]]:
        """Kinds of moments that there are, each with a class."""
        return [
            ("time", ""),
            *sorted({(kind, class_of(p)) for kind in ("write", "rename") for p in self._all(kind)}),
        ]

    def left(self, kind: str, target: str, directory: str) -> list[str]:
        """Paths of a class that a start in `directory` has still to write or to rename, or fewer."""
        paths = self._all(kind)
        whole = [os.path.exists(os.path.join(directory, UNFINISHED.sub("", path))) for path in paths]
        done = max((i + 1 for i, there in enumerate(whole) if there), default=0)
        return [path for path in paths[done:] if class_of(path) == target]

    def _all(self, kind: str) -> list[str]:
        return self.renames if kind == "rename" else [p for p, life in self.lives.items() if life > SHORT]
