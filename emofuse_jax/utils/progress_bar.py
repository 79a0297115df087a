"""Shows the progress of long work: one line on a terminal or in a notebook, else a line every ten seconds."""

import contextlib
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Protocol

LINE_INTERVAL_SECONDS = 10.0


class Update(Protocol):
    """Shows how many items are done."""

    def __call__(self, done: int, total: int, *, status: str = "", seconds_left: float | None = None) -> None:
        """Shows `done` of `total` items and the text `status`.

        `seconds_left` are the remaining seconds if they are known; lines of a log show them, a bar on a
        terminal shows its own estimate instead.
        """


@contextlib.contextmanager
def progress_bar(title: str, *, total: int | None = None, first: int = 0) -> Iterator[Update]:
    """Shows progress on stderr while the `with` block runs, and yields a function that updates the progress.

    The function takes the number of finished items, the total, and optionally, by keyword, `status`, a text,
    and `seconds_left`, the remaining seconds.

    On a terminal and in a notebook one line is updated in place. Otherwise, for example in a log file, the
    function prints a line if ten seconds have passed since the last one, and when the work is done.

    Args:
      title: Text before the bar.
      total: Number of items; None if it is known only at the first update.
      first: Number of items that were finished before, e.g. by an earlier run.
    """
    if sys.stderr.isatty() or _is_notebook():
        with _bar(title, total, first) as update:
            yield update
    else:
        yield _line_printer(title)


@contextlib.contextmanager
def _bar(title: str, total: int | None, first: int) -> Iterator[Update]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm warns in notebooks without ipywidgets, where it prints text
        from tqdm.auto import tqdm
    bar_format = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix} {remaining} left"
    with tqdm(desc=title, total=total, initial=first, bar_format=bar_format, dynamic_ncols=True) as bar:

        def update(done: int, total: int, *, status: str = "", seconds_left: float | None = None) -> None:
            bar.total = total
            bar.set_postfix_str(status, refresh=False)
            bar.update(done - bar.n)

        yield update


def _line_printer(title: str) -> Update:
    last_print = time.monotonic()

    def update(done: int, total: int, *, status: str = "", seconds_left: float | None = None) -> None:
        nonlocal last_print
        now = time.monotonic()
        if now - last_print > LINE_INTERVAL_SECONDS or done == total:
            last_print = now
            time_left = "" if seconds_left is None else f"{seconds_left:.0f} s left"
            line = "  ".join(filter(None, [f"{title} {done}/{total}", status, time_left]))
            print(line, file=sys.stderr, flush=True)

    return update


def _is_notebook() -> bool:
    return "ipykernel" in sys.modules
