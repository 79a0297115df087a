"""Runs the rows of many callers together, in batches of fixed sizes, from a bounded queue.

While a batch runs, the next rows collect in the queue. Batches therefore grow with the load, and a single
caller never waits for others. Batches grow only as long as larger ones give more rows per second: an
accelerator takes hardly longer for 32 clips than for one, but on a CPU a large batch only makes its callers
wait longer.
"""

import collections
import concurrent.futures
import dataclasses
import threading
import time
from collections.abc import Callable

import numpy as np

from emofuse_jax.serving.errors import BusyError, ClosedError
from emofuse_jax.serving.interfaces import InputShapes

Arrays = dict[str, np.ndarray]
"""Arrays by name."""
MIN_THROUGHPUT_GAIN = 1.1
"""Smallest gain in rows per second for which a larger batch size is used."""
TIMING_ROUNDS = 2
"""Number of times that each batch size is measured."""


@dataclasses.dataclass(frozen=True)
class BatchRequest:
    """Rows of one caller, and the future that receives the outputs."""

    arrays: Arrays
    """Input arrays [n ..] by name."""
    num_rows: int
    """Number of rows n."""
    future: concurrent.futures.Future[Arrays]
    """Receives the output arrays [n ..] by name, or the exception."""


class Batcher:
    """Runs a function on batches of rows in a separate thread.

    Args:
      run: function from a batch of input arrays [b ..] to output arrays [b ..], such as `Bundle.run`.
      inputs: shape without the batch axis, and dtype, of each input array.
      batch_sizes: batch sizes in ascending order; a batch is padded with zeros to the next larger size. One
        caller may send at most `batch_sizes[-1]` rows. Rows of several callers are joined up to
        `max_joined_rows`, which `start` measures.
      max_waiting_rows: maximum number of rows in the queue.
      on_batch: called after each batch with its number of rows, its batch size and its seconds.
    """

    def __init__(
        self,
        run: Callable[[Arrays], Arrays],
        inputs: InputShapes,
        *,
        batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32),
        max_waiting_rows: int = 256,
        on_batch: Callable[[int, int, float], None] = lambda rows, bucket, seconds: None,
    ) -> None:
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
        """Compiles every batch size by running it, and starts the thread that runs the queue.

        Before the thread starts, the sizes are timed, and `max_joined_rows` is set to the largest one that is
        worth its time: rows of several requests are joined to batches of at most that many rows. Errors of
        the function `run` pass through. Raises RuntimeError if the thread was started before.
        """
        for batch_size in self.batch_sizes:
            self._run(self._make_zeros(batch_size))
        self.max_joined_rows = self._measure_max_joined_rows()
        self._thread.start()

    def submit(self, arrays: Arrays) -> concurrent.futures.Future[Arrays]:
        """Adds rows to the queue and returns the future of their outputs, arrays [n ..] by name.

        A future that is cancelled before its batch starts is not computed. The future holds an exception if
        the function `run` failed.

        Args:
          arrays: input arrays [n ..] by name, with n rows; names, shapes and dtypes must be those of
            `inputs`, which is not checked.

        Raises:
          BusyError: there are not enough free places in the queue for n rows.
          ClosedError: the batcher was closed.
          ValueError: there are no rows, or more than `batch_sizes[-1]`.
        """
        num_rows = len(next(iter(arrays.values())))
        if not 1 <= num_rows <= self.batch_sizes[-1]:
            raise ValueError(f"{num_rows} rows: expected 1 to {self.batch_sizes[-1]} rows per call")
        request = BatchRequest(arrays, num_rows, concurrent.futures.Future())
        with self._condition:
            if self._is_closed:
                raise ClosedError("the server is stopping; try again later")
            if self.count_waiting_rows() + num_rows > self.max_waiting_rows:
                raise BusyError(
                    f"the queue is full: {self.count_waiting_rows()} rows are waiting; try again later"
                )
            self._queue.append(request)
            self._condition.notify()
        return request.future

    def count_waiting_rows(self) -> int:
        """Returns the number of rows in the queue."""
        with self._condition:
            return sum(request.num_rows for request in self._queue)

    def close(self) -> None:
        """Rejects further rows, runs those in the queue, and waits for the thread to end.

        After this, `submit` raises ClosedError. If the thread was never started, the rows in the queue are
        not run, and their futures never end. A second call has no effect.
        """
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
        """Waits for requests and returns those to run together; an empty list once the batcher is closed.

        A BatchRequest has `arrays` [n ..] by name, `num_rows` (n) and the `future` of the outputs. Returned
        are the first request in the queue, of any size, and those after it, as long as all have at most
        `max_joined_rows` rows together. Requests that are in the queue when the batcher is closed are
        returned before the empty list.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._queue or self._is_closed)
            batch: list[BatchRequest] = []
            num_rows = 0
            while self._queue and (not batch or num_rows + self._queue[0].num_rows <= self.max_joined_rows):
                batch.append(self._queue.popleft())
                num_rows += batch[-1].num_rows
            return batch

    def _run_batch(self, batch: list[BatchRequest]) -> None:
        """Runs the requests as one batch and sets the results of their futures.

        The batch is padded with zeros to the next batch size. If the function `run` fails, its exception is
        set in all futures instead of being raised. Raises ValueError if an array of a request has another
        shape than in `inputs`, and KeyError if it has another name; errors of `on_batch` pass through.
        """
        start_time, num_rows = time.monotonic(), sum(request.num_rows for request in batch)
        batch_size = next(size for size in self.batch_sizes if size >= num_rows)
        arrays, first_row = self._make_zeros(batch_size), 0
        for request in batch:
            for name, array in request.arrays.items():
                arrays[name][first_row : first_row + request.num_rows] = array
            first_row += request.num_rows
        try:
            outputs = self._run(arrays)
        except Exception as error:  # an error of the device fails all requests of the batch
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
        """Measures the rows per second of all batch sizes, and returns the largest size that is worth it.

        Each size is timed twice (TIMING_ROUNDS), and its shortest time counts. In ascending order, a size
        replaces the one chosen so far if it gives more than 1.1 times (MIN_THROUGHPUT_GAIN) as many rows per
        second. Errors of the function `run` pass through.
        """
        # in rounds, so that a moment of other load does not affect a single batch size only
        timings = [
            [self._time_batch(batch_size) for batch_size in self.batch_sizes] for _ in range(TIMING_ROUNDS)
        ]
        max_joined_rows, best_throughput = self.batch_sizes[0], 0.0
        for batch_size, seconds in zip(self.batch_sizes, map(min, *timings), strict=True):
            if batch_size / seconds > MIN_THROUGHPUT_GAIN * best_throughput:
                max_joined_rows, best_throughput = batch_size, batch_size / seconds
        return max_joined_rows

    def _time_batch(self, num_rows: int) -> float:
        """Returns the seconds that one batch of `num_rows` rows of zeros takes.

        Errors of the function `run` pass through.
        """
        arrays, start_time = self._make_zeros(num_rows), time.perf_counter()
        self._run(arrays)
        return time.perf_counter() - start_time

    def _make_zeros(self, num_rows: int) -> Arrays:
        return {name: np.zeros((num_rows, *shape), dtype) for name, (shape, dtype) in self._inputs.items()}
