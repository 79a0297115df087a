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
    """Predicts many files; yields (path, predictions) once for each different path, in order.

    `path` is the path as passed. `predictions` is a list with one JSON dict per window: {"path", "start",
    "end", "label", "confidence", "probabilities", "voice_weight", "face_weight", "audio_ok", "video_ok"} and
    "notes", a text, if there are any; or {"path", "start", "end", "error"} for a window without a prediction.
    `start` and `end` are seconds of the file, `probabilities` is a dict by class name, the weights are None
    if the model has none, and a flag is False if the window has no usable voice or face. If no window has a
    prediction, the list is a single {"path", "error"}. All errors are raised while iterating.

    Args:
      bundle: the loaded bundle, with its encoders.
      paths: media files.
      workers: number of processes that prepare windows, at least 1; a file that crashes its process loses
        only its own predictions.
      min_confidence: predictions with a lower confidence get the label `unknown`.
      timeout_seconds: time limit for the preparation of one window, by default 300 seconds; one that takes
        longer gets an error.
      batch_sizes: batch sizes in ascending order, at least one (by default 1, 2, 4, 8, 16 and 32); a batch is
        padded to the next larger size. The last bits of a prediction may depend on the batch size.

    Raises:
      ValueError: the preparation settings in bundle.json are invalid or do not give the arrays that the model
        reads, the bundle was trained on arrays, it cannot be run on this machine, or `workers` is less than
        1. An unusable media file raises nothing: its predictions hold the error.
      OSError: a process cannot be started.
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
    raised when its result is due, one of `items` when the item is read. Raises RuntimeError if `executor` was
    shut down.
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

    It is used in a `with` statement. A job that takes longer than `timeout_seconds` fails. When the `with`
    block ends, the processes are killed and the threads end. Raises ValueError if the preparation settings in
    bundle.json are invalid, the bundle was trained on arrays, or `workers` is less than 1, and OSError if a
    process cannot be started.
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

    A ProbeResult has the duration in seconds, the frame width and height in pixels, the mean frames per
    second (these three are 0 without video), and whether there is audio. The `reason` of a Failure is one
    line without the path: the file is missing, damaged or not media, or its process crashed or timed out.
    Raises BusyError if all processes are busy and the queue of `decoders` is full, and OSError if a crashed
    process cannot be replaced.
    """
    try:
        return path, decoders.probe(path)
    except (NotMediaError, DamagedMediaError, DecoderLostError) as error:
        return path, Failure(to_one_line(error).removeprefix(f"{path}: "))


def _list_window_jobs(
    bundle: Bundle, path: str, probe_result: ProbeResult | Failure
) -> Iterator[tuple[str, Window | Failure]]:
    """Yields (path, Window) for each window of a file, or one (path, Failure) if the file is unusable.

    A Window has `start` and `end` in seconds of the file, and `is_complete_file`, which is True if the file
    has only one window. Windows are in order of time. A Failure has `reason`, one line.

    Args:
      bundle: the loaded bundle, which states the length of a window.
      path: the media file.
      probe_result: duration and other properties of the file, or a Failure if it is unusable.
    """
    if isinstance(probe_result, Failure):
        yield path, probe_result
        return
    for window in plan_windows(probe_result.duration_seconds, bundle):
        yield path, window


def _prepare_window(decoders: DecoderPool, job: tuple[str, Window | Failure]) -> PreparedWindow:
    """Returns the prepared window of a job, a pair of a path and a Window or Failure.

    A PreparedWindow has `path`, `start` and `end` in seconds, and `result`: the Record of the window (its
    spectrogram, face crops and features as arrays, `audio_ok`, `video_ok` and `notes`), or a Failure with the
    `reason` if nothing in the window can be used or its process crashed or timed out. For a job with a
    Failure, that is the `result`, and `start` and `end` are 0. Raises BusyError if all processes are busy and
    the queue of `decoders` is full, and OSError if a crashed process cannot be replaced.
    """
    path, window = job
    if isinstance(window, Failure):
        return PreparedWindow(path, 0.0, 0.0, window)
    try:
        result = decoders.prepare_window(path, *window.clip_range)
    except DecoderLostError as error:
        result = Failure(str(error))
    return PreparedWindow(path, window.start, window.end, result)
