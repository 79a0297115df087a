"""Runs timed functions in a process that is pinned to one core."""

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

from data_prep.workers.sandbox import choose_core, limit_resources, worker_environment
from emofuse_jax.utils.system import available_cores


@contextlib.contextmanager
def pinned_process() -> Iterator[Callable[..., float]]:
    """Starts a process that is configured like a worker of `emofuse prepare`, and yields a timer.

    The yielded `timer(function, *args)` runs the function in the process and returns its CPU seconds, summed
    over all threads, so that other load on the machine does not count. Function and arguments are pickled;
    an exception of the function is raised by the timer.
    """
    spawn_context, core = multiprocessing.get_context("spawn"), choose_core(0, available_cores())
    with ProcessPoolExecutor(1, spawn_context, initializer=limit_resources, initargs=(core,)) as pool:
        with worker_environment():
            pool.submit(int).result()  # starts the process
        yield lambda function, *args: pool.submit(_measure_cpu_seconds, function, *args).result()


def _measure_cpu_seconds(function: Callable, *args) -> float:
    start_time = time.process_time()
    function(*args)
    return time.process_time() - start_time
