"""Matrices as coloured cells with their numbers in them."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float


def sequential_colormap(theme, colour: str):
    """From almost the page to `colour`."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("sequential", [_pale_background(theme), colour])


def diverging_colormap(theme):
    """The voice's colour below zero, that of both above, almost the page between."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("diverging", [theme.audio, _pale_background(theme), theme.both])


def write_cells(
    axes,
    matrix: Float[np.ndarray, "n m"],
    colormap,
    limits: tuple[float, float],
    format_value: Callable[[float], str],
    *,
    font_size: float,
    nan_colour: str = "#888888",
) -> None:
    """Each number in its cell, in black or white; what is not finite has no cell and `nan_colour`."""
    low, high = limits
    for (row, column), value in np.ndenumerate(matrix):
        fraction = (value - low) / max(high - low, 1e-9)
        text_colour = contrasting_colour(colormap(fraction)) if np.isfinite(fraction) else nan_colour
        axes.text(
            column, row, format_value(value), ha="center", va="center", size=font_size, color=text_colour
        )


def contrasting_colour(colour) -> str:
    """White where it contrasts enough by WCAG 2's relative luminance, else black."""
    linear = np.where(np.array(colour[:3]) <= 0.04045, np.array(colour[:3]) / 12.92, 0)
    linear = np.where(linear > 0, linear, ((np.array(colour[:3]) + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "#ffffff" if 1.05 / (luminance + 0.05) >= 3.5 else "#000000"


def _pale_background(theme) -> str:
    return "#eef3f7" if theme.name == "light" else "#20262c"
