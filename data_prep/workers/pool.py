"""Processes clips in worker processes; a clip that kills its worker affects no other clip."""

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
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Generic, TypeVar

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
from emofuse_jax.data.metadata import ClipStatus
from emofuse_jax.data.writing.corpus import MediaClip
from emofuse_jax.utils.errors import to_one_line
from emofuse_jax.utils.files import file_sha256

CLIP_TIMEOUT_SECONDS = 300.0
"""Longest time for one clip; after that it counts as failed, so that no file can block a preparation."""
MAX_CLIPS_AHEAD = 8
"""Number of clips that each worker may be ahead of the next result; bounds the results in memory."""
MAX_WORKER_DEATHS = 8
"""Number of workers that may die in a row without a finished clip between them."""

_sha256 = functools.lru_cache(maxsize=2)(file_sha256)
"""Cached hash of a file: clips that are parts of the same file follow each other."""


@dataclasses.dataclass(frozen=True)
class PrepJob:
    """Settings that all clips of a preparation have in common."""

    settings: PrepSettings
    corpus: str
    num_classes: int
    encoder_files: EncoderFiles = NO_ENCODER_FILES


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Result of one clip: fields of its row in the manifest, and its encoded record (None if it failed)."""

    status: ClipStatus
    reason: str
    sha256: str
    data: bytes | None


ProcessFunction = Callable[[PrepJob, MediaClip], Outcome]


def process_to_outcome(job: PrepJob, clip: MediaClip) -> Outcome:
    """Hashes and processes one clip, and encodes its record.

    Args:
      job: what all clips share: settings, name of the corpus, number of classes, paths of the ONNX files.
      clip: clip_id, path, label and speaker, and possibly `start` and `end` in seconds and `half` of the
        picture (`left`, `right`, or empty: all).

    Returns:
      An Outcome: `status` (`kept`: audio and video are usable, `masked`: only one of them is, or `failed`),
      `reason` (the reason of a failure, otherwise notes), `sha256` of the file (empty if it can't be read),
      and `data`, the encoded record (None if failed). The status is `failed` if the file can't be used, and
      after an unexpected error, whose traceback is printed on stderr.

    Raises:
      MemoryError: the clip needs too much memory; the process should exit.
      ModuleNotFoundError: a package of the extra `prep` is not installed.
      ValueError: clip_id, speaker or name of the corpus can't be encoded in UTF-8.
    """
    from data_prep.process_clip import process_clip

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
        result = records.Failure(f"internal error: {type(error).__name__}: {error}")
    if isinstance(result, records.Failure):
        return Outcome("failed", to_one_line(result.reason), digest, None)
    return Outcome(result.status, result.notes, digest, records.encode(result))


def process_clips(
    clips: Sequence[MediaClip],
    job: PrepJob,
    num_workers: int,
    *,
    process_function: ProcessFunction = process_to_outcome,
    timeout_seconds: float = CLIP_TIMEOUT_SECONDS,
) -> Generator[Outcome, None, None]:
    """Processes clips in parallel and yields the `Outcome` of each, in the order of the clips.

    An Outcome has status, reason, SHA-256 of the file, and the encoded record (None if the clip failed). The
    workers are killed when the generator ends or is closed.

    Args:
      clips: the clips.
      job: what all clips share: settings, name of the corpus, number of classes, paths of the ONNX files.
      num_workers: number of worker processes; 0: process in this process, which a malicious file can crash.
      process_function: called with (job, clip), returns an `Outcome`; it must be a function of a module, so
        that a worker can import it. If it crashes its worker, or raises an error there, the clip is tried
        once more, then it has failed; after a MemoryError it has failed at once.
      timeout_seconds: longest time for one clip, 300 s by default, after which its worker is killed and the
        clip has failed; without effect if `num_workers` is 0.

    Raises:
      ValueError: `num_workers` is negative, or workers can't start or die repeatedly. All errors are raised
        while the results are read.
      OSError: a process can't be created.
      Exception: `num_workers` is 0 and `process_function` raised this error, such as a MemoryError.
    """
    check_num_workers(num_workers)
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


def check_num_workers(num_workers: int) -> None:
    """Raises ValueError if a number of worker processes is negative; returns nothing."""
    if num_workers < 0:
        raise ValueError(
            f"workers={num_workers}: expected 0 or a larger number; correct it, or leave it out for one"
            " worker for each core"
        )


JobT = TypeVar("JobT")
"""Type of what a worker process receives and processes."""


class Worker(Generic[JobT]):
    """A worker process and the clip that it is processing; serving sends jobs of another type.

    The process sends None when it is ready, or a text if it could not start, and then one result for each
    clip.
    """

    def __init__(self, process_function: Callable[[JobT], object], core: int | None, device: str) -> None:
        self.core = core
        context = multiprocessing.get_context("spawn")
        self.connection, child_connection = context.Pipe()
        self.process = context.Process(
            target=_run_worker, args=(child_connection, process_function, core, device), daemon=True
        )
        with worker_environment(device):
            self.process.start()
        child_connection.close()
        self.is_ready, self.busy_since = False, time.monotonic()
        self.index: int | None = None

    def send_clip(self, index: int, clip: JobT) -> None:
        """Sends a clip to the process and stores its index and the time, for the timeout; returns nothing.

        The process must be ready and have no other clip. Does not raise if the process has just died.
        """
        self.index, self.busy_since = index, time.monotonic()
        with contextlib.suppress(OSError):  # the process just died; reading its connection will show it
            self.connection.send(clip)

    def close(self) -> None:
        """Closes the connection, kills the process and waits for its end; may be called again."""
        self.connection.close()
        self.process.kill()
        self.process.join()


class _WorkerPool:
    def __init__(
        self,
        clips: Sequence[MediaClip],
        process_function: Callable[[MediaClip], Outcome],
        num_workers: int,
        timeout_seconds: float,
        device: str,
    ) -> None:
        self.clips, self.process_function, self.timeout_seconds, self.device = (
            clips,
            process_function,
            timeout_seconds,
            device,
        )
        self.next_index = 0
        self.retry_queue: collections.deque[int] = collections.deque()
        self.finished_outcomes: dict[int, Outcome] = {}
        self.attempts: collections.Counter[int] = collections.Counter()
        self.num_deaths = 0
        self.workers = [
            Worker(process_function, choose_core(i, num_workers), device) for i in range(num_workers)
        ]

    def run(self) -> Iterator[Outcome]:
        """Yields the `Outcome` of each clip in the order of the clips.

        It has status, reason, SHA-256 of the file, and the encoded record (None if the clip failed).

        Raises ValueError if workers can't start or die repeatedly, OSError if a process can't be created.
        """
        for clip_index in range(len(self.clips)):
            while clip_index not in self.finished_outcomes:
                self._send_clips(clip_index + MAX_CLIPS_AHEAD * len(self.workers))
                self._receive_messages()
            yield self.finished_outcomes.pop(clip_index)

    def close(self) -> None:
        """Kills all workers and waits for their end."""
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
        connections = [worker.connection for worker in self.workers]
        ready_connections = multiprocessing.connection.wait(connections, timeout=1.0)
        ready_workers = [worker for worker in self.workers if worker.connection in ready_connections]
        for worker in ready_workers:  # handling a message can replace a worker
            try:
                self._handle_message(worker, worker.connection.recv())
            except (EOFError, OSError):
                worker.process.join()
                self._handle_exit(worker, worker.process.exitcode)
        for worker in self.workers:
            if worker.index is not None and time.monotonic() - worker.busy_since > self.timeout_seconds:
                self._replace_worker(
                    worker, f"it took more than {self.timeout_seconds:.0f} s", should_retry=False
                )

    def _handle_message(self, worker: Worker[MediaClip], message: Outcome | str | None) -> None:
        if isinstance(message, str):
            raise ValueError(
                f"a worker could not start: {message}; correct this, or install the extra prep again"
            )
        if message is None:
            worker.is_ready = True
            return
        assert worker.index is not None  # only a worker with a clip sends an outcome
        self.finished_outcomes[worker.index] = message
        worker.index, self.num_deaths = None, 0

    def _handle_exit(self, worker: Worker[MediaClip], exit_code: int | None) -> None:
        if exit_code == OUT_OF_MEMORY_EXIT_CODE:
            self._replace_worker(
                worker, f"it took more than {MAX_WORKER_BYTES >> 30} GiB of memory", should_retry=False
            )
        elif exit_code == -signal.SIGABRT:  # C++ aborts if it runs out of memory
            self._replace_worker(
                worker,
                f"exit code {exit_code}: a crash or more than {MAX_WORKER_BYTES >> 30} GiB of memory",
                should_retry=True,
            )
        else:
            self._replace_worker(worker, f"exit code {exit_code}", should_retry=True)

    def _replace_worker(self, worker: Worker[MediaClip], reason: str, should_retry: bool) -> None:
        """Kills a dead or stuck worker and starts another in its place.

        If `should_retry`, the worker's clip is tried once more after the first failure. Otherwise, and after
        the second failure, the clip gets an `Outcome` with the status `failed`, no record, and `reason`,
        which says why the worker ended. Raises ValueError if the worker was never ready, or more than 8
        workers have died with `should_retry` without a finished clip between them; OSError if the new process
        can't be created.
        """
        worker.close()
        self.num_deaths += should_retry
        if not worker.is_ready:
            raise ValueError(
                f"a worker could not start: {reason}; if memory is short, use fewer --workers, otherwise"
                " install the extra prep again"
            )
        if self.num_deaths > MAX_WORKER_DEATHS:
            raise ValueError(
                f"worker processes die repeatedly ({reason}); if memory is short, use fewer --workers,"
                " otherwise install the extra prep again"
            )
        index = worker.index
        if index is not None:
            self.attempts[index] += 1
            if should_retry and self.attempts[index] < 2:
                self.retry_queue.append(index)
            else:
                self.finished_outcomes[index] = Outcome(
                    "failed", f"its worker process ended: {reason}", "", None
                )
        self.workers[self.workers.index(worker)] = Worker(self.process_function, worker.core, self.device)


def _run_worker(
    connection: multiprocessing.connection.Connection,
    process_function: Callable[[JobT], object],
    core: int | None,
    device: str,
) -> None:
    """Sends None when the process is ready, then receives clips and sends results until the pipe closes.

    For each clip it sends `process_function(clip)`. `core` is the only core that the process may use (None:
    any); `device` is `cpu` or `accelerator`. Sends a text instead of None, and returns, if an import fails or
    the accelerator is missing.
    If a clip needs too much memory, the process exits with status 77 (OUT_OF_MEMORY_EXIT_CODE). An EOFError
    or OSError of `process_function` ends the process too; its other errors pass through. Raises OSError if
    the process may not use `core`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    limit_resources(core, device)
    try:
        import data_prep.process_clip  # noqa: F401  slow: imported before the first clip's timeout begins

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
                os._exit(OUT_OF_MEMORY_EXIT_CODE)  # exiting frees all memory
