"""Clips to encoded records in worker processes, in order; a clip that kills its worker costs only itself."""

import collections
import contextlib
import dataclasses
import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence

from data_prep.onnx_models.encoders import NO_FILES, EncoderFiles
from data_prep.settings import PrepSettings
from data_prep.workers.sandbox import (
    MEMORY,
    OUT_OF_MEMORY,
    confine,
    core_of,
    environment,
    require_accelerator,
)
from emofuse_jax.data import records
from emofuse_jax.data.writing.corpus import Clip
from emofuse_jax.utils.errors import to_one_line
from emofuse_jax.utils.files import file_sha256

CLIP_SECONDS = 300.0
"""A clip that takes longer is given up: nobody's file may hang a preparation."""
AHEAD = 8
"""Clips a worker may be ahead of the one that is written next: bounds what waits in memory."""
MOST_DEATHS = 8
"""Workers that may die one after the other without a finished clip between them."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What is the same for all clips of a preparation."""

    settings: PrepSettings
    corpus: str
    classes: int
    encoders: EncoderFiles = NO_FILES


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one clip: a row of the manifest, and its record unless it failed."""

    status: str  # kept | masked | failed
    reason: str
    sha256: str
    data: bytes | None


def process(job: Job, clip: Clip) -> Outcome:
    """Hashes and processes one clip; an error of our own is told on stderr and fails that clip alone."""
    from data_prep.process_clip import Failure, process_clip

    try:
        digest = _sha256(clip.path) if os.path.isfile(clip.path) else ""
    except OSError as error:
        return Outcome("failed", f"can't be read: {error.strerror}", "", None)
    try:
        result = process_clip(
            clip, job.settings, corpus=job.corpus, classes=job.classes, encoders=job.encoders
        )
    except MemoryError:
        raise
    except Exception as error:
        traceback.print_exc()
        result = Failure(clip.clip_id, clip.path, f"internal error: {type(error).__name__}: {error}")
    if isinstance(result, Failure):
        return Outcome("failed", to_one_line(result.reason), digest, None)
    status = "kept" if result.audio_ok and result.video_ok else "masked"
    return Outcome(status, result.notes, digest, records.encode(result))


_sha256 = functools.lru_cache(maxsize=2)(file_sha256)
"""Clips that are parts of one file come one after the other."""

Work = Callable[[Job, Clip], Outcome]


def outcomes(
    clips: Sequence[Clip], job: Job, workers: int, *, work: Work = process, seconds: float = CLIP_SECONDS
) -> Iterator[Outcome]:
    """What `work` makes of each clip, in order; `workers` = 0: in this process, which a hostile clip can end.

    Raises ValueError when workers can't start, or die again and again.
    """
    if workers == 0:
        yield from (work(job, clip) for clip in clips)
        return
    pool = _Pool(
        clips, functools.partial(work, job), min(workers, len(clips)), seconds, job.settings.face.device
    )
    try:
        yield from pool.run()
    finally:
        pool.close()


class Worker:
    """One process, and the clip that it has: it sends None when it is ready, or why it could not start."""

    def __init__(self, work: Callable[[Clip], Outcome], core: int | None, device: str):
        self.core = core
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, core, device), daemon=True)
        with environment(device):
            self.process.start()
        theirs.close()
        self.ready, self.index, self.since = False, None, time.monotonic()

    def give(self, index: int, clip: Clip) -> None:
        """Sends the clip of that number."""
        self.index, self.since = index, time.monotonic()
        with contextlib.suppress(OSError):  # it just died: its connection tells
            self.connection.send(clip)

    def close(self) -> None:
        """Ends it, whatever it does."""
        self.connection.close()
        self.process.kill()
        self.process.join()


class _Pool:
    def __init__(self, clips: Sequence[Clip], work: Callable, workers: int, seconds: float, device: str):
        self.clips, self.work, self.seconds, self.device = clips, work, seconds, device
        self.next, self.again = 0, collections.deque()
        self.done: dict[int, Outcome] = {}
        self.tries: collections.Counter[int] = collections.Counter()
        self.deaths = 0
        self.workers = [Worker(work, core_of(i, workers), device) for i in range(workers)]

    def run(self) -> Iterator[Outcome]:
        """Outcomes in order."""
        for emitted in range(len(self.clips)):
            while emitted not in self.done:
                self._give(emitted + AHEAD * len(self.workers))
                self._receive()
            yield self.done.pop(emitted)

    def close(self) -> None:
        """Ends all workers."""
        for worker in self.workers:
            worker.close()

    def _give(self, limit: int) -> None:
        for worker in self.workers:
            if not worker.ready or worker.index is not None:
                continue
            if self.again:
                index = self.again.popleft()
            elif self.next < min(limit, len(self.clips)):
                index, self.next = self.next, self.next + 1
            else:
                return
            worker.give(index, self.clips[index])

    def _receive(self) -> None:
        connections = {worker.connection: worker for worker in self.workers}
        for connection in multiprocessing.connection.wait(connections, timeout=1.0):
            worker = connections[connection]
            try:
                self._take(worker, connection.recv())
            except (EOFError, OSError):
                worker.process.join()
                self._ended(worker, worker.process.exitcode)
        for worker in self.workers:
            if worker.index is not None and time.monotonic() - worker.since > self.seconds:
                self._died(worker, f"it took more than {self.seconds:.0f} s", again=False)

    def _take(self, worker: Worker, message: Outcome | str | None) -> None:
        if isinstance(message, str):
            raise ValueError(f"a worker could not start: {message}")
        if message is None:
            worker.ready = True
            return
        self.done[worker.index] = message
        worker.index, self.deaths = None, 0

    def _ended(self, worker: Worker, code: int) -> None:
        if code == OUT_OF_MEMORY:
            self._died(worker, f"it took more than {MEMORY >> 30} GiB of memory", again=False)
        elif code == -signal.SIGABRT:  # what C++ does where memory ends
            self._died(
                worker, f"exit code {code}: a crash, or more than {MEMORY >> 30} GiB of memory", again=True
            )
        else:
            self._died(worker, f"exit code {code}", again=True)

    def _died(self, worker: Worker, how: str, again: bool) -> None:
        """Replaces a worker and lists its clip, or tries it `again` where another may be at fault."""
        worker.close()
        self.deaths += again
        if not worker.ready:
            raise ValueError(f"a worker could not start: {how}")
        if self.deaths > MOST_DEATHS:
            raise ValueError(f"workers die again and again ({how}); out of memory? use fewer --workers")
        index = worker.index
        if index is not None:
            self.tries[index] += 1
            if again and self.tries[index] < 2:
                self.again.append(index)
            else:
                self.done[index] = Outcome("failed", f"the worker was lost on it: {how}", "", None)
        self.workers[self.workers.index(worker)] = Worker(self.work, worker.core, self.device)


def _serve(connection, work: Callable[[Clip], Outcome], core: int | None, device: str) -> None:
    """A worker's life: ready, then clips until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    confine(core, device)
    try:
        import data_prep.process_clip  # noqa: F401  heavy: paid before the first clip's time counts

        if device == "accelerator":
            require_accelerator()
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")
        return
    with contextlib.suppress(EOFError, OSError):
        connection.send(None)
        while True:
            try:
                connection.send(work(connection.recv()))
            except MemoryError:
                os._exit(OUT_OF_MEMORY)  # what it leaked goes with it
