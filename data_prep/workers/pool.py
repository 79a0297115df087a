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

from data_prep.onnx_models.encoders import NO_ENCODER_FILES, EncoderFiles
from data_prep.settings import PrepSettings
from data_prep.workers.sandbox import (
    MAX_WORKER_BYTES,
    OUT_OF_MEMORY_EXIT_CODE,
    choose_core,
    limit_resources,
    require_accelerator,
    worker_environment,
)
from emofuse_jax.data import records
from emofuse_jax.data.writing.corpus import Clip
from emofuse_jax.utils.errors import to_one_line
from emofuse_jax.utils.files import file_sha256

CLIP_TIMEOUT_SECONDS = 300.0
"""A clip that takes longer is given up: nobody's file may hang a preparation."""
MAX_CLIPS_AHEAD = 8
"""Clips a worker may be ahead of the one that is written next: bounds what waits in memory."""
MAX_WORKER_DEATHS = 8
"""Workers that may die one after the other without a finished clip between them."""

_sha256 = functools.lru_cache(maxsize=2)(file_sha256)
"""Hash of a file, remembered: clips that are parts of one file come one after the other."""


@dataclasses.dataclass(frozen=True)
class PrepJob:
    """What is the same for all clips of a preparation."""

    settings: PrepSettings
    corpus: str
    num_classes: int
    encoder_files: EncoderFiles = NO_ENCODER_FILES


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one clip: a row of the manifest, and its record unless it failed."""

    status: str  # kept | masked | failed
    reason: str
    sha256: str
    data: bytes | None


ProcessFunction = Callable[[PrepJob, Clip], Outcome]


def process_to_outcome(job: PrepJob, clip: Clip) -> Outcome:
    """Hashes and processes one clip; an error of our own is told on stderr and fails that clip alone."""
    from data_prep.process_clip import Failure, process_clip

    try:
        digest = _sha256(clip.path) if os.path.isfile(clip.path) else ""
    except OSError as error:
        return Outcome("failed", f"can't be read: {error.strerror}", "", None)
    try:
        result = process_clip(
            clip,
            job.settings,
            corpus=job.corpus,
            num_classes=job.num_classes,
            encoder_files=job.encoder_files,
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


def process_clips(
    clips: Sequence[Clip],
    job: PrepJob,
    num_workers: int,
    *,
    process_function: ProcessFunction = process_to_outcome,
    timeout_seconds: float = CLIP_TIMEOUT_SECONDS,
) -> Iterator[Outcome]:
    """What `process_function` makes of each clip, in order; `num_workers` = 0: in this process, which a
    hostile clip can end.

    Raises ValueError when workers can't start, or die again and again.
    """
    if num_workers == 0:
        yield from (process_function(job, clip) for clip in clips)
        return
    pool = _WorkerPool(
        clips,
        functools.partial(process_function, job),
        min(num_workers, len(clips)),
        timeout_seconds,
        job.settings.face.device,
    )
    try:
        yield from pool.run()
    finally:
        pool.close()


class Worker:
    """One process, and the clip that it has: it sends None when it is ready, or why it could not start."""

    def __init__(self, process_function: Callable[[Clip], Outcome], core: int | None, device: str):
        self.core = core
        context = multiprocessing.get_context("spawn")
        self.connection, child_connection = context.Pipe()
        self.process = context.Process(
            target=_run_worker, args=(child_connection, process_function, core, device), daemon=True
        )
        with worker_environment(device):
            self.process.start()
        child_connection.close()
        self.is_ready, self.index, self.busy_since = False, None, time.monotonic()

    def send_clip(self, index: int, clip: Clip) -> None:
        """Sends the clip of that number."""
        self.index, self.busy_since = index, time.monotonic()
        with contextlib.suppress(OSError):  # it just died: its connection tells
            self.connection.send(clip)

    def close(self) -> None:
        """Ends it, whatever it does."""
        self.connection.close()
        self.process.kill()
        self.process.join()


class _WorkerPool:
    def __init__(
        self,
        clips: Sequence[Clip],
        process_function: Callable,
        num_workers: int,
        timeout_seconds: float,
        device: str,
    ):
        self.clips, self.process_function, self.timeout_seconds, self.device = (
            clips,
            process_function,
            timeout_seconds,
            device,
        )
        self.next_index, self.retry_queue = 0, collections.deque()
        self.finished_outcomes: dict[int, Outcome] = {}
        self.attempts: collections.Counter[int] = collections.Counter()
        self.num_deaths = 0
        self.workers = [
            Worker(process_function, choose_core(i, num_workers), device) for i in range(num_workers)
        ]

    def run(self) -> Iterator[Outcome]:
        """Outcomes in order."""
        for clip_index in range(len(self.clips)):
            while clip_index not in self.finished_outcomes:
                self._send_clips(clip_index + MAX_CLIPS_AHEAD * len(self.workers))
                self._receive_messages()
            yield self.finished_outcomes.pop(clip_index)

    def close(self) -> None:
        """Ends all workers."""
        for worker in self.workers:
            worker.close()

    def _send_clips(self, index_limit: int) -> None:
        for worker in self.workers:
            if not worker.is_ready or worker.index is not None:
                continue
            if self.retry_queue:
                index = self.retry_queue.popleft()
            elif self.next_index < min(index_limit, len(self.clips)):
                index, self.next_index = self.next_index, self.next_index + 1
            else:
                return
            worker.send_clip(index, self.clips[index])

    def _receive_messages(self) -> None:
        connections = {worker.connection: worker for worker in self.workers}
        for connection in multiprocessing.connection.wait(connections, timeout=1.0):
            worker = connections[connection]
            try:
                self._handle_message(worker, connection.recv())
            except (EOFError, OSError):
                worker.process.join()
                self._handle_exit(worker, worker.process.exitcode)
        for worker in self.workers:
            if worker.index is not None and time.monotonic() - worker.busy_since > self.timeout_seconds:
                self._replace_worker(
                    worker, f"it took more than {self.timeout_seconds:.0f} s", should_retry=False
                )

    def _handle_message(self, worker: Worker, message: Outcome | str | None) -> None:
        if isinstance(message, str):
            raise ValueError(f"a worker could not start: {message}")
        if message is None:
            worker.is_ready = True
            return
        self.finished_outcomes[worker.index] = message
        worker.index, self.num_deaths = None, 0

    def _handle_exit(self, worker: Worker, exit_code: int) -> None:
        if exit_code == OUT_OF_MEMORY_EXIT_CODE:
            self._replace_worker(
                worker, f"it took more than {MAX_WORKER_BYTES >> 30} GiB of memory", should_retry=False
            )
        elif exit_code == -signal.SIGABRT:  # what C++ does where memory ends
            self._replace_worker(
                worker,
                f"exit code {exit_code}: a crash, or more than {MAX_WORKER_BYTES >> 30} GiB of memory",
                should_retry=True,
            )
        else:
            self._replace_worker(worker, f"exit code {exit_code}", should_retry=True)

    def _replace_worker(self, worker: Worker, reason: str, should_retry: bool) -> None:
        """Replaces a worker and lists its clip as failed, or tries the clip again if `should_retry`.

        A clip is tried again where another one may be at fault.
        """
        worker.close()
        self.num_deaths += should_retry
        if not worker.is_ready:
            raise ValueError(f"a worker could not start: {reason}")
        if self.num_deaths > MAX_WORKER_DEATHS:
            raise ValueError(f"workers die again and again ({reason}); out of memory? use fewer --workers")
        index = worker.index
        if index is not None:
            self.attempts[index] += 1
            if should_retry and self.attempts[index] < 2:
                self.retry_queue.append(index)
            else:
                self.finished_outcomes[index] = Outcome(
                    "failed", f"the worker was lost on it: {reason}", "", None
                )
        self.workers[self.workers.index(worker)] = Worker(self.process_function, worker.core, self.device)


def _run_worker(
    connection, process_function: Callable[[Clip], Outcome], core: int | None, device: str
) -> None:
    """A worker's life: ready, then clips until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    limit_resources(core, device)
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
                connection.send(process_function(connection.recv()))
            except MemoryError:
                os._exit(OUT_OF_MEMORY_EXIT_CODE)  # what it leaked goes with it
