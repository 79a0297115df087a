"""Predicts many files: worker processes prepare windows, the device runs them in full batches."""

import collections
import concurrent.futures
import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from emofuse_jax.data.records import Failure
from emofuse_jax.serving.bundle.load import Bundle
from emofuse_jax.serving.media.decoder_pool import (
    DamagedMediaError,
    DecoderLostError,
    DecoderPool,
    NotMediaError,
    ProbeResult,
    run_decoder_job,
)
from emofuse_jax.serving.media.prepare_window import prep_requirements
from emofuse_jax.serving.predict import BATCH_SIZES, predict_windows
from emofuse_jax.serving.predictions import PreparedWindow, WindowFields
from emofuse_jax.serving.windows import Window, plan_windows
from emofuse_jax.utils.errors import to_one_line

WINDOW_TIMEOUT_SECONDS = 300.0
"""Time limit for the preparation of one window; the same as for one clip of `emofuse prepare`."""

ItemT = TypeVar("ItemT")
"""Type of the items that `map_in_order` takes."""
ResultT = TypeVar("ResultT")
"""Type of the results that `map_in_order` yields."""


def predict_files(
    bundle: Bundle,
    paths: Sequence[str],
    *,
    workers: int,
    min_confidence: float = 0.0,
    timeout_seconds: float = WINDOW_TIMEOUT_SECONDS,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> Iterator[tuple[str, list[WindowFields]]]:
    """Predicts many files; yields (path, predictions) for each file, in order.

    `predictions` has one JSON dict per window (`Prediction.to_json` or `FailedWindow.to_json`). If no window
    has a prediction, it is a single {"path", "error"}.

    Args:
      bundle: the loaded bundle, with its encoders.
      paths: media files; a path that occurs twice is predicted once.
      workers: number of processes that prepare windows; a file that crashes its process loses only its own
        predictions.
      min_confidence: predictions with a lower confidence get the label `unknown`.
      timeout_seconds: time limit for the preparation of one window, which fails after it.
      batch_sizes: batch sizes in ascending order; the last bits of a prediction may depend on the batch size.

    Raises:
      ValueError: the settings in the bundle are invalid, the bundle was trained on arrays, or it cannot be
        run on this machine. An unusable media file raises nothing: its predictions hold the error.
    """
    with _start_decoders(bundle, workers, timeout_seconds) as (decoders, executor):
        map_items = functools.partial(map_in_order, executor, max_ahead=workers + batch_sizes[-1])
        probe_results = map_items(functools.partial(_probe, decoders), dict.fromkeys(paths))
        jobs = itertools.chain.from_iterable(
            _list_window_jobs(bundle, path, probe_result) for path, probe_result in probe_results
        )
        windows = map_items(functools.partial(_prepare_window, decoders), jobs)
        predictions = predict_windows(bundle, windows, min_confidence, batch_sizes)
        for path, file_predictions in itertools.groupby(predictions, key=lambda prediction: prediction.path):
            window_fields = [prediction.to_json() for prediction in file_predictions]
            errors = [fields["error"] for fields in window_fields if "error" in fields]
            if len(errors) == len(window_fields):
                yield path, [{"path": path, "error": errors[0]}]
            else:
                yield path, window_fields


def map_in_order(
    executor: concurrent.futures.Executor,
    function: Callable[[ItemT], ResultT],
    items: Iterable[ItemT],
    *,
    max_ahead: int,
) -> Iterator[ResultT]:
    """Yields `function(item)` for each of `items`, in order, computed in the threads of `executor`.

    At most `max_ahead` results are computed ahead of the one that is yielded. An exception of `function` is
    raised when its result is due.
    """
    futures: collections.deque[concurrent.futures.Future[ResultT]] = collections.deque()
    for item in items:
        futures.append(executor.submit(function, item))
        if len(futures) > max_ahead:
            yield futures.popleft().result()
    while futures:
        yield futures.popleft().result()


@contextlib.contextmanager
def _start_decoders(
    bundle: Bundle, workers: int, timeout_seconds: float
) -> Iterator[tuple[DecoderPool, concurrent.futures.Executor]]:
    """Yields a DecoderPool of `workers` processes and an executor with as many threads to wait for them.

    Raises ValueError if the settings in the bundle are invalid or the bundle was trained on arrays.
    """
    decoders = DecoderPool(
        functools.partial(run_decoder_job, prep_requirements(bundle)),
        workers=workers,
        timeout_seconds=timeout_seconds,
        max_waiting=0,
    )
    executor = concurrent.futures.ThreadPoolExecutor(workers)
    try:
        yield decoders, executor
    finally:
        decoders.close()
        executor.shutdown(cancel_futures=True)


def _probe(decoders: DecoderPool, path: str) -> tuple[str, ProbeResult | Failure]:
    """Returns the path, with the file's ProbeResult or, if the file is unusable, with a Failure.

    A ProbeResult holds the duration, frame size and frame rate.
    """
    try:
        return path, decoders.probe(path)
    except (NotMediaError, DamagedMediaError, DecoderLostError) as error:
        return path, Failure(to_one_line(error).removeprefix(f"{path}: "))


def _list_window_jobs(
    bundle: Bundle, path: str, probe_result: ProbeResult | Failure
) -> Iterator[tuple[str, Window | Failure]]:
    """Yields (path, Window) for each window of a file, or one (path, Failure) if the file is unusable."""
    if isinstance(probe_result, Failure):
        yield path, probe_result
        return
    for window in plan_windows(probe_result.duration_seconds, bundle):
        yield path, window


def _prepare_window(decoders: DecoderPool, job: tuple[str, Window | Failure]) -> PreparedWindow:
    """Returns the prepared window of a job, a pair of a path and a Window or Failure.

    Its `result` is the Record, or a Failure if the file is unusable or its process crashed or timed out.
    """
    path, window = job
    if isinstance(window, Failure):
        return PreparedWindow(path, 0.0, 0.0, window)
    try:
        result = decoders.prepare_window(path, *window.clip_range)
    except DecoderLostError as error:
        result = Failure(str(error))
    return PreparedWindow(path, window.start, window.end, result)
