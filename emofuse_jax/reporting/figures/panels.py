"""Draws the second picture of a clip: a panel for each further intermediate output of the model."""

from collections.abc import Sequence

import numpy as np

from emofuse_jax.reporting.figures import style
from emofuse_jax.reporting.figures.aux_figures import PANEL_DRAWERS, PANEL_SIZES, WIDTH_INCHES, Panel
from emofuse_jax.reporting.figures.display_specs import select_panels
from emofuse_jax.reporting.figures.matplotlib_types import Figure
from emofuse_jax.reporting.gallery_clip import GalleryClip


def explanation_picture(index: int, example: GalleryClip, marks: Sequence[str] = ()) -> style.Picture | None:
    """Draws the intermediate outputs of the model for one clip, each in its own panel.

    Args:
      index: number in the name of the picture.
      example: data of the clip: `clip_id`, and `aux`, the outputs by name, if there are any. Attention within
        the face crop also needs `faces` and `face_mask`; attention over time uses `seconds` if known.
      marks: warnings that are written into the picture.

    Returns:
      The picture `example_<index>_inside`: PNG bytes in the light and the dark theme (`light`, `dark`), the
      alternative text `alt`, and `width` and `height` in CSS pixels. None if there is no output to draw.

    Raises:
      ValueError: if an output does not have the number of axes that its panel draws, or Matplotlib is not
        installed.
      KeyError: if attention within the face crop is drawn, and `faces` or `face_mask` is missing.
    """
    panels, height = _arrange_panels(example)
    if not panels:
        return None

    def draw(figure: Figure, theme: style.Theme) -> None:
        for panel in panels:
            x, y = panel.left / WIDTH_INCHES, 1 - (panel.top + 0.06) / figure.get_size_inches()[1]
            title = panel.display.title
            figure.text(x, y, title[0].upper() + title[1:], va="top", size=9.5, weight="bold")
            PANEL_DRAWERS[panel.display.kind](figure, theme, panel)

    alt = f"Clip {example['clip_id']}: {'; '.join(_panel_text(panel) for panel in panels)}."
    name = f"example_{index}_inside"
    size = (WIDTH_INCHES, height + style.FOOTER_INCHES)
    return style.make_picture(name, alt, size, draw, marks=marks, layout=None, dpi=150)


def _arrange_panels(example: GalleryClip) -> tuple[list[Panel], float]:
    """Arranges the panels of a clip in rows from left to right.

    Returns `(panels, height)`: each panel with its values, its display (kind, title and labels), its size in
    inches, and `left` and `top`, the distances in inches of its upper left corner from that of the picture;
    and the total height in inches. The list is empty and the height 0 if there is nothing to draw.
    """
    panels: list[Panel] = []
    left, top, row_height = 0.0, 0.0, 0.0
    for display, value in select_panels(example, PANEL_DRAWERS):
        value = np.nan_to_num(np.atleast_1d(np.asarray(value, np.float64)))
        width, height = PANEL_SIZES[display.kind](value)
        if left + width > WIDTH_INCHES + 1e-6:
            left, top, row_height = 0.0, top + row_height, 0.0
        panels.append(Panel(display, value, example, left + 0.12, top, (width - 0.24, height)))
        left, row_height = left + width, max(row_height, height)
    return panels, top + row_height


def _panel_text(panel: Panel) -> str:
    """Returns the alternative text of a panel: its title, and its numbers if there are at most 16 of them."""
    if panel.value.size > 16:
        return panel.display.title
    return f"{panel.display.title}: {', '.join(f'{x:.2f}' for x in panel.value.ravel())}"
