"""The second picture of a clip: everything else that the network tells about it, a panel for each name."""

from collections.abc import Mapping, Sequence

import numpy as np

from emofuse_jax.reporting.figures import style
from emofuse_jax.reporting.figures.aux_figures import PANEL_DRAWERS, PANEL_SIZES, WIDTH_INCHES, Panel
from emofuse_jax.reporting.figures.display_specs import select_panels


def explanation_picture(index: int, example: Mapping, marks: Sequence[str] = ()) -> style.Picture | None:
    """The picture ``example_<index>_inside``; None where there is nothing to show."""
    panels, height = _arrange_panels(example)
    if not panels:
        return None

    def draw(figure, theme):
        for panel in panels:
            position = (panel.left / WIDTH_INCHES, 1 - (panel.top + 0.06) / figure.get_size_inches()[1])
            title = panel.display.title
            figure.text(*position, title[0].upper() + title[1:], va="top", size=9.5, weight="bold")
            PANEL_DRAWERS[panel.display.kind](figure, theme, panel)

    alt = f"Clip {example['clip_id']}: {'; '.join(_panel_text(panel) for panel in panels)}."
    name = f"example_{index}_inside"
    size = (WIDTH_INCHES, height + style.FOOTER_INCHES)
    return style.make_picture(name, alt, size, draw, marks=marks, layout=None, dpi=150)


def _arrange_panels(example: Mapping) -> tuple[list[Panel], float]:
    """Panels from left to right in rows, and the height of all; the order of the table is kept."""
    panels, left, top, row_height = [], 0.0, 0.0, 0.0
    for display, value in select_panels(example, PANEL_DRAWERS):
        value = np.nan_to_num(np.atleast_1d(np.asarray(value, np.float64)))
        width, height = PANEL_SIZES[display.kind](value)
        if left + width > WIDTH_INCHES + 1e-6:
            left, top, row_height = 0.0, top + row_height, 0.0
        panels.append(Panel(display, value, example, left + 0.12, top, (width - 0.24, height)))
        left, row_height = left + width, max(row_height, height)
    return panels, top + row_height


def _panel_text(panel: Panel) -> str:
    """A panel for those who don't see it: its title, and its numbers where they are few."""
    if panel.value.size > 16:
        return panel.display.title
    return f"{panel.display.title}: {', '.join(f'{x:.2f}' for x in panel.value.ravel())}"
