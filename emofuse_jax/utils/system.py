"""The machine that a process runs on."""

import hashlib
import os
import platform


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory_bytes() -> int:
    """Bytes that can be had without swapping; where the system does not tell, all that is built in."""
    if os.path.exists("/proc/meminfo"):
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":") for line in file)
        return int(lines["MemAvailable"].split()[0]) << 10
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cpu_fingerprint() -> str:
    """A name that processors share which run the same compiled programs."""
    cpu_description = platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            cpu_description += next((line for line in file if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(cpu_description.encode()).hexdigest()[:12]
