"""The second picture of a clip: everything else that the network tells about it, a panel for each name."""

from collections.abc import Mapping, Sequence

import numpy as np

from emofuse_jax.reporting.figures import style
from emofuse_jax.reporting.figures.aux_figures import DRAWERS, SIZES, WIDTH, Panel
from emofuse_jax.reporting.figures.display_specs import to_draw


def explain_picture(index: int, example: Mapping, marks: Sequence[str] = ()) -> style.Picture | None:
    """The picture ``example_<index>_inside``; None where there is nothing to show."""
    panels, height = _arrange(example)
    if not panels:
        return None

    def draw(figure, theme):
        for panel in panels:
            at = (panel.left / WIDTH, 1 - (panel.top + 0.06) / figure.get_size_inches()[1])
            title = panel.shown.title
            figure.text(*at, title[0].upper() + title[1:], va="top", size=9.5, weight="bold")
            DRAWERS[panel.shown.kind](figure, theme, panel)

    alt = f"Clip {example['clip_id']}: {'; '.join(_told(panel) for panel in panels)}."
    name = f"example_{index}_inside"
    size = (WIDTH, height + style.FOOTER)
    return style.make_picture(name, alt, size, draw, marks=marks, layout=None, dpi=150)


def _arrange(example: Mapping) -> tuple[list[Panel], float]:
    """Panels from left to right in rows, and the height of all; the order of the table is kept."""
    panels, left, top, row = [], 0.0, 0.0, 0.0
    for shown, value in to_draw(example, DRAWERS):
        value = np.nan_to_num(np.atleast_1d(np.asarray(value, np.float64)))
        width, height = SIZES[shown.kind](value)
        if left + width > WIDTH + 1e-6:
            left, top, row = 0.0, top + row, 0.0
        panels.append(Panel(shown, value, example, left + 0.12, top, (width - 0.24, height)))
        left, row = left + width, max(row, height)
    return panels, top + row


def _told(panel: Panel) -> str:
    """A panel for those who don't see it: its title, and its numbers where they are few."""
    if panel.value.size > 16:
        return panel.shown.title
    return f"{panel.shown.title}: {', '.join(f'{x:.2f}' for x in panel.value.ravel())}"
