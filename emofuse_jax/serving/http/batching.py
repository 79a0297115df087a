"""One program for many callers: rows wait in a bounded queue and are answered together, in fixed batch sizes.

While a batch is computed the next rows gather, so that batches grow with the load and a lone caller never
waits for company. They grow only as far as full ones answer more rows a second: an accelerator is hardly
slower over 32 clips than over one, while on a CPU a long batch only keeps its callers from sending the next.
"""

import collections
import concurrent.futures
import dataclasses
import threading
import time
from collections.abc import Callable

import numpy as np

from emofuse_jax.serving.errors import Busy, Closed

Arrays = dict[str, np.ndarray]
GAIN = 1.1
"""By how much a larger bucket must answer more rows a second to be worth its wait."""
ROUNDS = 2


@dataclasses.dataclass(frozen=True)
class Request:
    """Rows of one caller, and where their answer goes."""

    arrays: Arrays
    rows: int
    answer: concurrent.futures.Future


class Batcher:
    """Runs `run` in a thread of its own.

    Args:
      run: batch of arrays [b ..] to answers [b ..], such as `Bundle.run`.
      inputs: shape without the batch, and dtype, of each array.
      buckets: the batch sizes that are run, rising; a batch is padded with zeros to the next one. The largest
        is the most of one caller; of several, no more are joined than `start` finds worth it (`together`).
      waiting: most rows that may wait.
      told: hears of each batch its rows, its bucket and the seconds that it took.
    """

    def __init__(
        self,
        run: Callable[[Arrays], Arrays],
        inputs: dict[str, tuple[tuple, np.dtype]],
        *,
        buckets: tuple[int, ...] = (1, 2, 4, 8, 16, 32),
        waiting: int = 256,
        told: Callable[[int, int, float], None] = lambda rows, bucket, seconds: None,
    ):
        self.buckets, self.waiting, self.together = buckets, waiting, buckets[-1]
        self._run, self._inputs, self._told = run, inputs, told
        self._queue: collections.deque[Request] = collections.deque()
        self._changed, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._work, name="batches", daemon=True)

    def start(self) -> None:
        """Runs every bucket, which compiles it, measures how many rows to join, and begins to answer."""
        for bucket in self.buckets:
            self._run(self._zeros(bucket))
        self.together = self._worthwhile()
        self._thread.start()

    def submit(self, arrays: Arrays) -> concurrent.futures.Future:
        """The future answer for rows [n ..]; cancelled before its turn, it costs nothing.

        Raises:
          Busy: too many rows wait.
          Closed: after `close`.
          ValueError: more rows than the largest bucket.
        """
        rows = len(next(iter(arrays.values())))
        if not 1 <= rows <= self.buckets[-1]:
            raise ValueError(f"{rows} rows, expected 1 to {self.buckets[-1]}")
        request = Request(arrays, rows, concurrent.futures.Future())
        with self._changed:
            if self._closed:
                raise Closed("the server is stopping")
            if self.depth() + rows > self.waiting:
                raise Busy(f"{self.depth()} rows wait already")
            self._queue.append(request)
            self._changed.notify()
        return request.answer

    def depth(self) -> int:
        """Rows that wait."""
        with self._changed:
            return sum(request.rows for request in self._queue)

    def close(self) -> None:
        """Takes nothing more, answers what waits, and ends."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        while batch := self._next():
            live = [request for request in batch if request.answer.set_running_or_notify_cancel()]
            if live:
                self._answer(live)

    def _next(self) -> list[Request]:
        """The oldest request, and those after it that are worth joining; none when all is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            batch, rows = [], 0
            while self._queue and (not batch or rows + self._queue[0].rows <= self.together):
                batch.append(self._queue.popleft())
                rows += batch[-1].rows
            return batch

    def _answer(self, batch: list[Request]) -> None:
        began, rows = time.monotonic(), sum(request.rows for request in batch)
        bucket = next(size for size in self.buckets if size >= rows)
        arrays, first = self._zeros(bucket), 0
        for request in batch:
            for name, array in request.arrays.items():
                arrays[name][first : first + request.rows] = array
            first += request.rows
        try:
            outputs = self._run(arrays)
        except Exception as error:  # of the device: every caller hears of it
            for request in batch:
                request.answer.set_exception(error)
            return
        first = 0
        for request in batch:
            request.answer.set_result({k: v[first : first + request.rows] for k, v in outputs.items()})
            first += request.rows
        self._told(rows, bucket, time.monotonic() - began)

    def _worthwhile(self) -> int:
        """The smallest bucket than which no larger one answers `GAIN` times the rows a second."""
        # in rounds, so that a moment in which the machine is busy does not fall on one bucket alone
        rounds = [[self._seconds(bucket) for bucket in self.buckets] for _ in range(ROUNDS)]
        together, best = self.buckets[0], 0.0
        for bucket, seconds in zip(self.buckets, map(min, *rounds), strict=True):
            if bucket / seconds > GAIN * best:
                together, best = bucket, bucket / seconds
        return together

    def _seconds(self, rows: int) -> float:
        """Of one batch."""
        arrays, began = self._zeros(rows), time.perf_counter()
        self._run(arrays)
        return time.perf_counter() - began

    def _zeros(self, rows: int) -> Arrays:
        return {name: np.zeros((rows, *shape), dtype) for name, (shape, dtype) in self._inputs.items()}
