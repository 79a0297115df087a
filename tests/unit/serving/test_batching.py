"""Batches of many callers: each gets the answer for its own rows, and a full queue says so."""

import concurrent.futures
import threading
import time

import numpy as np
import pytest

from emofuse_jax.serving.errors import BusyError, ClosedError
from emofuse_jax.serving.http.batching import Batcher

INPUTS = {"x": ((3,), np.dtype(np.float32))}


class SlowComputation:
    """Doubles its input; waits for `go` first, and remembers the sizes that it was run with.

    A batch takes as long whatever its size, as on an accelerator, or with `row_seconds` more than row by row.
    """

    def __init__(self, row_seconds=0.0):
        self.go, self.sizes, self.row_seconds = threading.Event(), [], row_seconds
        self.go.set()

    def __call__(self, arrays):
        self.go.wait(10)
        time.sleep(self.row_seconds * len(arrays["x"]) ** 2 or 0.003)
        self.sizes.append(len(arrays["x"]))
        if np.isnan(arrays["x"]).any():
            raise RuntimeError("out of memory")
        return {"y": 2 * arrays["x"]}


@pytest.fixture
def running_batcher():
    run, batches = SlowComputation(), []
    batcher = Batcher(
        run,
        INPUTS,
        batch_sizes=(1, 4, 8),
        max_waiting_rows=10,
        on_batch=lambda rows, bucket, s: batches.append((rows, bucket)),
    )
    batcher.start()
    assert run.sizes[:3] == [1, 4, 8]  # compiled before the first caller comes
    assert batcher.max_joined_rows == 8
    run.sizes.clear()
    yield batcher, run, batches
    run.go.set()
    batcher.close()


def make_rows(n, value):
    return {"x": np.full((n, 3), value, np.float32)}


def test_each_caller_gets_its_own_rows(running_batcher):
    batcher, run, _ = running_batcher
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 4, 200)

    def submit_until_accepted(i):
        while True:
            try:
                return batcher.submit(make_rows(sizes[i], i)).result(10)["y"]
            except BusyError:
                threading.Event().wait(0.001)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for i, result in enumerate(pool.map(submit_until_accepted, range(len(sizes)))):
            np.testing.assert_array_equal(result, np.full((sizes[i], 3), 2 * i))
    assert set(run.sizes) <= {1, 4, 8}


def test_what_gathers_while_a_batch_runs_is_run_together(running_batcher):
    batcher, run, batches = running_batcher
    run.go.clear()
    first = batcher.submit(make_rows(1, 1))
    while batcher.count_waiting_rows():
        threading.Event().wait(0.001)
    futures = [batcher.submit(make_rows(2, i)) for i in range(5)]
    with pytest.raises(BusyError, match="10 rows are waiting"):
        batcher.submit(make_rows(1, 0))
    run.go.set()
    assert first.result(10)["y"][0, 0] == 2
    assert [future.result(10)["y"][1, 2] for future in futures] == [0, 2, 4, 6, 8]
    assert run.sizes == [1, 8, 4]  # 4 x 2 rows together, then the last two, padded
    assert batches == [(1, 1), (8, 8), (2, 4)]


def test_callers_are_not_joined_where_that_gains_nothing():
    run = SlowComputation(row_seconds=0.002)
    batcher = Batcher(run, INPUTS, batch_sizes=(1, 4, 8), max_waiting_rows=20)
    batcher.start()
    assert batcher.max_joined_rows == 1
    assert run.sizes[:3] == [1, 4, 8]
    run.sizes.clear()
    run.go.clear()
    futures = [batcher.submit(make_rows(n, n)) for n in (1, 1, 1, 8, 1)]
    run.go.set()
    assert [future.result(10)["y"][0, 0] for future in futures] == [2, 2, 2, 16, 2]
    assert run.sizes == [1, 1, 1, 8, 1]
    batcher.close()


def test_a_caller_who_left_costs_nothing(running_batcher):
    batcher, run, _ = running_batcher
    run.go.clear()
    first = batcher.submit(make_rows(1, 1))
    while batcher.count_waiting_rows():
        threading.Event().wait(0.001)
    cancelled, waiting = batcher.submit(make_rows(8, 1)), batcher.submit(make_rows(1, 3))
    assert cancelled.cancel()
    run.go.set()
    assert first.result(10)["y"][0, 0] == 2
    assert waiting.result(10)["y"][0, 0] == 6
    assert run.sizes == [1, 1]


def test_an_error_reaches_its_callers_and_nobody_else(running_batcher):
    batcher, _, _ = running_batcher
    with pytest.raises(RuntimeError, match="out of memory"):
        batcher.submit(make_rows(1, np.nan)).result(10)
    assert batcher.submit(make_rows(1, 1)).result(10)["y"][0, 0] == 2


def test_what_waits_at_the_end_is_answered_and_nothing_more_taken(running_batcher):
    batcher, run, _ = running_batcher
    run.go.clear()
    futures = [batcher.submit(make_rows(2, i)) for i in range(4)]
    threading.Timer(0.05, run.go.set).start()
    batcher.close()
    assert [future.result(0)["y"][0, 0] for future in futures] == [0, 2, 4, 6]
    with pytest.raises(ClosedError):
        batcher.submit(make_rows(1, 0))


def test_too_many_rows_of_one_caller(running_batcher):
    with pytest.raises(ValueError, match="9 rows: expected 1 to 8"):
        running_batcher[0].submit(make_rows(9, 0))
