"""Shows the progress of long work: a bar on a terminal, else a line from time to time."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(stderr=True)
LINE_INTERVAL_SECONDS = 10.0


@contextlib.contextmanager
def progress_bar(title: str, *, total: int | None = None, first: int = 0) -> Iterator[Callable[..., None]]:
    """Yields `update(done, total)`: a bar on a terminal, elsewhere a line every ten seconds and at the end.

    `update` also takes `status`, a text to show, and `seconds_left`, for the line.
    `total` may be unknown until the first update; `first` are done before the work begins.
    """
    last_print = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    columns += (TextColumn("{task.fields[status]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total, completed=first, status="")

        def update(done: int, total: int, *, status: str = "", seconds_left: float | None = None) -> None:
            nonlocal last_print
            bar.update(task, completed=done, total=total, status=status)
            now = time.monotonic()
            if not console.is_terminal and (now - last_print > LINE_INTERVAL_SECONDS or done == total):
                last_print = now
                time_left = "" if seconds_left is None else f"{seconds_left:.0f} s left"
                line = "  ".join(filter(None, [f"{title} {done}/{total}", status, time_left]))
                print(line, file=sys.stderr, flush=True)

        yield update
