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

from emofuse_jax.serving.errors import BusyError, ClosedError

Arrays = dict[str, np.ndarray]
MIN_THROUGHPUT_GAIN = 1.1
"""By how much a larger bucket must answer more rows a second to be worth its wait."""
TIMING_ROUNDS = 2


@dataclasses.dataclass(frozen=True)
class BatchRequest:
    """Rows of one caller, and where their answer goes."""

    arrays: Arrays
    num_rows: int
    future: concurrent.futures.Future


class Batcher:
    """Runs `run` in a thread of its own.

    Args:
      run: batch of arrays [b ..] to answers [b ..], such as `Bundle.run`.
      inputs: shape without the batch, and dtype, of each array.
      batch_sizes: the batch sizes that are run, rising; a batch is padded with zeros to the next one. The
        largest is the most rows that one caller may send; rows of several callers are joined up to
        `max_joined_rows`, which `start` measures.
      max_waiting_rows: most rows that may wait.
      on_batch: hears of each batch its rows, its bucket and the seconds that it took.
    """

    def __init__(
        self,
        run: Callable[[Arrays], Arrays],
        inputs: dict[str, tuple[tuple, np.dtype]],
        *,
        batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32),
        max_waiting_rows: int = 256,
        on_batch: Callable[[int, int, float], None] = lambda rows, bucket, seconds: None,
    ):
        self.batch_sizes, self.max_waiting_rows, self.max_joined_rows = (
            batch_sizes,
            max_waiting_rows,
            batch_sizes[-1],
        )
        self._run, self._inputs, self._on_batch = run, inputs, on_batch
        self._queue: collections.deque[BatchRequest] = collections.deque()
        self._condition, self._is_closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._run_loop, name="batches", daemon=True)

    def start(self) -> None:
        """Runs every bucket, which compiles it, measures how many rows to join, and begins to answer."""
        for batch_size in self.batch_sizes:
            self._run(self._make_zeros(batch_size))
        self.max_joined_rows = self._measure_max_joined_rows()
        self._thread.start()

    def submit(self, arrays: Arrays) -> concurrent.futures.Future:
        """The future answer for rows [n ..]; cancelled before its turn, it costs nothing.

        Raises:
          BusyError: too many rows wait.
          ClosedError: after `close`.
          ValueError: more rows than the largest bucket.
        """
        num_rows = len(next(iter(arrays.values())))
        if not 1 <= num_rows <= self.batch_sizes[-1]:
            raise ValueError(f"{num_rows} rows, expected 1 to {self.batch_sizes[-1]}")
        request = BatchRequest(arrays, num_rows, concurrent.futures.Future())
        with self._condition:
            if self._is_closed:
                raise ClosedError("the server is stopping")
            if self.count_waiting_rows() + num_rows > self.max_waiting_rows:
                raise BusyError(f"{self.count_waiting_rows()} rows wait already")
            self._queue.append(request)
            self._condition.notify()
        return request.future

    def count_waiting_rows(self) -> int:
        """Rows that wait."""
        with self._condition:
            return sum(request.num_rows for request in self._queue)

    def close(self) -> None:
        """Takes nothing more, answers what waits, and ends."""
        with self._condition:
            self._is_closed = True
            self._condition.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def _run_loop(self) -> None:
        while batch := self._next_batch():
            active_requests = [request for request in batch if request.future.set_running_or_notify_cancel()]
            if active_requests:
                self._run_batch(active_requests)

    def _next_batch(self) -> list[BatchRequest]:
        """The oldest request, and those after it that are worth joining; none when all is done."""
        with self._condition:
            self._condition.wait_for(lambda: self._queue or self._is_closed)
            batch, num_rows = [], 0
            while self._queue and (not batch or num_rows + self._queue[0].num_rows <= self.max_joined_rows):
                batch.append(self._queue.popleft())
                num_rows += batch[-1].num_rows
            return batch

    def _run_batch(self, batch: list[BatchRequest]) -> None:
        start_time, num_rows = time.monotonic(), sum(request.num_rows for request in batch)
        batch_size = next(size for size in self.batch_sizes if size >= num_rows)
        arrays, first_row = self._make_zeros(batch_size), 0
        for request in batch:
            for name, array in request.arrays.items():
                arrays[name][first_row : first_row + request.num_rows] = array
            first_row += request.num_rows
        try:
            outputs = self._run(arrays)
        except Exception as error:  # of the device: every caller hears of it
            for request in batch:
                request.future.set_exception(error)
            return
        first_row = 0
        for request in batch:
            request.future.set_result(
                {k: v[first_row : first_row + request.num_rows] for k, v in outputs.items()}
            )
            first_row += request.num_rows
        self._on_batch(num_rows, batch_size, time.monotonic() - start_time)

    def _measure_max_joined_rows(self) -> int:
        """The smallest bucket than which no larger one answers `MIN_THROUGHPUT_GAIN` times the rows a
        second."""
        # in rounds, so that a moment in which the machine is busy does not fall on one bucket alone
        timings = [
            [self._time_batch(batch_size) for batch_size in self.batch_sizes] for _ in range(TIMING_ROUNDS)
        ]
        max_joined_rows, best_throughput = self.batch_sizes[0], 0.0
        for batch_size, seconds in zip(self.batch_sizes, map(min, *timings), strict=True):
            if batch_size / seconds > MIN_THROUGHPUT_GAIN * best_throughput:
                max_joined_rows, best_throughput = batch_size, batch_size / seconds
        return max_joined_rows

    def _time_batch(self, num_rows: int) -> float:
        """Of one batch."""
        arrays, start_time = self._make_zeros(num_rows), time.perf_counter()
        self._run(arrays)
        return time.perf_counter() - start_time

    def _make_zeros(self, num_rows: int) -> Arrays:
        return {name: np.zeros((num_rows, *shape), dtype) for name, (shape, dtype) in self._inputs.items()}
