"""Media are opened in processes of bounded memory and time: a hostile file ends those alone."""

import contextlib
import dataclasses
import queue
import threading
import traceback
from collections.abc import Callable

from data_prep.workers.pool import Worker
from emofuse_jax.serving.errors import BusyError
from emofuse_jax.serving.media.prepare_window import (
    PrepRequirements,
    make_encoder_files,
    prepare_window,
    should_find_faces,
)

START_TIMEOUT_SECONDS = 120.0
"""Seconds until a new process must be ready."""


@dataclasses.dataclass(frozen=True)
class ProbeResult:
    """What the packets of a file say, before anything is decoded."""

    duration_seconds: float
    width: int
    height: int
    frame_rate: float
    has_audio: bool


class NotMediaError(ValueError):
    """A file that holds neither sound nor video."""


class DamagedMediaError(ValueError):
    """Media that can't be used, such as a film that was cut off."""


class DecoderLostError(RuntimeError):
    """The process that had the file was lost on it."""


class DecoderPool:
    """`workers` processes; at most `max_waiting` callers wait for one.

    Args:
      run_job: what a process does with a job, such as `run_decoder_job`; it can be sent to another process.
      workers: processes.
      timeout_seconds: after which a process is given up.
      max_waiting: callers.
    """

    def __init__(
        self, run_job: Callable[[tuple], object], *, workers: int, timeout_seconds: float, max_waiting: int
    ):
        self._run_job, self._timeout_seconds = run_job, timeout_seconds
        self._slots = threading.BoundedSemaphore(workers + max_waiting)
        self._idle_workers: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._start_lock = threading.Lock()  # a child takes its environment from ours
        self._is_closed = False
        self._workers = [self._start_worker() for _ in range(workers)]
        for worker in self._workers:
            self._idle_workers.put(worker)

    def probe(self, path: str) -> ProbeResult:
        """Raises NotMediaError, DamagedMediaError, DecoderLostError or BusyError."""
        return self._submit_job((path,))

    def prepare_window(self, path: str, start: float | None, end: float | None, person: int = 0):
        """A Record, or in a line why there is none (`prepare_window`); raises DecoderLostError or
        BusyError."""
        return self._submit_job((path, start, end, person))

    def warm_up(self) -> None:
        """Waits until each process could begin with a film at once; what is amiss is told when asked."""
        for _ in range(len(self._workers)):  # which take turns
            with contextlib.suppress(DecoderLostError):
                self._send_job(())

    def close(self) -> None:
        """Ends all processes, in the middle of what they do."""
        with self._start_lock:
            self._is_closed = True
        for worker in self._workers:
            worker.close()

    def _start_worker(self) -> Worker:
        return Worker(self._run_job, None, "cpu")

    def _submit_job(self, job: tuple):
        if not self._slots.acquire(blocking=False):
            raise BusyError("all decoders are busy, and others wait")
        try:
            return self._send_job(job)
        finally:
            self._slots.release()

    def _send_job(self, job: tuple):
        worker, is_lost = self._idle_workers.get(), True
        try:
            if not worker.is_ready:
                if not worker.connection.poll(START_TIMEOUT_SECONDS) or worker.connection.recv() is not None:
                    raise DecoderLostError("a decoder could not start")
                worker.is_ready = True
            worker.connection.send(job)
            if not worker.connection.poll(self._timeout_seconds):
                raise DecoderLostError(f"decoding took more than {self._timeout_seconds:g} s")
            reply, is_lost = worker.connection.recv(), False
        except (EOFError, OSError) as error:
            raise DecoderLostError("decoding crashed, or took too much memory") from error
        finally:
            if is_lost:
                worker = self._replace_worker(worker)
            self._idle_workers.put(worker)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _replace_worker(self, worker: Worker) -> Worker:
        """A new process in its place, unless all are being ended."""
        worker.close()
        with self._start_lock:
            if self._is_closed:
                return worker
            new_worker = self._start_worker()
            self._workers[self._workers.index(worker)] = new_worker
        return new_worker


def run_decoder_job(requirements: PrepRequirements, job: tuple):
    """In the process: what a job asks for, or the error, which is sent back.

    `job`: a path, for a `ProbeResult`; with start, end and person for a window, a Record or why there is
    none; nothing, to get ready.
    """
    if not job:
        return _warm_up(requirements)
    path, *window_args = job
    try:
        return prepare_window(requirements, path, *window_args) if window_args else _probe(path)
    except MemoryError:
        raise
    except (NotMediaError, DamagedMediaError) as error:
        return error
    except Exception as error:  # a mistake of ours: it costs this file alone
        traceback.print_exc()
        return DecoderLostError(f"internal error: {type(error).__name__}")


def _warm_up(requirements: PrepRequirements) -> None:
    from data_prep.faces.detector import warm_up_detector

    if should_find_faces(requirements):
        warm_up_detector(requirements.settings, make_encoder_files(requirements))


def _probe(path: str) -> ProbeResult:
    from data_prep.media.probe import MediaError, open_media, probe_media

    try:
        with open_media(path) as container:
            video_streams = container.streams.video[:1]
            frame_size = (video_streams[0].width, video_streams[0].height) if video_streams else (0, 0)
    except MediaError as error:
        raise NotMediaError(str(error)) from error
    try:
        media_info = probe_media(path)
    except MediaError as error:
        raise DamagedMediaError(str(error)) from error
    frame_times = media_info.video.times if media_info.video else ()
    frame_rate = (
        (len(frame_times) - 1) / max(float(frame_times.max() - frame_times.min()), 1e-3)
        if len(frame_times) > 1
        else 0.0
    )
    return ProbeResult(media_info.duration, *frame_size, frame_rate, media_info.audio is not None)
