"""How the report's pictures look: two themes, one way from a drawing function to PNG bytes.

Colours are those of Okabe & Ito, "Color Universal Design" (2008), told apart by colour-blind readers.
"""

import base64
import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import Any

DOTS_PER_INCH = 200
"""Pixels per inch of a PNG; the page shows an inch as 100 CSS pixels, so twice as sharp as it needs."""
FOOTER_INCHES = 0.22
"""Inches kept free at the bottom for the marks."""


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours of a picture, the same as those of the page around it."""

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

DrawFunction = Callable[[Any, Theme], None]
"""Draws into a matplotlib Figure in the colours of a theme."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture of the report in both themes, with the text for those who don't see it."""

    name: str
    """File name without suffix."""
    alt: str
    width: int
    """CSS pixels at full size."""
    height: int
    light: bytes
    dark: bytes

    @property
    def light_uri(self) -> str:
        """The light picture as a data URI."""
        return _data_uri(self.light)

    @property
    def dark_uri(self) -> str:
        """The dark picture as a data URI."""
        return _data_uri(self.dark)


def make_picture(
    name: str,
    alt: str,
    size: tuple[float, float],
    draw: DrawFunction,
    *,
    marks: Sequence[str] = (),
    layout: str | None = "constrained",
    dpi: int = DOTS_PER_INCH,
) -> Picture:
    """Draws in both themes; `size` is width and height in inches, `layout` as matplotlib's `Figure`."""
    light, dark = (_render_png(size, draw, theme, marks, layout, dpi) for theme in (LIGHT, DARK))
    return Picture(name, alt, round(100 * size[0]), round(100 * size[1]), light, dark)


def modality_colour(theme: Theme, name: str) -> str:
    """Colour of a modality or of a network: sound and voice share one, and video and face."""
    colours = {"both": theme.both, "audio": theme.audio, "voice": theme.audio}
    return colours.get(name, theme.video if name in ("video", "face") else theme.muted)


def hide_axes(axes) -> None:
    """Takes ticks and frame away."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def draw_missing_face(axes, theme: Theme, box: tuple[float, float, float, float]) -> None:
    """Where a face is missing; `box` is left, right, bottom, top."""
    x0, x1, y0, y1 = box
    axes.fill([x0, x1, x1, x0], [y0, y0, y1, y1], color=theme.grid, lw=0)
    axes.plot([x0, x1], [y0, y1], [x0, x1], [y1, y0], color=theme.warning, lw=1.6)


def _render_png(
    size, draw: DrawFunction, theme: Theme, marks: Sequence[str], layout: str | None, dpi: int
) -> bytes:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_rc_settings(theme)):
        figure = Figure(figsize=size, dpi=dpi, layout=layout)
        FigureCanvasAgg(figure)
        if layout == "constrained":
            footer = FOOTER_INCHES / size[1] if marks else 0.0
            figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06, rect=(0, footer, 1, 1 - footer))
        draw(figure, theme)
        _draw_marks(figure, theme, marks)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": "emofuse"})
    return buffer.getvalue()


def _draw_marks(figure, theme: Theme, marks: Sequence[str]) -> None:
    """Writes the marks into the picture: a picture travels without its page."""
    stamp = " · ".join(mark.split(":")[0].strip() for mark in marks)
    stamp = stamp if len(stamp) <= 70 else stamp[:69] + "…"
    height = figure.get_size_inches()[1]
    figure.text(
        0.99, 0.05 / height, stamp, ha="right", va="bottom", size=8, weight="bold", color=theme.warning
    )


def _rc_settings(theme: Theme) -> dict[str, Any]:
    return {
        "text.usetex": False,
        "text.parse_math": False,  # a dollar in a name is a dollar
        "font.family": "DejaVu Sans",  # ships with matplotlib: the same picture everywhere
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
