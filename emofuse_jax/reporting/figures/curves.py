"""Draws learning curves of training and validation, with a mark at the best epoch."""

from collections.abc import Mapping, Sequence
from typing import Literal

from emofuse_jax.reporting import text
from emofuse_jax.reporting.figures import style
from emofuse_jax.reporting.figures.matplotlib_types import Axes, Figure
from emofuse_jax.scoring.result_types import EpochRow

SIZE_INCHES = (5.2, 3.3)

CurveMetric = Literal["loss", "ua"]
CurveField = Literal["train_loss", "validation_loss", "train_ua", "validation_ua"]
CURVE_FIELDS: dict[CurveMetric, dict[str, CurveField]] = {
    "loss": {"train": "train_loss", "validation": "validation_loss"},
    "ua": {"train": "train_ua", "validation": "validation_ua"},
}
"""Fields of an epoch's row for each metric, by split."""

Curve = tuple[list[int], list[float]]
"""Numbers of the epochs, and a value for each."""
EpochRange = tuple[int, float, float, float]
"""Number of an epoch, and the mean, minimum and maximum of a metric over the runs."""


def loss_picture(history: Sequence[EpochRow], marks: Sequence[str] = ()) -> style.Picture | None:
    """Draws the training and validation loss of each epoch, and a line at the best epoch.

    The best epoch has the highest validation UA or, if no row has a UA, the lowest validation loss.

    Args:
      history: one row per epoch: `epoch`, and `train_loss`, `validation_loss` and `validation_ua` if known.
      marks: warnings that are written into the picture.

    Returns:
      The picture `learning_loss`: PNG bytes in the light and the dark theme (`light`, `dark`), the
      alternative text `alt`, and `width` and `height` in CSS pixels. None if there are no losses.

    Raises:
      ValueError: if Matplotlib is not installed.
    """
    return _curve_picture(history, "loss", "Loss", marks)


def ua_picture(history: Sequence[EpochRow], chance: float, marks: Sequence[str] = ()) -> style.Picture | None:
    """Draws the training and validation UA of each epoch in per cent, and lines at chance and the best epoch.

    Args:
      history: one row per epoch: `epoch`, and `train_ua` and `validation_ua` (fractions) if known.
      chance: UA of guessing as a fraction.
      marks: warnings that are written into the picture.

    Returns:
      The picture `learning_ua`: PNG bytes in the light and the dark theme (`light`, `dark`), the alternative
      text `alt`, and `width` and `height` in CSS pixels. None if `history` has no UA.

    Raises:
      ValueError: if Matplotlib is not installed.
    """
    return _curve_picture(history, "ua", "UA (mean recall), %", marks, chance)


def best_row(history: Sequence[EpochRow]) -> EpochRow | None:
    """Returns the row of the best epoch, or None if no row has a validation score.

    The best epoch has the highest `validation_ua` or, if no row has one, the lowest `validation_loss`; of
    equal ones, the first row counts. Values that are None, NaN or infinite do not count, nor do rows without
    `epoch`, the number of the epoch.
    """
    if rows := _rows_with(history, "validation_ua"):
        return max(rows, key=lambda row: row["validation_ua"])
    if rows := _rows_with(history, "validation_loss"):
        return min(rows, key=lambda row: row["validation_loss"])
    return None


def _rows_with(history: Sequence[EpochRow], field: CurveField) -> list[EpochRow]:
    return [row for row in history if text.is_finite(row.get(field)) and text.is_finite(row.get("epoch"))]


def _curve_picture(
    history: Sequence[EpochRow],
    metric: CurveMetric,
    title: str,
    marks: Sequence[str],
    chance: float | None = None,
) -> style.Picture | None:
    lines = {split: _curve_points(history, field) for split, field in CURVE_FIELDS[metric].items()}
    if not any(x for x, _ in lines.values()):
        return None
    best = best_row(history)
    scale = 100.0 if metric == "ua" else 1.0

    def draw(figure: Figure, theme: style.Theme) -> None:
        axes = figure.subplots()
        _draw_lines(axes, theme, lines, scale)
        _draw_chance(axes, theme, chance, scale)
        _draw_best(axes, theme, best, CURVE_FIELDS[metric]["validation"], scale)
        _style_axes(axes, title)

    return style.make_picture(
        f"learning_{metric}", _alt_text(lines, metric, best, scale), SIZE_INCHES, draw, marks=marks
    )


def _curve_points(history: Sequence[EpochRow], field: CurveField) -> Curve:
    rows = sorted(_rows_with(history, field), key=lambda row: row["epoch"])
    return [row["epoch"] for row in rows], [row[field] for row in rows]


def _draw_lines(axes: Axes, theme: style.Theme, lines: Mapping[str, Curve], scale: float) -> None:
    colours = {"train": theme.muted, "validation": theme.both}
    for split, (x, y) in lines.items():
        if x:
            dashes = (0, (4, 2)) if split == "train" else "-"
            marker = "o" if len(x) <= 30 else None  # a single epoch would be an invisible line
            y = [scale * value for value in y]
            axes.plot(x, y, color=colours[split], ls=dashes, lw=1.9, marker=marker, ms=3.2, label=split)


def _draw_chance(axes: Axes, theme: style.Theme, chance: float | None, scale: float) -> None:
    if chance is not None:
        axes.axhline(scale * chance, color=theme.muted, ls=(0, (1, 2)), lw=1.2, label="chance")
        axes.set_ylim(0, 102)


def _style_axes(axes: Axes, title: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_title(title, pad=26)
    axes.locator_params(axis="x", integer=True)
    axes.grid(axis="y")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=4, columnspacing=1.2, fontsize=9)


def _draw_best(
    axes: Axes, theme: style.Theme, best: EpochRow | None, field: CurveField, scale: float
) -> None:
    if best is None:
        return
    axes.axvline(
        best["epoch"], color=theme.foreground, lw=1.1, zorder=1.5, label=f"best, epoch {best['epoch']:g}"
    )
    if text.is_finite(best.get(field)):
        axes.plot(
            best["epoch"],
            scale * best[field],
            "D",
            color=theme.foreground,
            ms=6,
            mec=theme.background,
            zorder=5,
        )


def _alt_text(lines: Mapping[str, Curve], metric: CurveMetric, best: EpochRow | None, scale: float) -> str:
    unit = " %" if metric == "ua" else ""
    ranges = [
        f"{split} from {scale * y[0]:.3g}{unit} to {scale * y[-1]:.3g}{unit}"
        for split, (_, y) in lines.items()
        if y
    ]
    best_text = f"; best epoch {best['epoch']:g}" if best else ""
    return f"Learning curve of the {'UA' if metric == 'ua' else 'loss'}: {', '.join(ranges)}{best_text}."


def mean_curve_picture(
    histories: Sequence[Sequence[EpochRow]],
    metric: CurveMetric,
    marks: Sequence[str] = (),
    chance: float | None = None,
) -> style.Picture | None:
    """Draws the mean of a metric over all runs, for each epoch, and the range of the runs as a band.

    Args:
      histories: for each run, one row per epoch: `epoch`, and `train_<metric>` and `validation_<metric>` if
        known.
      metric: `loss` or `ua`; UA is shown in per cent.
      marks: warnings that are written into the picture.
      chance: UA of guessing as a fraction, drawn as a line; None to leave the line out.

    Returns:
      The picture `learning_<metric>`: PNG bytes in the light and the dark theme (`light`, `dark`), the
      alternative text `alt`, and `width` and `height` in CSS pixels. None if no run has the metric. For an
      epoch that some runs did not reach, the mean is that of the other runs.

    Raises:
      ValueError: if Matplotlib is not installed.
    """
    scale, title = (100.0, "UA (mean recall), %") if metric == "ua" else (1.0, "Loss")
    ranges = {split: _epoch_ranges(histories, field, scale) for split, field in CURVE_FIELDS[metric].items()}
    lines = {split: rows for split, rows in ranges.items() if rows}
    if not lines:
        return None

    def draw(figure: Figure, theme: style.Theme) -> None:
        axes = figure.subplots()
        for split, rows in lines.items():
            colour = theme.both if split == "validation" else theme.muted
            epochs, means, lows, highs = zip(*rows, strict=True)
            axes.plot(
                epochs, means, color=colour, lw=1.9, ls="-" if split == "validation" else "--", label=split
            )
            axes.fill_between(epochs, lows, highs, color=colour, alpha=0.22, lw=0)
        _draw_chance(axes, theme, chance, scale)
        _style_axes(axes, title)

    last_values = [
        f"{split} {rows[-1][1]:.3g} ({rows[-1][2]:.3g} to {rows[-1][3]:.3g})" for split, rows in lines.items()
    ]
    alt = f"{title}, mean and range of {len(histories)} runs; last epoch: {', '.join(last_values)}."
    return style.make_picture(f"learning_{metric}", alt, SIZE_INCHES, draw, marks=marks)


def _epoch_ranges(
    histories: Sequence[Sequence[EpochRow]], field: CurveField, scale: float
) -> list[EpochRange]:
    values: dict[int, list[float]] = {}
    for history in histories:
        for epoch, value in zip(*_curve_points(history, field), strict=True):
            values.setdefault(epoch, []).append(scale * value)
    return [(e, sum(v) / len(v), min(v), max(v)) for e, v in sorted(values.items())]
