"""Prints the progress of a training run, a table of parameters, and the FLOPs of a step."""

import contextlib
import time
from collections.abc import Iterator
from typing import Protocol

import jax

from emofuse_jax.types import Params
from emofuse_jax.utils.progress_bar import Update, progress_bar


class ReportProgress(Protocol):
    """Shows the step that is done, and scores."""

    def __call__(self, step: int, **scores: float) -> None:
        """Shows the number of finished steps since the start of the run (`step`) and scores by name."""


@contextlib.contextmanager
def show_progress(total_steps: int, batch_size: int, title: str, *, active: bool) -> Iterator[ReportProgress]:
    """Shows a progress bar or prints lines, with clips per second and scores, to stderr.

    Yields a function `report_progress(step, **scores)` that shows the progress: `step` is the number of
    finished steps since the start of the run, `scores` are numbers by name. It does nothing if `active` is
    False. The bar appears on the first call of this function, and the rate is counted from it, so without the
    steps before a resume; call it once after compilation.

    Args:
      total_steps: number of steps of the complete run.
      batch_size: number of clips per step.
      title: text before the bar.
      active: False shows nothing.
    """
    if not active:
        yield lambda step, **scores: None
        return
    with contextlib.ExitStack() as stack:
        first_report: list[tuple[int, float, Update]] = []

        def report_progress(step: int, **scores: float) -> None:
            now = time.monotonic()
            if not first_report:
                update = stack.enter_context(progress_bar(title, total=total_steps, first=step))
                first_report.append((step, now, update))
            first_step, first_time, update = first_report[0]
            rate = (step - first_step) * batch_size / max(now - first_time, 1e-9)
            texts = [f"{rate:.0f} clips/s", *(f"{name} {value:.3f}" for name, value in scores.items())]
            seconds_left = (total_steps - step) * batch_size / rate if rate else None
            update(step, total_steps, status="  ".join(texts), seconds_left=seconds_left)

        yield report_progress


def parameter_table(params: Params) -> str:
    """Returns a text table: the numbers of arrays and of parameters in each module, and in total.

    A module is named by the first two keys of its parameters in the tree, such as `audio/conv1`.
    """
    rows: dict[str, list[int]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = "/".join(str(key.key) for key in path[:2])
        rows.setdefault(name, []).append(leaf.size)
    rows["all"] = [size for sizes in rows.values() for size in sizes]
    width = max(map(len, rows))
    lines = [f"{'module':<{width}}  arrays    parameters"]
    lines += [f"{name:<{width}}  {len(sizes):>6}  {sum(sizes):>12,}" for name, sizes in rows.items()]
    return "\n".join(lines)


def compiled_flops(compiled: jax.stages.Compiled) -> float | None:
    """Returns the number of floating-point operations of a compiled step per device, as counted by XLA.

    Returns None if XLA does not report it.
    """
    cost = compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return cost.get("flops") if cost else None
