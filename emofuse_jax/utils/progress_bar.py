"""A progress bar for work that reports (done, total)."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yields `update(done, total)`: a bar on a terminal, elsewhere a line every ten seconds."""
    console, last_print = Console(stderr=True), [time.monotonic()]
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)

        def update(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            if not console.is_terminal and (time.monotonic() - last_print[0] > 10 or done == total):
                last_print[0] = time.monotonic()
                print(f"{title} {done}/{total}", file=sys.stderr, flush=True)

        yield update
