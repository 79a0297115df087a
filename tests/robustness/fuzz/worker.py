"""A process that takes inputs by their numbers: bounded in memory, watched, and of no loss when it dies."""

import contextlib
import ctypes
import faulthandler
import importlib
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time

from data_prep.workers.sandbox import worker_environment
from tests.robustness.fuzz.verdict import judge

MAX_EXTRA_BYTES = 1 << 30
"""Bytes that an input may take beyond what the process holds when it is ready."""
INPUT_TIMEOUT_SECONDS = 60.0
"""For one input, on a busy machine; most take a tenth of a second."""
PROGRAM_EVENTS = {
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "pickle.find_class",
}
WRITE_EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate"}


class Worker:
    """One process and the input that it has."""

    def __init__(self, kind: str, folder: str, number: int):
        context = multiprocessing.get_context("spawn")
        self.connection, child_connection = context.Pipe()
        self.kind, self.home = kind, os.path.join(folder, f"worker_{number}")
        self.process = context.Process(target=_serve, args=(child_connection, kind, folder, self.home))
        with worker_environment():
            self.process.start()
        child_connection.close()
        self.ready, self.seed, self.since = False, None, time.monotonic()

    def send_seed(self, seed: int) -> None:
        """Sends an input's number; a process that just died tells by its connection."""
        self.seed, self.since = seed, time.monotonic()
        with contextlib.suppress(OSError):
            self.connection.send(seed)

    def close(self) -> None:
        """Ends it, whatever it does."""
        self.connection.close()
        self.process.kill()
        self.process.join()


def _serve(connection, name: str, folder: str, home: str) -> None:
    """Opens the samples, says so, then judges inputs until the other end closes."""
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # which would count as writing elsewhere
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a hang must not outlive its parent
    os.makedirs(home, exist_ok=True)
    tempfile.tempdir = os.path.join(home, "tmp")
    os.makedirs(tempfile.tempdir, exist_ok=True)
    os.chdir(tempfile.tempdir)  # some libraries try the file system where they stand
    log = os.open(os.path.join(home, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable()
    kind = importlib.import_module(f"tests.robustness.fuzz.kinds.{name}")
    case = kind.load(os.path.join(folder, "samples"))
    scratch = os.path.join(home, "scratch")
    watched = watch_side_effects(
        (scratch, tempfile.tempdir, "/dev/"),
        PROGRAM_EVENTS - ({"pickle.find_class"} if hasattr(kind, "OWN_PICKLES") else set()),
        getattr(kind, "OWN_PROGRAM", ()),
    )
    limit_memory(getattr(kind, "MEMORY", MAX_EXTRA_BYTES))
    connection.send(None)
    while True:
        try:
            seed = connection.recv()
        except EOFError:
            return
        shutil.rmtree(scratch, ignore_errors=True)
        os.makedirs(scratch)
        watched.clear()
        connection.send(judge(kind, case, seed, scratch, watched))


def limit_memory(extra_bytes: int) -> None:
    """Has the kernel refuse memory beyond so many bytes more than are held now."""
    with open("/proc/self/status", encoding="ascii") as file:
        used_bytes = int(re.search(r"VmData:\s+(\d+) kB", file.read())[1]) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (used_bytes + extra_bytes, used_bytes + extra_bytes))


def watch_side_effects(
    allowed_folders: tuple[str, ...], program_events: set[str], allowed_program: tuple[str, ...]
) -> list[str]:
    """A list that fills at a program that is not its `allowed_program`, a pickle that is read, a write
    anywhere else."""
    violations: list[str] = []

    def hook(event: str, arguments: tuple) -> None:
        if event in program_events:
            if event != "subprocess.Popen" or tuple(arguments[1]) != allowed_program:
                violations.append(event)
        elif event in WRITE_EVENTS or (event == "open" and _is_write(arguments)):
            target = arguments[event in ("os.symlink", "os.link", "os.rename")]  # where it leads to
            if isinstance(target, int):  # a file that is open already
                return
            path = os.path.realpath(os.fsdecode(target))
            if not path.startswith(allowed_folders) and "__pycache__" not in path:
                violations.append(f"{event} {path}")

    sys.addaudithook(hook)
    return violations


def _is_write(arguments: tuple) -> bool:
    _, mode, flags = arguments
    return bool({*mode} & {*"wax+"}) if mode else bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
