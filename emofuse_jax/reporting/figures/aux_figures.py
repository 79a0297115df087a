"""How each kind of number of a clip is drawn into its panel (reporting/figures/display_specs.py names the
kinds)."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from emofuse_jax.reporting import text
from emofuse_jax.reporting.figures import attention, cells, style
from emofuse_jax.reporting.figures.display_specs import Shown
from emofuse_jax.scoring import attention_weights

WIDTH = 9.6
"""Inches of the picture."""
TITLE = 0.36
"""Inches of a panel's title."""
PLACES_SHOWN = 8
ANNOTATED = 8
"""Most rows and columns of a matrix whose numbers are written into it."""


@dataclasses.dataclass(frozen=True)
class Panel:
    """A name, its numbers, and its place in inches from the picture's upper left corner."""

    shown: Shown
    value: np.ndarray
    example: Mapping
    left: float
    top: float
    size: tuple[float, float]


def _axes(figure, panel: Panel, *, left: float, bottom: float, right: float = 0.05):
    """Axes inside a panel, margins in inches."""
    w, h = figure.get_size_inches()
    width, height = panel.size[0] - left - right, panel.size[1] - TITLE - bottom
    low = h - panel.top - TITLE - height
    return figure.add_axes(((panel.left + left) / w, low / h, width / w, height / h))


def _shares(figure, theme, panel: Panel) -> None:
    """Voice and face of the whole clip and of its parts [n 2], as bars that fill the row."""
    axes = _axes(figure, panel, left=0.95, bottom=0.12)
    names = ["whole clip", *(f"part {i}" for i in range(1, len(panel.value)))]
    look = {"va": "center", "size": 8}
    for row, (voice, face) in enumerate(panel.value):
        total = voice + face
        if total <= 0:
            axes.text(0.5, row, "nothing in it", ha="center", color=theme.muted, **look)
            continue
        axes.barh(row, voice / total, 0.7, color=theme.voice)
        axes.barh(row, face / total, 0.7, left=voice / total, color=theme.face)
        for x, side, share, name in ((0.02, "left", voice, "voice"), (0.98, "right", face, "face")):
            if share / total > 0.25:
                words = f"{name} {text.percent(share / total, 0)} %"
                axes.text(x, row, words, ha=side, color=theme.page, weight="bold", **look)
    axes.set(xlim=(0, 1), ylim=(len(panel.value) - 0.5, -0.5), xticks=[])
    axes.set_yticks(range(len(names)), names, size=8.5, color=theme.ink)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _course(figure, theme, panel: Panel) -> None:
    """Attention over positions, [l] or one row a token [n l] (a map [.. l f] is averaged over frequency)."""
    axes = _axes(figure, panel, left=0.5, bottom=0.42)
    words, seconds = panel.shown.columns, float(panel.example.get("seconds") or 0)
    rows = course_rows(panel.value, words in ("seconds", "step"))
    if rows is None:
        _nothing(axes, theme)
        return
    if words == "seconds" and seconds:
        edges = np.linspace(0, seconds, rows.shape[1] + 1)
    else:  # counted from 1
        edges, words = np.arange(rows.shape[1] + 1) + 0.5, "step" if words == "seconds" else words
    colour = style.colour_of(theme, panel.shown.colour)
    axes.stairs(rows.mean(0), edges, fill=True, color=colour)
    for row in rows if len(rows) > 1 else ():
        axes.plot((edges[1:] + edges[:-1]) / 2, row, color=theme.muted, lw=0.8)
    attention.draw_even(axes, theme, float(rows.max()))
    axes.set(xlim=(edges[0], edges[-1]))
    axes.set_xlabel(words, size=8.5)
    axes.tick_params(axis="x", labelsize=8)
    if words != "seconds":
        axes.locator_params(axis="x", integer=True, nbins=8)


def course_rows(value: Float[np.ndarray, "..."], padded: bool) -> Float[np.ndarray, "n l"] | None:
    """Attention relative to even, a row a token; without the padding at its end where `padded`."""
    value = value.mean(-1) if value.ndim == 3 else value
    rows = np.atleast_2d(value)
    if padded:
        rows = rows[:, : attention_weights.attended(rows.sum(0))]
    relative = [attention_weights.relative_attention(row) for row in rows]
    relative = [row for row in relative if row is not None]
    return np.stack(relative) if relative else None


def _pairs(figure, theme, panel: Panel) -> None:
    """Rows of weights over columns, [n m], each row of sum 1."""
    if not panel.value.any():
        _nothing(_axes(figure, panel, left=0.62, bottom=0.55), theme)
        return
    top = max(2 / panel.value.shape[1], float(panel.value.max()))
    colours = cells.sequential(theme, style.colour_of(theme, panel.shown.colour))
    _matrix(figure, theme, panel, colours, (0.0, top), lambda x: text.percent(x, 0))


def _signed(figure, theme, panel: Panel) -> None:
    """A matrix of numbers from -1 to 1."""
    _matrix(
        figure, theme, panel, cells.diverging(theme), (-1.0, 1.0), lambda x: f"{round(x, 1) + 0.0:.1f}"
    )  # no -0.0


def _matrix(figure, theme, panel: Panel, colours, limits, words) -> None:
    axes = _axes(figure, panel, left=0.62, bottom=0.55)
    rows, columns = panel.value.shape
    axes.imshow(panel.value, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto")
    if max(rows, columns) <= ANNOTATED:
        cells.write_cells(axes, panel.value, colours, limits, words, size=7.5)
    for axis, count in (("x", columns), ("y", rows)):
        step = -(-count // 8)
        getattr(axes, f"set_{axis}ticks")(range(0, count, step), range(1, count + 1, step))
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(panel.shown.columns, size=8.5)
    axes.set_ylabel(panel.shown.rows, size=8.5)


def _places(figure, theme, panel: Panel) -> None:
    """Attention over the face crop of each part, [n y x]: the face is lit where it is above even."""
    maps = panel.value if panel.value.ndim == 3 else panel.value[None]
    parts = np.linspace(0, len(maps) - 1, min(len(maps), PLACES_SHOWN)).round().astype(int).tolist()
    side = panel.size[1] - TITLE - 0.2
    axes = _axes(figure, panel, left=0.0, bottom=0.2, right=panel.size[0] - side * len(parts))
    for place, part in enumerate(parts):
        box = (place + 0.02, place + 0.98, 0.0, 1.0)
        image = lit_face(panel.example, maps, part)
        if image is None:
            style.cross(axes, theme, box)
        else:
            axes.imshow(image, extent=box, aspect="auto")
    axes.set(xlim=(0, len(parts)), ylim=(0, 1), yticks=[])
    axes.set_xticks(np.arange(len(parts)) + 0.5, [f"part {part + 1}" for part in parts], size=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def lit_face(
    example: Mapping, maps: Float[np.ndarray, "n y x"], part: int
) -> Float[np.ndarray, "h w 3"] | None:
    """The middle face of a part, dark where attention is low; None where the part has no face."""
    count, mask = len(maps), np.asarray(example["face_mask"], bool)
    frames = np.flatnonzero(mask & (np.arange(len(mask)) * count // len(mask) == part))
    relative = attention_weights.relative_attention(maps[part])
    if not len(frames) or relative is None:
        return None
    face = np.asarray(example["faces"][frames[len(frames) // 2]], np.float64) / 255  # h w 3
    light = _enlarge(relative / relative.max(), face.shape[:2])
    return face * (0.25 + 0.75 * light[..., None])


def _enlarge(values: Float[np.ndarray, "y x"], shape: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    """Bilinear, with the centres of the outer cells repeated to the edge."""
    for axis, size in enumerate(shape):
        at = (np.arange(size) + 0.5) / size * values.shape[axis] - 0.5
        cells = np.arange(values.shape[axis])
        values = np.apply_along_axis(lambda line: np.interp(at, cells, line), axis, values)  # noqa: B023
    return values


def _ranked(figure, theme, panel: Panel) -> None:
    """Attention over channels, [.. d], averaged over the parts and sorted."""
    axes = _axes(figure, panel, left=0.5, bottom=0.42)
    relative = attention_weights.relative_attention(panel.value.reshape(-1, panel.value.shape[-1]).mean(0))
    if relative is None:
        _nothing(axes, theme)
        return
    course = np.sort(relative)[::-1]
    axes.stairs(
        course, np.arange(len(course) + 1) + 0.5, fill=True, color=style.colour_of(theme, panel.shown.colour)
    )
    attention.draw_even(axes, theme, float(course.max()))
    axes.set(xlim=(0.5, len(course) + 0.5))
    axes.set_xlabel(panel.shown.columns, size=8.5)
    axes.tick_params(axis="x", labelsize=8)


def _cosine(figure, theme, panel: Panel) -> None:
    """A number from -1 to 1 on a line."""
    axes = _axes(figure, panel, left=0.6, bottom=0.3, right=0.6)
    value = float(panel.value.mean())
    axes.axhline(0, color=theme.grid, lw=5, solid_capstyle="round")
    axes.plot([0, value], [0, 0], color=theme.both, lw=5, solid_capstyle="round")
    axes.plot([value], [0], "o", color=theme.both, ms=11)
    axes.text(value, 0.45, f"{value:.2f}", ha="center", va="bottom", size=10, weight="bold")
    axes.set(xlim=(-1, 1), ylim=(-0.6, 1.3), yticks=[])
    axes.set_xticks([-1, 0, 1], ["−1 opposite", "0", "1 the same"], size=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _nothing(axes, theme) -> None:
    axes.text(
        0.5, 0.5, "nothing to look at", ha="center", va="center", color=theme.muted, transform=axes.transAxes
    )
    style.bare(axes)


DRAWERS = {
    "shares": _shares,
    "course": _course,
    "pairs": _pairs,
    "signed": _signed,
    "places": _places,
    "ranked": _ranked,
    "cosine": _cosine,
}
"""Kinds of panels; each draws into a figure, in a theme."""


def _square(value: np.ndarray) -> tuple[float, float]:
    return (WIDTH / 4, 2.2) if max(value.shape) <= 4 else (WIDTH / 3, 2.8)


SIZES = {
    "shares": lambda value: (WIDTH / 2, TITLE + 0.2 + 0.3 * len(value)),
    "course": lambda value: (WIDTH / 2, 1.75),
    "pairs": _square,
    "signed": _square,
    "places": lambda value: (WIDTH, 1.7),
    "ranked": lambda value: (WIDTH / 2, 1.75),
    "cosine": lambda value: (WIDTH / 2, 1.35),
}
"""Width and height of a panel in inches."""
