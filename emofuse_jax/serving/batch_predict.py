"""Many files: prepared by processes ahead of the device, answered in full batches, in the files' order."""

import collections
import concurrent.futures
import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from emofuse_jax.serving.bundle.load import Bundle
from emofuse_jax.serving.media.decoder_pool import Damaged, Decoders, Lost, NotMedia, decode
from emofuse_jax.serving.media.prepare_window import needs_of
from emofuse_jax.serving.predict import BUCKETS, answer_windows
from emofuse_jax.serving.predictions import Window
from emofuse_jax.serving.windows import spans
from emofuse_jax.utils.errors import to_one_line

WINDOW_SECONDS = 300.0
"""A window that takes longer to prepare is given up, as a clip is in a preparation."""


def predict_files(
    bundle: Bundle,
    paths: Sequence[str],
    *,
    workers: int,
    min_confidence: float = 0.0,
    seconds: float = WINDOW_SECONDS,
    buckets: Sequence[int] = BUCKETS,
) -> Iterator[tuple[str, list[dict]]]:
    """Each file and its answers as JSON objects, in order; one {"path", "error"} where it has none.

    Args:
      bundle: a loaded one, with its encoders.
      paths: of the files; one that is named twice is answered once.
      workers: processes that prepare windows; a file that ends one costs its own answer alone.
      min_confidence: an answer whose highest probability is lower has the label `unknown`.
      seconds: after which a window is given up.
      buckets: sizes of batches, rising; a window's answer may differ between them in its last bit.
    """
    with _decoders(bundle, workers, seconds) as (decoders, threads):
        ahead = functools.partial(in_order, threads, ahead=workers + buckets[-1])
        looks = ahead(functools.partial(_look, decoders), dict.fromkeys(paths))
        parts = itertools.chain.from_iterable(_parts(bundle, path, look) for path, look in looks)
        windows = ahead(functools.partial(_window, decoders), parts)
        answers = answer_windows(bundle, windows, min_confidence, buckets)
        for path, found in itertools.groupby(answers, key=lambda answer: answer.path):
            lines = [answer.to_json() for answer in found]
            refused = all("error" in line for line in lines)
            yield path, [{"path": path, "error": lines[0]["error"]}] if refused else lines


def in_order(
    threads: concurrent.futures.Executor, work: Callable, items: Iterable, *, ahead: int
) -> Iterator:
    """`map(work, items)` in threads, at most `ahead` results before the one that is asked for."""
    waiting: collections.deque[concurrent.futures.Future] = collections.deque()
    for item in items:
        waiting.append(threads.submit(work, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextlib.contextmanager
def _decoders(bundle: Bundle, workers: int, seconds: float) -> Iterator[tuple]:
    """Processes, and as many threads that wait for them."""
    decoders = Decoders(
        functools.partial(decode, needs_of(bundle)), workers=workers, seconds=seconds, waiting=0
    )
    threads = concurrent.futures.ThreadPoolExecutor(workers)
    try:
        yield decoders, threads
    finally:
        decoders.close()
        threads.shutdown(cancel_futures=True)


def _look(decoders: Decoders, path: str) -> tuple:
    """A file and what it is, or in a line why it is none."""
    try:
        return path, decoders.look(path)
    except (NotMedia, Damaged, Lost) as error:
        return path, to_one_line(error).removeprefix(f"{path}: ")


def _parts(bundle: Bundle, path: str, look) -> Iterator[tuple]:
    if isinstance(look, str):
        yield path, 0.0, 0.0, look
        return
    for start, end, part in spans(look.seconds, bundle):
        yield path, start, end, part


def _window(decoders: Decoders, job: tuple) -> Window:
    """The prepared window of a part of a file, which is a pair of times, or why there is none."""
    path, start, end, part = job
    try:
        found = part if isinstance(part, str) else decoders.window(path, *part)
    except Lost as error:
        found = str(error)
    return Window(path, start, end, found)
