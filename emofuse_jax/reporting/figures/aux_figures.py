"""Draws the intermediate outputs of a model for one clip, each kind in its own way.

reporting/figures/display_specs.py assigns a kind to each output.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from emofuse_jax.reporting import text
from emofuse_jax.reporting.figures import attention, cells, style
from emofuse_jax.reporting.figures.display_specs import DisplaySpec
from emofuse_jax.reporting.figures.matplotlib_types import Axes, Colormap, Figure
from emofuse_jax.reporting.gallery_clip import GalleryClip
from emofuse_jax.scoring import attention_weights

WIDTH_INCHES = 9.6
"""Width of the picture in inches."""
TITLE_INCHES = 0.36
"""Height of a panel's title in inches."""
MAX_FACES = 8
MAX_ANNOTATED_SIDE = 8
"""Largest number of rows or columns of a matrix whose numbers are written into its cells."""


@dataclasses.dataclass(frozen=True)
class Panel:
    """One panel of a picture: an output of the model for a clip, how to draw it, and its position in inches.

    `display` is the kind of drawing, the title and the labels; `value` has the numbers. `left` and `top` are
    the distances of its upper left corner from that of the picture; `size` is its width and height.
    """

    display: DisplaySpec
    value: np.ndarray
    example: GalleryClip
    left: float
    top: float
    size: tuple[float, float]


def _panel_axes(figure: Figure, panel: Panel, *, left: float, bottom: float, right: float = 0.05) -> Axes:
    """Adds axes inside a panel and returns them.

    `panel` has `left` and `top`, the distances of its upper left corner from that of the picture, and `size`,
    its width and height, in inches. `left`, `bottom` and `right` are margins inside it, also in inches; above
    the axes, 0.36 inches (TITLE_INCHES) remain for the title.
    """
    w, h = figure.get_size_inches()
    width, height = panel.size[0] - left - right, panel.size[1] - TITLE_INCHES - bottom
    bottom_inches = h - panel.top - TITLE_INCHES - height
    return figure.add_axes(((panel.left + left) / w, bottom_inches / h, width / w, height / h))


def _draw_modality_weights(figure: Figure, theme: style.Theme, panel: Panel) -> None:
    """Draws the weights of audio and video, `panel.value` [n 2], as bars: the complete clip, then its parts.

    Each row is divided by its sum; a row whose sum is 0 gets the text "no audio or video".
    """
    axes = _panel_axes(figure, panel, left=0.95, bottom=0.12)
    names = ["complete clip", *(f"part {i}" for i in range(1, len(panel.value)))]
    text_kwargs: dict[str, Any] = {"va": "center", "size": 8}
    for row, (audio_weight, video_weight) in enumerate(panel.value):
        total = audio_weight + video_weight
        if total <= 0:
            axes.text(0.5, row, "no audio or video", ha="center", color=theme.muted, **text_kwargs)
            continue
        axes.barh(row, audio_weight / total, 0.7, color=theme.audio)
        axes.barh(row, video_weight / total, 0.7, left=audio_weight / total, color=theme.video)
        for x, alignment, weight, name in (
            (0.02, "left", audio_weight, "audio"),
            (0.98, "right", video_weight, "video"),
        ):
            if weight / total > 0.25:
                label = f"{name} {text.format_percent(weight / total, 0)} %"
                axes.text(x, row, label, ha=alignment, color=theme.background, weight="bold", **text_kwargs)
    axes.set(xlim=(0, 1), ylim=(len(panel.value) - 0.5, -0.5), xticks=[])
    axes.set_yticks(range(len(names)), names, size=8.5, color=theme.foreground)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _draw_attention_curve(figure: Figure, theme: style.Theme, panel: Panel) -> None:
    """Draws `panel.value`, attention over l positions, as a curve in multiples of uniform attention.

    The value is [l], or [n l] for n tokens, or [n l f], which is averaged over frequency; weights of any sum.
    The filled curve is the mean over the tokens; thin lines show each of them. Without any attention, only a
    text says so.
    """
    axes = _panel_axes(figure, panel, left=0.5, bottom=0.42)
    x_label, seconds = panel.display.column_label, float(panel.example.get("seconds") or 0)
    curves = attention_curves(panel.value, x_label in ("seconds", "step"))
    if curves is None:
        _draw_empty_note(axes, theme)
        return
    if x_label == "seconds" and seconds:
        edges = np.linspace(0, seconds, curves.shape[1] + 1)
    else:  # positions are numbered from 1
        edges, x_label = np.arange(curves.shape[1] + 1) + 0.5, "step" if x_label == "seconds" else x_label
    colour = style.modality_colour(theme, panel.display.modality)
    axes.stairs(curves.mean(0), edges, fill=True, color=colour)
    for curve in curves if len(curves) > 1 else ():
        axes.plot((edges[1:] + edges[:-1]) / 2, curve, color=theme.muted, lw=0.8)
    attention.draw_uniform_level(axes, theme, float(curves.max()))
    axes.set(xlim=(edges[0], edges[-1]))
    axes.set_xlabel(x_label, size=8.5)
    axes.tick_params(axis="x", labelsize=8)
    if x_label != "seconds":
        axes.locator_params(axis="x", integer=True, nbins=8)


def attention_curves(value: Float[np.ndarray, "..."], is_padded: bool) -> Float[np.ndarray, "n l"] | None:
    """Computes attention divided by uniform attention, one row per token.

    Args:
      value: attention over l positions, [l] or, for n tokens, [n l]; or [n l f], which is averaged over f.
      is_padded: cut off the positions at the end to which no token attends (padding).

    Returns:
      The rows as float64 [n l], each with mean 1; rows without any attention are left out, and `l` is smaller
      if padding was cut off. None if no row remains.
    """
    value = value.mean(-1) if value.ndim == 3 else value
    rows = np.atleast_2d(value)
    if is_padded:
        rows = rows[:, : attention_weights.attended_length(rows.sum(0))]
    relative = [r for row in rows if (r := attention_weights.relative_attention(row)) is not None]
    return np.stack(relative) if relative else None


def _draw_pair_weights(figure: Figure, theme: style.Theme, panel: Panel) -> None:
    """Draws `panel.value`, a matrix of weights [n m] in which each row sums to 1, as coloured cells.

    With at most 8 rows and columns, the cells have the weights in per cent. If all weights are 0, only a text
    says so.
    """
    if not panel.value.any():
        _draw_empty_note(_panel_axes(figure, panel, left=0.62, bottom=0.55), theme)
        return
    max_weight = max(2 / panel.value.shape[1], float(panel.value.max()))
    colormap = cells.sequential_colormap(theme, style.modality_colour(theme, panel.display.modality))
    _draw_matrix(figure, theme, panel, colormap, (0.0, max_weight), lambda x: text.format_percent(x, 0))


def _draw_correlations(figure: Figure, theme: style.Theme, panel: Panel) -> None:
    """Draws `panel.value`, a matrix [n m] of numbers from -1 to 1, as coloured cells.

    With at most 8 rows and columns, the cells have the numbers with one decimal.
    """
    _draw_matrix(
        figure,
        theme,
        panel,
        cells.diverging_colormap(theme),
        (-1.0, 1.0),
        lambda x: f"{round(x, 1) + 0.0:.1f}",  # no -0.0
    )


def _draw_matrix(
    figure: Figure,
    theme: style.Theme,
    panel: Panel,
    colormap: Colormap,
    limits: tuple[float, float],
    format_value: Callable[[float], str],
) -> None:
    axes = _panel_axes(figure, panel, left=0.62, bottom=0.55)
    row_count, column_count = panel.value.shape
    axes.imshow(panel.value, cmap=colormap, vmin=limits[0], vmax=limits[1], aspect="auto")
    if max(row_count, column_count) <= MAX_ANNOTATED_SIDE:
        cells.write_cells(axes, panel.value, colormap, limits, format_value, font_size=7.5)
    for axis, count in (("x", column_count), ("y", row_count)):
        step = -(-count // 8)
        getattr(axes, f"set_{axis}ticks")(range(0, count, step), range(1, count + 1, step))
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(panel.display.column_label, size=8.5)
    axes.set_ylabel(panel.display.row_label, size=8.5)


def _draw_face_attention(figure: Figure, theme: style.Theme, panel: Panel) -> None:
    """Draws a face of each part of the clip, brighter at places with more attention.

    `panel.value` is the attention over the face crop, [y x] (y from the top) or, for n equal parts of the
    clip, [n y x]. Of more than 8 parts, 8 evenly spaced ones are drawn. A part without a face or without
    attention is a crossed box.
    """
    maps = panel.value if panel.value.ndim == 3 else panel.value[None]
    part_indices = np.linspace(0, len(maps) - 1, min(len(maps), MAX_FACES)).round().astype(int).tolist()
    face_inches = panel.size[1] - TITLE_INCHES - 0.2
    axes = _panel_axes(
        figure, panel, left=0.0, bottom=0.2, right=panel.size[0] - face_inches * len(part_indices)
    )
    for position, part in enumerate(part_indices):
        box = (position + 0.02, position + 0.98, 0.0, 1.0)
        image = highlight_face(panel.example, maps, part)
        if image is None:
            style.draw_missing_face(axes, theme, box)
        else:
            axes.imshow(image, extent=box, aspect="auto")
    axes.set(xlim=(0, len(part_indices)), ylim=(0, 1), yticks=[])
    axes.set_xticks(np.arange(len(part_indices)) + 0.5, [f"part {part + 1}" for part in part_indices], size=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def highlight_face(
    example: GalleryClip, maps: Float[np.ndarray, "n y x"], part: int
) -> Float[np.ndarray, "h w 3"] | None:
    """Returns the middle face of a part of the clip, darkened at positions with little attention.

    Args:
      example: data of the clip with `faces` (uint8 [s h w 3] or None) and `face_mask` (bool [s]).
      maps: attention over the face crop, at positions y (from the top) and x, for each of the n parts of the
        clip: frame i of s belongs to part `i * n // s`.
      part: number of the part, from 0.

    Returns:
      An RGB image [h w 3] with values from 0 to 1: the middle one of the frames of the part that have a face
      (the later one of two), times 1 at the position with the most attention, down to 0.25 at positions
      without attention. None if the part has no face or no attention, or `faces` is None.

    Raises:
      KeyError: if `example` has no `faces` or `face_mask`.
    """
    part_count, mask, faces = len(maps), np.asarray(example["face_mask"], bool), example["faces"]
    frame_indices = np.flatnonzero(mask & (np.arange(len(mask)) * part_count // len(mask) == part))
    relative = attention_weights.relative_attention(maps[part])
    if faces is None or not len(frame_indices) or relative is None:
        return None
    face = np.asarray(faces[frame_indices[len(frame_indices) // 2]], np.float64) / 255  # h w 3
    brightness = _resize_bilinear(relative / relative.max(), face.shape[:2])
    return face * (0.25 + 0.75 * brightness[..., None])


def _resize_bilinear(values: Float[np.ndarray, "y x"], shape: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    """Returns `values` in the size `shape` (h, w), by bilinear interpolation.

    Outside the centres of the outer cells, the values are constant.
    """
    for axis, size in enumerate(shape):
        positions = (np.arange(size) + 0.5) / size * values.shape[axis] - 0.5
        cell_indices = np.arange(values.shape[axis])
        values = np.apply_along_axis(lambda line: np.interp(positions, cell_indices, line), axis, values)  # noqa: B023
    return values


def _draw_sorted_attention(figure: Figure, theme: style.Theme, panel: Panel) -> None:
    """Draws attention over d channels in descending order, in multiples of uniform attention.

    `panel.value` is [.. d], weights of any sum, which are averaged over all axes but the last. Without any
    attention, only a text says so.
    """
    axes = _panel_axes(figure, panel, left=0.5, bottom=0.42)
    relative = attention_weights.relative_attention(panel.value.reshape(-1, panel.value.shape[-1]).mean(0))
    if relative is None:
        _draw_empty_note(axes, theme)
        return
    sorted_attention = np.sort(relative)[::-1]
    axes.stairs(
        sorted_attention,
        np.arange(len(sorted_attention) + 1) + 0.5,
        fill=True,
        color=style.modality_colour(theme, panel.display.modality),
    )
    attention.draw_uniform_level(axes, theme, float(sorted_attention.max()))
    axes.set(xlim=(0.5, len(sorted_attention) + 0.5))
    axes.set_xlabel(panel.display.column_label, size=8.5)
    axes.tick_params(axis="x", labelsize=8)


def _draw_cosine(figure: Figure, theme: style.Theme, panel: Panel) -> None:
    """Draws the mean of `panel.value`, a number from -1 to 1, as a point on a line from -1 to 1."""
    axes = _panel_axes(figure, panel, left=0.6, bottom=0.3, right=0.6)
    value = float(panel.value.mean())
    axes.axhline(0, color=theme.grid, lw=5, solid_capstyle="round")
    axes.plot([0, value], [0, 0], color=theme.both, lw=5, solid_capstyle="round")
    axes.plot([value], [0], "o", color=theme.both, ms=11)
    axes.text(value, 0.45, f"{value:.2f}", ha="center", va="bottom", size=10, weight="bold")
    axes.set(xlim=(-1, 1), ylim=(-0.6, 1.3), yticks=[])
    axes.set_xticks([-1, 0, 1], ["−1 (opposite)", "0", "1 (identical)"], size=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _draw_empty_note(axes: Axes, theme: style.Theme) -> None:
    axes.text(0.5, 0.5, "no attention", ha="center", va="center", color=theme.muted, transform=axes.transAxes)
    style.hide_axes(axes)


PANEL_DRAWERS: dict[str, Callable[[Figure, style.Theme, Panel], None]] = {
    "shares": _draw_modality_weights,
    "course": _draw_attention_curve,
    "pairs": _draw_pair_weights,
    "signed": _draw_correlations,
    "places": _draw_face_attention,
    "ranked": _draw_sorted_attention,
    "cosine": _draw_cosine,
}
"""Maps the kind of a panel to the function that draws it: `draw(figure, theme, panel)`."""


def _matrix_size(value: np.ndarray) -> tuple[float, float]:
    return (WIDTH_INCHES / 4, 2.2) if max(value.shape) <= 4 else (WIDTH_INCHES / 3, 2.8)


PANEL_SIZES: dict[str, Callable[[np.ndarray], tuple[float, float]]] = {
    "shares": lambda value: (WIDTH_INCHES / 2, TITLE_INCHES + 0.2 + 0.3 * len(value)),
    "course": lambda value: (WIDTH_INCHES / 2, 1.75),
    "pairs": _matrix_size,
    "signed": _matrix_size,
    "places": lambda value: (WIDTH_INCHES, 1.7),
    "ranked": lambda value: (WIDTH_INCHES / 2, 1.75),
    "cosine": lambda value: (WIDTH_INCHES / 2, 1.35),
}
"""Maps the kind of a panel to a function of its values that returns width and height in inches."""
