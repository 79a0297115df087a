"""Many files: prepared by processes ahead of the device, answered in full batches, in the files' order."""

import collections
import concurrent.futures
import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from emofuse_jax.serving.bundle.load import Bundle
from emofuse_jax.serving.media.decoder_pool import (
    DamagedMediaError,
    DecoderLostError,
    DecoderPool,
    NotMediaError,
    run_decoder_job,
)
from emofuse_jax.serving.media.prepare_window import prep_requirements
from emofuse_jax.serving.predict import BATCH_SIZES, predict_windows
from emofuse_jax.serving.predictions import PreparedWindow
from emofuse_jax.serving.windows import plan_windows
from emofuse_jax.utils.errors import to_one_line

WINDOW_TIMEOUT_SECONDS = 300.0
"""A window that takes longer to prepare is given up, as a clip is in a preparation."""


def predict_files(
    bundle: Bundle,
    paths: Sequence[str],
    *,
    workers: int,
    min_confidence: float = 0.0,
    timeout_seconds: float = WINDOW_TIMEOUT_SECONDS,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> Iterator[tuple[str, list[dict]]]:
    """Each file and its answers as JSON objects, in order; one {"path", "error"} where it has none.

    Args:
      bundle: a loaded one, with its encoders.
      paths: of the files; one that is named twice is answered once.
      workers: processes that prepare windows; a file that ends one costs its own answer alone.
      min_confidence: an answer whose highest probability is lower has the label `unknown`.
      timeout_seconds: after which a window is given up.
      batch_sizes: sizes of batches, rising; a window's answer may differ between them in its last bit.
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
            has_no_prediction = all("error" in fields for fields in window_fields)
            yield (
                path,
                [{"path": path, "error": window_fields[0]["error"]}] if has_no_prediction else window_fields,
            )


def map_in_order(
    executor: concurrent.futures.Executor, function: Callable, items: Iterable, *, max_ahead: int
) -> Iterator:
    """Runs `map(function, items)` in threads, at most `max_ahead` results ahead of the one asked for."""
    futures: collections.deque[concurrent.futures.Future] = collections.deque()
    for item in items:
        futures.append(executor.submit(function, item))
        if len(futures) > max_ahead:
            yield futures.popleft().result()
    while futures:
        yield futures.popleft().result()


@contextlib.contextmanager
def _start_decoders(bundle: Bundle, workers: int, timeout_seconds: float) -> Iterator[tuple]:
    """Processes, and as many threads that wait for them."""
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


def _probe(decoders: DecoderPool, path: str) -> tuple:
    """A file and what it is, or in a line why it is none."""
    try:
        return path, decoders.probe(path)
    except (NotMediaError, DamagedMediaError, DecoderLostError) as error:
        return path, to_one_line(error).removeprefix(f"{path}: ")


def _list_window_jobs(bundle: Bundle, path: str, probe_result) -> Iterator[tuple]:
    if isinstance(probe_result, str):
        yield path, 0.0, 0.0, probe_result
        return
    for start, end, clip_range in plan_windows(probe_result.duration_seconds, bundle):
        yield path, start, end, clip_range


def _prepare_window(decoders: DecoderPool, job: tuple) -> PreparedWindow:
    """The prepared window of a part of a file, which is a pair of times, or why there is none."""
    path, start, end, clip_range = job
    try:
        record_or_error = (
            clip_range if isinstance(clip_range, str) else decoders.prepare_window(path, *clip_range)
        )
    except DecoderLostError as error:
        record_or_error = str(error)
    return PreparedWindow(path, start, end, record_or_error)
