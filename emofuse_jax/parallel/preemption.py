"""Handles preemption: on SIGTERM a run saves its state and exits with a status that means: run it again."""

import contextlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterator

import jax

RESTART_EXIT_CODE = 75
"""Exit status after a preemption (EX_TEMPFAIL of sysexits.h): run the same command to resume."""


LOST_PROCESS_ERRORS = (
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "ABORTED",
    "CANCELLED",
    "Connection closed",
    "Connection reset",
)
"""Texts in the errors of XLA, its coordination service and Gloo when they cannot reach a process."""


class Preempted(Exception):
    """Raised after the run was stopped by a preemption and has saved its state."""


def is_lost_process_error(error: Exception) -> bool:
    """Returns True if the error says that another process of the run was lost.

    Returns False for all other errors, and always if there is a single process.
    """
    if not isinstance(error, jax.errors.JaxRuntimeError) or jax.process_count() == 1:
        return False
    return any(marker in str(error) for marker in LOST_PROCESS_ERRORS)


_sync_counter = itertools.count()
"""Numbers the calls of `should_stop`; the preemption service picks one number, so none can be skipped."""


@contextlib.contextmanager
def watch_preemption() -> Iterator[Callable[[], bool]]:
    """Yields `should_stop()`, which returns True once the machine is about to be taken away, else False.

    It is used in a `with` statement. With several processes, JAX's preemption service is used, and
    `should_stop` returns True on the same call in all processes; each process must call it equally often. In
    a single process, SIGTERM is caught until the `with` block ends, but only in the main thread: in other
    threads `should_stop` always returns False.
    """
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        yield lambda: multihost_utils.reached_preemption_sync_point(next(_sync_counter))
        return
    stop_requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous_handler = signal.signal(signal.SIGTERM, lambda *_: stop_requested.set())
    try:
        yield stop_requested.is_set
    finally:
        signal.signal(signal.SIGTERM, previous_handler)
