"""Opens media files in worker processes with limited memory and time; a hostile file ends only its worker."""

import contextlib
import dataclasses
import queue
import threading
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from data_prep.workers.pool import Worker
from emofuse_jax.data.records import Failure, Record
from emofuse_jax.serving.errors import BusyError
from emofuse_jax.serving.media.prepare_window import (
    PrepRequirements,
    make_encoder_files,
    prepare_window,
    should_find_faces,
)

START_TIMEOUT_SECONDS = 120.0
"""Seconds until a new worker process must be ready."""


@dataclasses.dataclass(frozen=True)
class ProbeResult:
    """Properties of a media file, read from its packets without decoding."""

    duration_seconds: float
    """Duration in seconds."""
    width: int
    """Frame width in pixels; 0 if there is no video."""
    height: int
    """Frame height in pixels; 0 if there is no video."""
    frame_rate: float
    """Mean frames per second; 0 if there are fewer than two frames."""
    has_audio: bool
    """True if there is an audio stream."""


DecoderJob = tuple[()] | tuple[str] | tuple[str, float | None, float | None, int]
"""Job of a worker process (`run_decoder_job`)."""


class NotMediaError(ValueError):
    """Raised if a file cannot be opened as audio or video."""


class DamagedMediaError(ValueError):
    """Raised if a media file can be opened but not used, for example because it is truncated."""


class DecoderLostError(RuntimeError):
    """Raised if the worker process crashed, timed out or could not start while it processed a file."""


class DecoderPool:
    """Pool of `workers` processes that decode media; at most `max_waiting` callers wait for a free process.

    Args:
      run_job: function that a process runs for each job, such as `run_decoder_job`; must be picklable.
      workers: number of processes.
      timeout_seconds: time limit of a job; a process that takes longer is killed and replaced.
      max_waiting: number of callers that may wait; further callers get BusyError.
    """

    def __init__(
        self,
        run_job: Callable[[DecoderJob], object],
        *,
        workers: int,
        timeout_seconds: float,
        max_waiting: int,
    ) -> None:
        self._run_job, self._timeout_seconds = run_job, timeout_seconds
        self._slots = threading.BoundedSemaphore(workers + max_waiting)
        self._idle_workers: queue.SimpleQueue[Worker[DecoderJob]] = queue.SimpleQueue()
        self._start_lock = threading.Lock()  # a child inherits the environment of this process
        self._is_closed = False
        self._workers = [self._start_worker() for _ in range(workers)]
        for worker in self._workers:
            self._idle_workers.put(worker)

    def probe(self, path: str) -> ProbeResult:
        """Reads the properties of a media file from its packets, without decoding, in the next free process.

        Returns:
          A ProbeResult with `duration_seconds`, `width` and `height` of a frame in pixels, `frame_rate` (mean
          frames per second), and `has_audio`. Width and height are 0 if there is no video, the frame rate if
          there are fewer than two frames.

        Raises:
          NotMediaError: the file does not exist or cannot be opened as audio or video.
          DamagedMediaError: the file can be opened but not used, for example because it is truncated.
          DecoderLostError: the process crashed, timed out, could not start, or had an internal error.
          BusyError: all processes are busy and `max_waiting` callers are waiting.
          OSError: a process that crashed or timed out cannot be replaced.
        """
        return self._submit_job((path,))

    def prepare_window(
        self, path: str, start: float | None, end: float | None, person: int = 0
    ) -> Record | Failure:
        """Returns the Record of a part of a media file, prepared in the next free process.

        A Record has the spectrogram, face crops and features as arrays, `audio_ok` and `video_ok` (False if
        voice or face is not usable) and `notes`. If there is none, returns a Failure with the `reason`, one
        line: the file is missing or damaged, the part is longer than an hour, `start` is outside of the file,
        `end` is not after `start`, or no audio or face that the network uses is usable.

        Args:
          path: media file.
          start: start in seconds; None for the start of the file.
          end: end in seconds; None for the end of the file.
          person: which of several people to use; 0 is the main person, 1 the next one. If there are fewer
            people, no face is usable.

        Raises:
          DecoderLostError: the process crashed, timed out, could not start, or had an internal error, such as
            a missing encoder file.
          BusyError: all processes are busy and `max_waiting` callers are waiting.
          OSError: a process that crashed or timed out cannot be replaced.
        """
        return self._submit_job((path, start, end, person))

    def warm_up(self) -> None:
        """Waits until each process is ready to decode and, if the model needs it, has the face detector.

        The face detector is loaded and compiled. Processes that fail are replaced without an error; if the
        new process cannot start either, the next job fails. Raises OSError if a process cannot be replaced.
        """
        for _ in range(len(self._workers)):  # the workers take turns
            with contextlib.suppress(DecoderLostError):
                self._send_job(())

    def close(self) -> None:
        """Kills all processes, even if they are working, and waits for their end.

        Jobs that are running raise DecoderLostError, and so do later ones.
        """
        with self._start_lock:
            self._is_closed = True
        for worker in self._workers:
            worker.close()

    def _start_worker(self) -> Worker[DecoderJob]:
        return Worker(self._run_job, None, "cpu")

    def _submit_job(self, job: DecoderJob) -> Any:  # noqa: ANN401
        """Returns the result of a job, run in the next free process, if not too many callers wait already.

        The result is a ProbeResult (properties of the file) for the job (path,). For (path, start, end,
        person) it is a Record (that part as arrays), or a Failure with the `reason` if nothing is usable.
        Raises BusyError if all processes are busy and `max_waiting` callers are waiting, for the job (path,)
        NotMediaError or DamagedMediaError if the file is unusable, DecoderLostError if the process crashed,
        timed out, could not start or had an internal error, and OSError if the process cannot be replaced.
        """
        if not self._slots.acquire(blocking=False):
            raise BusyError("all decoder processes are busy and the queue is full; try again later")
        try:
            return self._send_job(job)
        finally:
            self._slots.release()

    def _send_job(self, job: DecoderJob) -> Any:  # noqa: ANN401
        """Returns the result of a job, run in the next free process; waits if all are busy.

        The result is None for the job (), which loads the face detector, and a ProbeResult (properties of the
        file) for (path,). For (path, start, end, person) it is a Record (that part as arrays), or a Failure
        with the `reason` if nothing is usable. A process that crashes or takes longer than `timeout_seconds`
        is replaced. Raises, for the job (path,), NotMediaError or DamagedMediaError if the file is unusable;
        DecoderLostError if the process crashed, timed out, could not start or had an internal error; and
        OSError if the process cannot be replaced.
        """
        worker, is_lost = self._idle_workers.get(), True
        try:
            if not worker.is_ready:
                if not worker.connection.poll(START_TIMEOUT_SECONDS) or worker.connection.recv() is not None:
                    raise DecoderLostError(
                        "a decoder process could not start; install the extra prep of emofuse again"
                    )
                worker.is_ready = True
            worker.connection.send(job)
            if not worker.connection.poll(self._timeout_seconds):
                raise DecoderLostError(
                    f"decoding took longer than {self._timeout_seconds:g} s; the file may be damaged:"
                    " convert it, for example to mp4, and try again"
                )
            reply, is_lost = worker.connection.recv(), False
        except (EOFError, OSError) as error:
            raise DecoderLostError(
                "decoding crashed or ran out of memory; the file may be damaged: convert it, for example to"
                " mp4, and try again"
            ) from error
        finally:
            if is_lost:
                worker = self._replace_worker(worker)
            self._idle_workers.put(worker)
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _replace_worker(self, worker: Worker[DecoderJob]) -> Worker[DecoderJob]:
        """Closes a worker and returns a new one in its place; the closed one if the pool is closed.

        Raises OSError if the new process cannot be started.
        """
        worker.close()
        with self._start_lock:
            if self._is_closed:
                return worker
            new_worker = self._start_worker()
            self._workers[self._workers.index(worker)] = new_worker
        return new_worker


def run_decoder_job(
    requirements: PrepRequirements, job: DecoderJob
) -> ProbeResult | Record | Failure | Exception | None:
    """Runs a job in a worker process and returns its result, or an exception, which is sent back.

    The jobs are:

    - (): loads and compiles the face detector if the model needs faces, and returns None.
    - (path,): returns a ProbeResult: `duration_seconds`, `width` and `height` of a frame in pixels,
      `frame_rate` (frames per second) and `has_audio`. If the file is unusable, returns a NotMediaError or
      DamagedMediaError.
    - (path, start, end, person): returns the Record of that part, its audio and faces as arrays. If the file
      or the part is unusable, returns a Failure with the `reason`. start and end are seconds or None (start
      and end of the file), person 0 is the main person.

    Any other error of the last two jobs, such as a missing encoder file, is printed on stderr and returned as
    a DecoderLostError. The errors of the job () are raised.

    Args:
      requirements: preparation settings, encoder files and inputs of the bundle.
      job: one of the jobs above.

    Raises:
      MemoryError: the job exceeded the memory of the process.
      ValueError: for the job (), the settings name an unknown face detector or have a `min_face` outside
        (0, 1], the detector's ONNX file is missing, has another SHA-256 or fails, the weights of MTCNN have
        another SHA-256, or lz4 is not installed.
      OSError: for the job (), the detector's ONNX file or the weights of MTCNN cannot be read.
      ModuleNotFoundError: for the job (), a package of the extras `prep` or `onnx` is not installed.
    """
    if not job:
        _warm_up(requirements)
        return None
    try:
        return _probe(job[0]) if len(job) == 1 else prepare_window(requirements, *job)
    except MemoryError:
        raise
    except (NotMediaError, DamagedMediaError) as error:
        return error
    except Exception as error:  # a bug of emofuse: only this file fails
        traceback.print_exc()
        return DecoderLostError(
            f"internal error: {type(error).__name__}; try another file, or report the traceback on the"
            " server's stderr"
        )


def _warm_up(requirements: PrepRequirements) -> None:
    """Loads and compiles the face detector if the model needs faces, and otherwise does nothing.

    Raises ValueError if the settings name an unknown detector or have a `min_face` outside (0, 1], the
    detector's ONNX file is missing, has another SHA-256 or fails, the weights of MTCNN have another SHA-256,
    or lz4 is not installed; OSError if that file or those weights cannot be read; ModuleNotFoundError if a
    package of the extras `prep` or `onnx` is not installed.
    """
    from data_prep.faces.detector import warm_up_detector

    if should_find_faces(requirements):
        warm_up_detector(requirements.settings, make_encoder_files(requirements))


def _probe(path: str) -> ProbeResult:
    """Returns the properties of a media file, read from its packets without decoding.

    A ProbeResult has `duration_seconds`, `width` and `height` of a frame in pixels (0 without video),
    `frame_rate` (mean frames per second; 0 with fewer than two frames), and `has_audio`. Raises NotMediaError
    if the file does not exist or cannot be opened as media, DamagedMediaError if it opens but is truncated,
    has frames above 2**26 pixels or has neither audio samples nor frames, and ModuleNotFoundError if the
    package av is not installed.
    """
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
    frame_rate = _mean_frame_rate(media_info.video.times) if media_info.video else 0.0
    return ProbeResult(media_info.duration, *frame_size, frame_rate, media_info.audio is not None)


def _mean_frame_rate(times: np.ndarray) -> float:
    """Returns the mean frames per second of frames at `times` in seconds; 0 if there are fewer than two.

    It is (n - 1) / seconds for n frames in any order. The seconds from the earliest to the latest frame count
    as at least 1 ms.
    """
    return (len(times) - 1) / max(float(times.max() - times.min()), 1e-3) if len(times) > 1 else 0.0
