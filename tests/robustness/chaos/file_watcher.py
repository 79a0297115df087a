"""What a command writes and renames: learned from a run left in peace, watched in those that are not."""

import dataclasses
import os
import re
import subprocess
import time

UNFINISHED_PATTERN = re.compile(r"\.orbax-checkpoint-tmp$|\.tmp$|\.partial$")
"""Ends of the names of what awaits its rename."""
MIN_WRITE_SECONDS = 0.005
"""Seconds: what is unfinished for less can't be struck from outside, only at its rename."""
POLL_SECONDS = 0.001
"""Seconds between two looks."""


def file_class(path: str) -> str:
    """What a file is part of: checkpoint, shard, or other, as are results, answers and pages."""
    if "checkpoints" in path.split("/"):
        return "checkpoint"
    return "shard" if ".array_record-" in path else "other"


def scan_unfinished(directory: str) -> dict[str, int]:
    """Paths of unfinished files and folders, without what lies in such a folder, and when a file changed."""
    unfinished, folders = {}, [directory]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if UNFINISHED_PATTERN.search(entry.path):
                        changed = 0 if entry.is_dir() else entry.stat().st_ctime_ns
                        unfinished[os.path.relpath(entry.path, directory)] = changed
                    elif entry.is_dir():
                        folders.append(entry.path)
        except FileNotFoundError:  # renamed meanwhile
            continue
    return unfinished


class WriteWatcher:
    """Tells what is new of the unfinished: a kill may have left some, which the next start writes again."""

    def __init__(self, directory: str):
        self.directory, self.initial = directory, scan_unfinished(directory)

    def new_unfinished(self) -> set[str]:
        """What is unfinished now, and was not so when the watch began."""
        now = scan_unfinished(self.directory)
        self.initial = {path: changed for path, changed in self.initial.items() if now.get(path) == changed}
        return now.keys() - self.initial.keys()

    def wait_for_write(
        self, process: subprocess.Popen, target_class: str, write_number: int, timeout_seconds: float
    ) -> str | None:
        """Waits for the write of that number among those of a class."""
        writes, deadline = [], time.monotonic() + timeout_seconds
        while process.poll() is None and time.monotonic() < deadline:
            writes += sorted(p for p in self.new_unfinished() - set(writes) if file_class(p) == target_class)
            if len(writes) > write_number:
                return writes[write_number]
            time.sleep(POLL_SECONDS)
        return None

    def wait_within_write(
        self,
        process: subprocess.Popen,
        target_class: str,
        write_number: int,
        delay_seconds: float,
        timeout_seconds: float,
    ) -> str | None:
        """Waits until that write, or else a later one, has gone on for so long."""
        while path := self.wait_for_write(process, target_class, write_number, timeout_seconds):
            time.sleep(delay_seconds)
            if path in self.new_unfinished():
                return path
            write_number, delay_seconds = 0, delay_seconds / 2  # it was sooner whole than usual
        return None

    def measure_write_seconds(self, process: subprocess.Popen, timeout_seconds: float) -> dict[str, float]:
        """Follows a process to its end: how long each path was unfinished, in order of their appearance."""
        first_seen, last_seen, deadline = {}, {}, time.monotonic() + timeout_seconds
        while process.poll() is None and time.monotonic() < deadline:
            now = time.monotonic()
            for path in sorted(self.new_unfinished()):
                first_seen.setdefault(path, now)
                last_seen[path] = now
            time.sleep(POLL_SECONDS)
        return {path: last_seen[path] - first_seen[path] for path in first_seen}


@dataclasses.dataclass(frozen=True)
class BaselineRun:
    """A run that was left in peace."""

    seconds: float
    digest: dict[str, str]
    renames: list[str]
    """Where to, in order."""
    write_seconds: dict[str, float]
    """Of `WriteWatcher`."""

    def list_moments(self) -> list[tuple[str, str]]:
        """Kinds of moments that there are, each with a class."""
        return [
            ("time", ""),
            *sorted({(kind, file_class(p)) for kind in ("write", "rename") for p in self._paths(kind)}),
        ]

    def remaining_paths(self, kind: str, target_class: str, directory: str) -> list[str]:
        """Paths of a class that a start in `directory` has still to write or to rename, or fewer."""
        paths = self._paths(kind)
        is_finished = [
            os.path.exists(os.path.join(directory, UNFINISHED_PATTERN.sub("", path))) for path in paths
        ]
        finished_count = max((i + 1 for i, finished in enumerate(is_finished) if finished), default=0)
        return [path for path in paths[finished_count:] if file_class(path) == target_class]

    def _paths(self, kind: str) -> list[str]:
        return (
            self.renames
            if kind == "rename"
            else [p for p, seconds in self.write_seconds.items() if seconds > MIN_WRITE_SECONDS]
        )
