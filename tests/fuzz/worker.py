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
from tests.fuzz.verdict import judge

MEMORY = 1 << 30
"""Bytes that an input may take beyond what the process holds when it is ready."""
SECONDS = 60.0
"""For one input, on a busy machine; most take a tenth of a second."""
PROGRAMS = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pickle.find_class"}
WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate"}


class Worker:
    """One process and the input that it has."""

    def __init__(self, kind: str, folder: str, number: int):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.kind, self.home = kind, os.path.join(folder, f"worker_{number}")
        self.process = context.Process(target=_serve, args=(theirs, kind, folder, self.home))
        with worker_environment():
            self.process.start()
        theirs.close()
        self.ready, self.seed, self.since = False, None, time.monotonic()

    def give(self, seed: int) -> None:
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
    kind = importlib.import_module(f"tests.fuzz.kinds.{name}")
    case = kind.load(os.path.join(folder, "samples"))
    scratch = os.path.join(home, "scratch")
    watched = watch(
        (scratch, tempfile.tempdir, "/dev/"),
        PROGRAMS - ({"pickle.find_class"} if hasattr(kind, "OWN_PICKLES") else set()),
        getattr(kind, "OWN_PROGRAM", ()),
    )
    confine(getattr(kind, "MEMORY", MEMORY))
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


def confine(more: int) -> None:
    """Has the kernel refuse memory beyond so many bytes more than are held now."""
    with open("/proc/self/status", encoding="ascii") as file:
        held = int(re.search(r"VmData:\s+(\d+) kB", file.read())[1]) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (held + more, held + more))


def watch(inside: tuple[str, ...], programs: set[str], own: tuple[str, ...]) -> list[str]:
    """A list that fills at a program that is not its `own`, a pickle that is read, a write anywhere else."""
    seen: list[str] = []

    def hook(event: str, arguments: tuple) -> None:
        if event in programs:
            if event != "subprocess.Popen" or tuple(arguments[1]) != own:
                seen.append(event)
        elif event in WRITES or (event == "open" and _writes(arguments)):
            given = arguments[event in ("os.symlink", "os.link", "os.rename")]  # where it leads to
            if isinstance(given, int):  # a file that is open already
                return
            path = os.path.realpath(os.fsdecode(given))
            if not path.startswith(inside) and "__pycache__" not in path:
                seen.append(f"{event} {path}")

    sys.addaudithook(hook)
    return seen


def _writes(arguments: tuple) -> bool:
    _, mode, flags = arguments
    return bool({*mode} & {*"wax+"}) if mode else bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
