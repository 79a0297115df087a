"""The live line of a training run, the parameter table, and the compiled step's arithmetic."""

import contextlib
import sys
import time
from collections.abc import Iterator

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from emofuse_jax.types import Params

console = Console(stderr=True)


@contextlib.contextmanager
def live_line(total: int, start: int, batch_size: int, title: str, *, active: bool) -> Iterator:
    """Yields `update(step, **shown)`: a bar with clips/s and the time left, or a plain line every 10 s.

    The rate counts from the first update: what a resumed run did before, and compilation, are not in it.
    """
    if not active:
        yield lambda step, **shown: None
        return
    began, last = [], [time.monotonic()]
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[shown]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total, completed=start, shown="")

        def update(step: int, **shown: float) -> None:
            now = time.monotonic()
            began[:] = began or (step, now)
            rate = (step - began[0]) * batch_size / max(now - began[1], 1e-9)
            text = "  ".join([f"{rate:.0f} clips/s", *(f"{k} {v:.3f}" for k, v in shown.items())])
            bar.update(task, completed=step, shown=text)
            if not console.is_terminal and (now - last[0] > 10 or step == total):
                last[0] = now
                left = f"  {(total - step) * batch_size / rate:.0f} s left" if rate else ""
                print(f"{title} {step}/{total}  {text}{left}", file=sys.stderr, flush=True)

        yield update


def parameter_table(params: Params) -> str:
    """Parameters by the first two levels of the tree, and their sum."""
    table = Table("module", "arrays", "parameters", title="parameters")
    groups: dict[str, list[int]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = "/".join(str(key.key) for key in path[:2])
        groups.setdefault(name, []).append(leaf.size)
    for name, sizes in groups.items():
        table.add_row(name, str(len(sizes)), f"{sum(sizes):,}")
    total = sum(sum(sizes) for sizes in groups.values())
    table.add_row("all", str(sum(map(len, groups.values()))), f"{total:,}")
    wide = Console(width=100)
    with wide.capture() as capture:
        wide.print(table)
    return capture.get()


def compiled_flops(compiled) -> float | None:
    """Floating-point operations of one compiled step as XLA counts them; None where it does not tell."""
    cost = compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return cost.get("flops") if cost else None
