"""Media are opened in processes of bounded memory and time: a hostile file ends those alone."""

import contextlib
import dataclasses
import queue
import threading
import traceback
from collections.abc import Callable

from data_prep.workers.pool import Worker
from emofuse_jax.serving.errors import Busy
from emofuse_jax.serving.media.prepare_window import Needs, encoder_files, needs_faces, prepare_window

STARTING = 120.0
"""Seconds until a new process must be ready."""


@dataclasses.dataclass(frozen=True)
class Look:
    """What the packets of a file say, before anything is decoded."""

    seconds: float
    width: int
    height: int
    frame_rate: float
    sound: bool


class NotMedia(ValueError):
    """A file that holds neither sound nor video."""


class Damaged(ValueError):
    """Media that can't be used, such as a film that was cut off."""


class Lost(RuntimeError):
    """The process that had the file was lost on it."""


class Decoders:
    """`workers` processes; at most `waiting` callers wait for one.

    Args:
      work: what a process does with a job, such as `decode`; it can be sent to another process.
      workers: processes.
      seconds: after which a process is given up.
      waiting: callers.
    """

    def __init__(self, work: Callable[[tuple], object], *, workers: int, seconds: float, waiting: int):
        self._work, self._seconds = work, seconds
        self._places = threading.BoundedSemaphore(workers + waiting)
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._starting = threading.Lock()  # a child takes its environment from ours
        self._closed = False
        self._workers = [self._new() for _ in range(workers)]
        for worker in self._workers:
            self._idle.put(worker)

    def look(self, path: str) -> Look:
        """Raises NotMedia, Damaged, Lost or Busy."""
        return self._ask((path,))

    def window(self, path: str, start: float | None, end: float | None, person: int = 0):
        """A Record, or in a line why there is none (`prepare_window`); raises Lost or Busy."""
        return self._ask((path, start, end, person))

    def warm(self) -> None:
        """Waits until each process could begin with a film at once; what is amiss is told when asked."""
        for _ in range(len(self._workers)):  # which take turns
            with contextlib.suppress(Lost):
                self._asked(())

    def close(self) -> None:
        """Ends all processes, in the middle of what they do."""
        with self._starting:
            self._closed = True
        for worker in self._workers:
            worker.close()

    def _new(self) -> Worker:
        return Worker(self._work, None, "cpu")

    def _ask(self, job: tuple):
        if not self._places.acquire(blocking=False):
            raise Busy("all decoders are busy, and others wait")
        try:
            return self._asked(job)
        finally:
            self._places.release()

    def _asked(self, job: tuple):
        worker, lost = self._idle.get(), True
        try:
            if not worker.ready:
                if not worker.connection.poll(STARTING) or worker.connection.recv() is not None:
                    raise Lost("a decoder could not start")
                worker.ready = True
            worker.connection.send(job)
            if not worker.connection.poll(self._seconds):
                raise Lost(f"decoding took more than {self._seconds:g} s")
            answer, lost = worker.connection.recv(), False
        except (EOFError, OSError) as error:
            raise Lost("decoding crashed, or took too much memory") from error
        finally:
            if lost:
                worker = self._replaced(worker)
            self._idle.put(worker)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _replaced(self, worker: Worker) -> Worker:
        """A new process in its place, unless all are being ended."""
        worker.close()
        with self._starting:
            if self._closed:
                return worker
            new = self._new()
            self._workers[self._workers.index(worker)] = new
        return new


def decode(needs: Needs, job: tuple):
    """In the process: what a job asks for, or the error, which is sent back.

    `job`: a path, for a `Look`; with start, end and person for a window, a Record or why there is none;
    nothing, to get ready.
    """
    if not job:
        return _warm(needs)
    path, *part = job
    try:
        return prepare_window(needs, path, *part) if part else _look(path)
    except MemoryError:
        raise
    except (NotMedia, Damaged) as error:
        return error
    except Exception as error:  # a mistake of ours: it costs this file alone
        traceback.print_exc()
        return Lost(f"internal error: {type(error).__name__}")


def _warm(needs: Needs) -> None:
    from data_prep.faces.detector import warm_detector

    if needs_faces(needs):
        warm_detector(needs.settings, encoder_files(needs))


def _look(path: str) -> Look:
    from data_prep.media.probe import MediaError, open_media, probe

    try:
        with open_media(path) as container:
            pictures = container.streams.video[:1]
            size = (pictures[0].width, pictures[0].height) if pictures else (0, 0)
    except MediaError as error:
        raise NotMedia(str(error)) from error
    try:
        info = probe(path)
    except MediaError as error:
        raise Damaged(str(error)) from error
    times = info.video.times if info.video else ()
    rate = (len(times) - 1) / max(float(times.max() - times.min()), 1e-3) if len(times) > 1 else 0.0
    return Look(info.duration, *size, rate, info.sound is not None)
