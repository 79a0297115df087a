"""Inputs to workers, verdicts back; an input that ends or holds its worker costs itself alone."""

import collections
import multiprocessing.connection
import signal
import time
from collections.abc import Iterator, Sequence

from tests.fuzz.verdict import Verdict
from tests.fuzz.worker import SECONDS, Worker

STARTING = 300.0
"""Seconds until a worker must be ready."""


def verdicts(
    kind: str, seeds: Sequence[int], folder: str, workers: int, seconds: float = SECONDS
) -> Iterator[tuple[int, Verdict]]:
    """(seed, verdict) of each input as soon as it is known; RuntimeError where a worker can't start."""
    pool = [Worker(kind, folder, number) for number in range(min(workers, len(seeds)))]
    waiting, busy = collections.deque(seeds), set(seeds)
    try:
        while busy:
            for worker in pool:
                if worker.ready and worker.seed is None and waiting:
                    worker.give(waiting.popleft())
            for worker in _told(pool):
                if verdict := _heard(worker):
                    busy.remove(worker.seed)
                    yield worker.seed, verdict
                    worker.seed = None
            for worker in [
                worker for worker in pool if time.monotonic() - worker.since > _most(worker, seconds)
            ]:
                if not worker.ready:
                    raise RuntimeError(f"{kind}: a worker was not ready after {STARTING:g} s; see {folder}")
                busy.remove(worker.seed)
                yield worker.seed, Verdict("hang", "time", f"more than {seconds:g} s", seconds)
                worker.close()
            for number, worker in enumerate(pool):
                if worker.connection.closed:
                    pool[number] = Worker(kind, folder, number)
    finally:
        for worker in pool:
            worker.close()


def _told(pool: list[Worker]) -> list[Worker]:
    """Workers that have something to say, or have died."""
    by_connection = {worker.connection: worker for worker in pool}
    return [by_connection[one] for one in multiprocessing.connection.wait(by_connection, timeout=0.5)]


def _most(worker: Worker, seconds: float) -> float:
    """How long it may be silent."""
    if worker.ready:
        return float("inf") if worker.seed is None else seconds
    return STARTING


def _heard(worker: Worker) -> Verdict | None:
    """The verdict on a worker's input; a worker that has died is closed. None where it had no input."""
    try:
        message = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        code, had = worker.process.exitcode, worker.seed is not None
        worker.close()
        if not worker.ready:
            raise RuntimeError(
                f"{worker.kind}: a worker could not start: {_end(code)}; see {worker.home}"
            ) from None
        return (
            Verdict("crash", _end(code), "the process ended", time.monotonic() - worker.since)
            if had
            else None
        )
    worker.ready = True
    if message and message.status == "memory":
        worker.close()  # what it leaked goes with it
    return message


def _end(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
