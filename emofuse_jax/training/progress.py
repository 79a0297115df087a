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
def show_progress(
    total_steps: int, first_step: int, batch_size: int, title: str, *, active: bool
) -> Iterator:
    """Yields `report_progress(step, **shown)`: a bar with clips/s and the time left, or a plain line every 10
    s.

    The rate counts from the first update: what a resumed run did before, and compilation, are not in it.
    """
    if not active:
        yield lambda step, **shown: None
        return
    first_update, last_print = [], [time.monotonic()]
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[shown]}"))
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    ) as progress_bar:
        task = progress_bar.add_task(title, total=total_steps, completed=first_step, shown="")

        def report_progress(step: int, **shown: float) -> None:
            now_seconds = time.monotonic()
            first_update[:] = first_update or (step, now_seconds)
            clips_per_second = (
                (step - first_update[0]) * batch_size / max(now_seconds - first_update[1], 1e-9)
            )
            status_text = "  ".join(
                [f"{clips_per_second:.0f} clips/s", *(f"{name} {value:.3f}" for name, value in shown.items())]
            )
            progress_bar.update(task, completed=step, shown=status_text)
            if not console.is_terminal and (now_seconds - last_print[0] > 10 or step == total_steps):
                last_print[0] = now_seconds
                time_left = (
                    f"  {(total_steps - step) * batch_size / clips_per_second:.0f} s left"
                    if clips_per_second
                    else ""
                )
                print(f"{title} {step}/{total_steps}  {status_text}{time_left}", file=sys.stderr, flush=True)

        yield report_progress


def parameter_table(params: Params) -> str:
    """Parameters by the first two levels of the tree, and their sum."""
    table = Table("module", "arrays", "parameters", title="parameters")
    sizes_by_module: dict[str, list[int]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = "/".join(str(key.key) for key in path[:2])
        sizes_by_module.setdefault(name, []).append(leaf.size)
    for name, sizes in sizes_by_module.items():
        table.add_row(name, str(len(sizes)), f"{sum(sizes):,}")
    total = sum(sum(sizes) for sizes in sizes_by_module.values())
    table.add_row("all", str(sum(map(len, sizes_by_module.values()))), f"{total:,}")
    wide_console = Console(width=100)
    with wide_console.capture() as capture:
        wide_console.print(table)
    return capture.get()


def compiled_flops(compiled) -> float | None:
    """Floating-point operations of one compiled step as XLA counts them; None where it does not tell."""
    cost = compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return cost.get("flops") if cost else None
