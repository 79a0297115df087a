"""What a process must not leave when it has ended, however it did: processes of its group, shared memory."""

import contextlib
import os
import pathlib
import signal
import time

ORPHAN_TIMEOUT_SECONDS = 60.0
"""Seconds in which a worker must notice that its parent is gone: it may be starting, or have a clip."""
SHARED_MEMORY_TIMEOUT_SECONDS = 2.0
"""Seconds in which another program unlinks a semaphore that it just made."""
SHARED_MEMORY_FOLDER = "/dev/shm"


def list_shared_memory() -> set[str]:
    """Names of the shared memory of this machine."""
    return set(os.listdir(SHARED_MEMORY_FOLDER)) if os.path.isdir(SHARED_MEMORY_FOLDER) else set()


def list_group_pids(group_id: int) -> list[int]:
    """Processes of a group that are alive."""
    pids = []
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, process_group = path.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(process_group) == group_id and state not in "ZX":
                pids.append(int(path.parent.name))
    return pids


def list_leftover_shared_memory(memory_before: set[str]) -> set[str]:
    """Shared memory that is new and nobody's."""
    return {name for name in list_shared_memory() - memory_before if not is_shared_memory_mapped(name)}


def is_shared_memory_mapped(name: str) -> bool:
    """Whether a living process, as of another program's tests, has this shared memory mapped."""
    for path in pathlib.Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            if f"{SHARED_MEMORY_FOLDER}/{name}\n" in path.read_text(errors="replace"):
                return True
    return False


def find_leftovers(
    group_id: int, memory_before: set[str], timeout_seconds: float = ORPHAN_TIMEOUT_SECONDS
) -> dict:
    """Waits until a group whose first process has ended is gone, and tells what stays; ends what does.

    `memory_before`: the shared memory that there was.
    """
    start_time = time.monotonic()
    while (orphans := list_group_pids(group_id)) and time.monotonic() - start_time < timeout_seconds:
        time.sleep(0.01)
    wait_seconds = time.monotonic() - start_time
    if orphans:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group_id, signal.SIGKILL)
    while (
        leftover_memory := list_leftover_shared_memory(memory_before)
    ) and time.monotonic() - start_time < wait_seconds + SHARED_MEMORY_TIMEOUT_SECONDS:
        time.sleep(0.1)
    return {
        "orphans": len(orphans),
        "shared_memory": sorted(leftover_memory),
        "gone_after": round(wait_seconds, 2),
    }
