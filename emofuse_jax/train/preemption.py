"""A machine that is taken back says so by SIGTERM: the run saves, and ends with a status to restart on."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: the same command goes on."""


LOST = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED", "Connection closed", "Connection reset")
"""What XLA, its coordination service and Gloo say of a process that they can't reach."""


class Preempted(Exception):
    """The run was told to stop, and has saved."""


def is_loss(error: Exception) -> bool:
    """Whether one process of several learned from the devices that another one is gone."""
    if not isinstance(error, jax.errors.JaxRuntimeError) or jax.process_count() == 1:
        return False
    return any(word in str(error) for word in LOST)


@contextlib.contextmanager
def watch() -> Iterator[Callable[[int], bool]]:
    """Yields `told(step)`: whether the machine is to be given back, at the same step in all processes.

    Several processes learn of it by JAX's own preemption service, which agrees on a step; alone, SIGTERM is
    caught here, in the main thread only.
    """
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        yield multihost_utils.reached_preemption_sync_point
        return
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield lambda step: asked.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
