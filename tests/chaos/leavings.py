"""What a process must not leave when it has ended, however it did: processes of its group, shared memory."""

import contextlib
import os
import pathlib
import signal
import time

ENDING = 60.0
"""Seconds in which a worker must notice that its parent is gone: it may be starting, or have a clip."""
PASSING = 2.0
"""Seconds in which another program unlinks a semaphore that it just made."""
MEMORY = "/dev/shm"


def memory() -> set[str]:
    """Names of the shared memory of this machine."""
    return set(os.listdir(MEMORY)) if os.path.isdir(MEMORY) else set()


def group(number: int) -> list[int]:
    """Processes of a group that are alive."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of = path.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(of) == number and state not in "ZX":
                found.append(int(path.parent.name))
    return found


def kept_of(before: set[str]) -> set[str]:
    """Shared memory that is new and nobody's."""
    return {name for name in memory() - before if not in_use(name)}


def in_use(name: str) -> bool:
    """Whether a living process, as of another program's tests, has this shared memory mapped."""
    for path in pathlib.Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            if f"{MEMORY}/{name}\n" in path.read_text(errors="replace"):
                return True
    return False


def leavings(number: int, before: set[str], seconds: float = ENDING) -> dict:
    """Waits until a group whose first process has ended is gone, and tells what stays; ends what does.

    `before`: the shared memory that there was.
    """
    began = time.monotonic()
    while (orphans := group(number)) and time.monotonic() - began < seconds:
        time.sleep(0.01)
    took = time.monotonic() - began
    if orphans:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(number, signal.SIGKILL)
    while (kept := kept_of(before)) and time.monotonic() - began < took + PASSING:
        time.sleep(0.1)
    return {"orphans": len(orphans), "shared_memory": sorted(kept), "gone_after": round(took, 2)}
