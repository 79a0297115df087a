"""Draws matrices as coloured cells with numbers in them."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from emofuse_jax.reporting.figures.matplotlib_types import Axes, Colormap
from emofuse_jax.reporting.figures.style import Theme


def sequential_colormap(theme: Theme, colour: str) -> Colormap:
    """Returns a Matplotlib colormap from a pale shade of the page's background to `colour`.

    `theme` is `style.LIGHT` or `style.DARK` and determines the background. `colour` is a colour such as
    `#0072b2`. Raises ValueError if it is not, and ModuleNotFoundError if Matplotlib is not installed.
    """
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("sequential", [_pale_background(theme), colour])


def diverging_colormap(theme: Theme) -> Colormap:
    """Returns a Matplotlib colormap from `theme.audio` over a pale background to `theme.both`.

    `theme` is `style.LIGHT` or `style.DARK`. Raises ModuleNotFoundError if Matplotlib is not installed.
    """
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("diverging", [theme.audio, _pale_background(theme), theme.both])


def write_cells(
    axes: Axes,
    matrix: Float[np.ndarray, "n m"],
    colormap: Colormap,
    limits: tuple[float, float],
    format_value: Callable[[float], str],
    *,
    font_size: float,
    nan_colour: str = "#888888",
) -> None:
    """Writes each number of a matrix into its cell, in black or white, depending on the cell's colour.

    Args:
      axes: Matplotlib axes that show the matrix as an image.
      matrix: the numbers.
      colormap: colormap of the image.
      limits: values of the lower and upper end of the colormap.
      format_value: converts a number to text.
      font_size: in points.
      nan_colour: text colour of numbers that are not finite.
    """
    low, high = limits
    for (row, column), value in np.ndenumerate(matrix):
        fraction = (value - low) / max(high - low, 1e-9)
        text_colour = contrasting_colour(colormap(fraction)) if np.isfinite(fraction) else nan_colour
        axes.text(
            column, row, format_value(value), ha="center", va="center", size=font_size, color=text_colour
        )


def contrasting_colour(colour: tuple[float, ...] | np.ndarray) -> str:
    """Returns the text colour for a background, `#ffffff` or `#000000`.

    It is white if the WCAG 2 contrast of white text is at least 3.5, else black. `colour` is the background
    as red, green and blue from 0 to 1; further numbers, such as alpha, are ignored.
    """
    linear = np.where(np.array(colour[:3]) <= 0.04045, np.array(colour[:3]) / 12.92, 0)
    linear = np.where(linear > 0, linear, ((np.array(colour[:3]) + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "#ffffff" if 1.05 / (luminance + 0.05) >= 3.5 else "#000000"


def _pale_background(theme: Theme) -> str:
    return "#eef3f7" if theme.name == "light" else "#20262c"
