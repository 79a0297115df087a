"""Describes the machine that a process runs on: cores, memory, kind of processor."""

import hashlib
import os
import platform


def available_cores() -> int:
    """Returns the number of CPU cores that this process may use, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory_bytes() -> int:
    """Returns the bytes of memory that are available without swapping.

    Without /proc/meminfo (not Linux) it returns the size of the physical memory.
    """
    if os.path.exists("/proc/meminfo"):
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":") for line in file)
        return int(lines["MemAvailable"].split()[0]) << 10
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cpu_fingerprint() -> str:
    """Returns 12 hexadecimal digits that are equal for processors that run the same compiled programs.

    They are a hash of the architecture and, on Linux, of the processor's feature flags.
    """
    cpu_description = platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            cpu_description += next((line for line in file if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(cpu_description.encode()).hexdigest()[:12]
