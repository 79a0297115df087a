"""Inputs to workers, verdicts back; an input that ends or holds its worker costs itself alone."""

import collections
import multiprocessing.connection
import signal
import time
from collections.abc import Iterator, Sequence

from tests.robustness.fuzz.verdict import Verdict
from tests.robustness.fuzz.worker import INPUT_TIMEOUT_SECONDS, Worker

START_TIMEOUT_SECONDS = 300.0
"""Seconds until a worker must be ready."""


def run_inputs(
    kind: str, seeds: Sequence[int], folder: str, workers: int, timeout_seconds: float = INPUT_TIMEOUT_SECONDS
) -> Iterator[tuple[int, Verdict]]:
    """(seed, verdict) of each input as soon as it is known; RuntimeError where a worker can't start."""
    pool = [Worker(kind, folder, number) for number in range(min(workers, len(seeds)))]
    waiting_seeds, unfinished_seeds = collections.deque(seeds), set(seeds)
    try:
        while unfinished_seeds:
            for worker in pool:
                if worker.ready and worker.seed is None and waiting_seeds:
                    worker.send_seed(waiting_seeds.popleft())
            for worker in _ready_workers(pool):
                if verdict := _receive_verdict(worker):
                    unfinished_seeds.remove(worker.seed)
                    yield worker.seed, verdict
                    worker.seed = None
            for worker in [
                worker
                for worker in pool
                if time.monotonic() - worker.since > _allowed_silence_seconds(worker, timeout_seconds)
            ]:
                if not worker.ready:
                    raise RuntimeError(
                        f"{kind}: a worker was not ready after {START_TIMEOUT_SECONDS:g} s; see {folder}"
                    )
                unfinished_seeds.remove(worker.seed)
                yield (
                    worker.seed,
                    Verdict("hang", "time", f"more than {timeout_seconds:g} s", timeout_seconds),
                )
                worker.close()
            for number, worker in enumerate(pool):
                if worker.connection.closed:
                    pool[number] = Worker(kind, folder, number)
    finally:
        for worker in pool:
            worker.close()


def _ready_workers(pool: list[Worker]) -> list[Worker]:
    """Workers that have something to say, or have died."""
    by_connection = {worker.connection: worker for worker in pool}
    return [by_connection[one] for one in multiprocessing.connection.wait(by_connection, timeout=0.5)]


def _allowed_silence_seconds(worker: Worker, timeout_seconds: float) -> float:
    """How long it may be silent."""
    if worker.ready:
        return float("inf") if worker.seed is None else timeout_seconds
    return START_TIMEOUT_SECONDS


def _receive_verdict(worker: Worker) -> Verdict | None:
    """The verdict on a worker's input; a worker that has died is closed. None where it had no input."""
    try:
        message = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        code, had_input = worker.process.exitcode, worker.seed is not None
        worker.close()
        if not worker.ready:
            raise RuntimeError(
                f"{worker.kind}: a worker could not start: {_describe_exit(code)}; see {worker.home}"
            ) from None
        return (
            Verdict("crash", _describe_exit(code), "the process ended", time.monotonic() - worker.since)
            if had_input
            else None
        )
    worker.ready = True
    if message and message.status == "memory":
        worker.close()  # what it leaked goes with it
    return message


def _describe_exit(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
