"""Defines the style of all pictures: a light and a dark theme, and the conversion of a drawing to PNG.

The colours are those of Okabe & Ito, "Color Universal Design" (2008), which
colour-blind readers can distinguish.
"""

import base64
import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import Any, Literal

from emofuse_jax.reporting.figures.matplotlib_types import Axes, Figure, RcKey
from emofuse_jax.utils.optional import require_package

DOTS_PER_INCH = 200
"""Pixels per inch of a PNG. The page shows an inch as 100 CSS pixels: two pixels each, for sharp screens."""
FOOTER_INCHES = 0.22
"""Height in inches of the free space at the bottom for the marks."""


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours of a picture as hexadecimal texts such as `#ffffff`; they match the colours of the page."""

    name: str
    background: str
    foreground: str
    muted: str
    grid: str
    both: str
    audio: str
    video: str
    warning: str


LIGHT = Theme("light", "#ffffff", "#1b1f24", "#59626c", "#dde1e6", "#0072b2", "#d55e00", "#00835f", "#b3261e")
DARK = Theme("dark", "#14171b", "#e8eaed", "#a5adb6", "#343a42", "#56b4e9", "#f0a030", "#2fc59b", "#ff8a80")

DrawFunction = Callable[[Figure, Theme], None]
"""Draws into a figure in the colours of a theme."""
Layout = Literal["constrained"] | None
"""Layout engine of a figure: `constrained` makes room for labels, None leaves all positions as they are."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture of the report in both themes, with its alternative text for screen readers."""

    name: str
    """File name without extension."""
    alt: str
    """Alternative text."""
    width: int
    """Full width in CSS pixels."""
    height: int
    """Full height in CSS pixels."""
    light: bytes
    """PNG in the light theme."""
    dark: bytes
    """PNG in the dark theme."""

    @property
    def light_uri(self) -> str:
        """PNG in the light theme as a data URI, `data:image/png;base64,...`."""
        return _data_uri(self.light)

    @property
    def dark_uri(self) -> str:
        """PNG in the dark theme as a data URI, `data:image/png;base64,...`."""
        return _data_uri(self.dark)


def make_picture(
    name: str,
    alt: str,
    size: tuple[float, float],
    draw: DrawFunction,
    *,
    marks: Sequence[str] = (),
    layout: Layout = "constrained",
    dpi: int = DOTS_PER_INCH,
) -> Picture:
    """Draws a picture in the light and the dark theme.

    Args:
      name: file name without extension.
      alt: alternative text.
      size: width and height in inches.
      draw: is called as `draw(figure, theme)` for each theme; its errors pass through. A theme has the `name`
        `light` or `dark`, and the colours (such as `#ffffff`) `background`, `foreground`, `muted`, `grid`,
        `both`, `audio`, `video` and `warning`.
      marks: warnings; the part before the colon is written into the lower right corner.
      layout: layout engine of the figure: `constrained` makes room for labels, None leaves all positions as
        they are.
      dpi: pixels per inch of the PNG, by default 200.

    Returns:
      The picture: `name`, `alt`, `light` and `dark` (PNG bytes in each theme), and `width` and `height` in
      CSS pixels, 100 per inch.

    Raises:
      ValueError: if Matplotlib is not installed.
    """
    light, dark = (_render_png(size, draw, theme, marks, layout, dpi) for theme in (LIGHT, DARK))
    return Picture(name, alt, round(100 * size[0]), round(100 * size[1]), light, dark)


def modality_colour(theme: Theme, name: str) -> str:
    """Returns the colour of a modality or network in a theme, as a text such as `#0072b2`.

    `audio` and `voice` have the same colour, as have `video` and `face`; `both` has its own; an unknown name
    gets the muted colour. `theme` is LIGHT or DARK.
    """
    colours = {"both": theme.both, "audio": theme.audio, "voice": theme.audio}
    return colours.get(name, theme.video if name in ("video", "face") else theme.muted)


def hide_axes(axes: Axes) -> None:
    """Removes the ticks, the tick labels and the frame of the axes."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def draw_missing_face(axes: Axes, theme: Theme, box: tuple[float, float, float, float]) -> None:
    """Draws a crossed box for a missing face; `box` is (left, right, bottom, top) in data coordinates.

    `theme` is LIGHT or DARK.
    """
    x0, x1, y0, y1 = box
    axes.fill([x0, x1, x1, x0], [y0, y0, y1, y1], color=theme.grid, lw=0)
    axes.plot([x0, x1], [y0, y1], [x0, x1], [y1, y0], color=theme.warning, lw=1.6)


def _render_png(
    size: tuple[float, float],
    draw: DrawFunction,
    theme: Theme,
    marks: Sequence[str],
    layout: Layout,
    dpi: int,
) -> bytes:
    matplotlib = require_package("matplotlib", "report", "a figure")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with matplotlib.rc_context(_rc_settings(theme)):
        engine = None
        if layout == "constrained":
            footer = FOOTER_INCHES / size[1] if marks else 0.0
            engine = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, rect=(0, footer, 1, 1 - footer))
        figure = Figure(figsize=size, dpi=dpi, layout=engine)
        FigureCanvasAgg(figure)
        draw(figure, theme)
        _draw_marks(figure, theme, marks)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": "emofuse"})
    return buffer.getvalue()


def _draw_marks(figure: Figure, theme: Theme, marks: Sequence[str]) -> None:
    """Writes the marks into the lower right corner, because a picture may be copied without its page.

    The text is the part before the colon of each mark, at most 70 characters in all; a longer text is cut. It
    has the colour `theme.warning`.
    """
    stamp = " · ".join(mark.split(":")[0].strip() for mark in marks)
    stamp = stamp if len(stamp) <= 70 else stamp[:69] + "…"
    height = figure.get_size_inches()[1]
    figure.text(
        0.99, 0.05 / height, stamp, ha="right", va="bottom", size=8, weight="bold", color=theme.warning
    )


def _rc_settings(theme: Theme) -> dict[RcKey, Any]:
    return {
        "text.usetex": False,
        "text.parse_math": False,  # do not read a dollar sign in a name as mathematics
        "font.family": "DejaVu Sans",  # included in matplotlib: pictures look the same everywhere
        "font.size": 9.5,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 8,
        "axes.labelcolor": theme.muted,
        "axes.edgecolor": theme.grid,
        "axes.facecolor": theme.background,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.facecolor": theme.background,
        "savefig.facecolor": theme.background,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "legend.handlelength": 1.4,
        "text.color": theme.foreground,
        "xtick.color": theme.grid,
        "ytick.color": theme.grid,
        "xtick.labelcolor": theme.muted,
        "ytick.labelcolor": theme.muted,
    }


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
