"""A machine that is taken back says so by SIGTERM: the run saves, and ends with a status to restart on."""

import contextlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterator

import jax

RESTART_EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: the same command goes on."""


LOST_PROCESS_ERRORS = (
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "ABORTED",
    "CANCELLED",
    "Connection closed",
    "Connection reset",
)
"""What XLA, its coordination service and Gloo say of a process that they can't reach."""


class Preempted(Exception):
    """The run was told to stop, and has saved."""


def is_lost_process_error(error: Exception) -> bool:
    """Whether one process of several learned from the devices that another one is gone."""
    if not isinstance(error, jax.errors.JaxRuntimeError) or jax.process_count() == 1:
        return False
    return any(marker in str(error) for marker in LOST_PROCESS_ERRORS)


_sync_counter = itertools.count()
"""That several processes have asked; the service names one of these numbers, and none may be left out."""


@contextlib.contextmanager
def watch_preemption() -> Iterator[Callable[[], bool]]:
    """Yields `should_stop`: whether the machine is to be given back; each process has to ask it as often.

    Several processes learn of it by JAX's own preemption service, all of them the same time that they ask;
    alone, SIGTERM is caught here, in the main thread only.
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
