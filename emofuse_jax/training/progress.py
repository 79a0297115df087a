"""The live line of a training run, the parameter table, and the compiled step's arithmetic."""

import contextlib
import time
from collections.abc import Callable, Iterator

import jax
from rich.console import Console
from rich.table import Table

from emofuse_jax.types import Params
from emofuse_jax.utils.progress_bar import progress_bar


@contextlib.contextmanager
def show_progress(
    total_steps: int, first_step: int, batch_size: int, title: str, *, active: bool
) -> Iterator[Callable]:
    """Yields `report_progress(step, **scores)`: a bar, or lines, with clips/s and scores.

    The rate counts from the first update: neither the steps before a resume nor compilation are in it.
    """
    if not active:
        yield lambda step, **scores: None
        return
    first_update = []
    with progress_bar(title, total=total_steps, first=first_step) as update:

        def report_progress(step: int, **scores: float) -> None:
            now = time.monotonic()
            first_update[:] = first_update or (step, now)
            rate = (step - first_update[0]) * batch_size / max(now - first_update[1], 1e-9)
            texts = [f"{rate:.0f} clips/s", *(f"{name} {value:.3f}" for name, value in scores.items())]
            seconds_left = (total_steps - step) * batch_size / rate if rate else None
            update(step, total_steps, status="  ".join(texts), seconds_left=seconds_left)

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
