"""Learning curves: training and validation over the epochs, the best epoch marked."""

from collections.abc import Sequence

from emofuse_jax.reporting import text
from emofuse_jax.reporting.figures import style

SIZE_INCHES = (5.2, 3.3)


def loss_picture(history: Sequence[dict], marks: Sequence[str] = ()) -> style.Picture | None:
    """Loss per epoch; None where no row has one."""
    return _curve_picture(history, "loss", "Loss", marks)


def ua_picture(history: Sequence[dict], chance: float, marks: Sequence[str] = ()) -> style.Picture | None:
    """UA per epoch in per cent, with the line of chance; None where no row has one."""
    return _curve_picture(history, "ua", "UA (mean recall), %", marks, chance)


def best_row(history: Sequence[dict]) -> dict | None:
    """The row of the highest validation UA; without any, of the lowest validation loss; else None."""
    for metric, sign in (("validation_ua", 1.0), ("validation_loss", -1.0)):
        rows = [
            row for row in history if text.is_finite(row.get(metric)) and text.is_finite(row.get("epoch"))
        ]
        if rows:
            return max(rows, key=lambda row: sign * row[metric])
    return None


def _curve_picture(history, metric, title, marks, chance=None) -> style.Picture | None:
    lines = {split: _curve_points(history, f"{split}_{metric}") for split in ("train", "validation")}
    if not any(x for x, _ in lines.values()):
        return None
    best = best_row(history)
    scale = 100.0 if metric == "ua" else 1.0

    def draw(figure, theme):
        axes = figure.subplots()
        _draw_lines(axes, theme, lines, scale)
        _draw_chance(axes, theme, chance, scale)
        _draw_best(axes, theme, best, f"validation_{metric}", scale)
        _style_axes(axes, title)

    return style.make_picture(
        f"learning_{metric}", _alt_text(lines, metric, best, scale), SIZE_INCHES, draw, marks=marks
    )


def _curve_points(history, column) -> tuple[list, list]:
    rows = [row for row in history if text.is_finite(row.get(column)) and text.is_finite(row.get("epoch"))]
    rows = sorted(rows, key=lambda row: row["epoch"])
    return [row["epoch"] for row in rows], [row[column] for row in rows]


def _draw_lines(axes, theme, lines, scale) -> None:
    line_styles = {"train": (theme.muted, (0, (4, 2))), "validation": (theme.both, "-")}
    for split, (x, y) in lines.items():
        if x:
            colour, dashes = line_styles[split]
            marker = "o" if len(x) <= 30 else None  # a single epoch is a point, not an invisible line
            y = [scale * value for value in y]
            axes.plot(x, y, color=colour, ls=dashes, lw=1.9, marker=marker, ms=3.2, label=split)


def _draw_chance(axes, theme, chance, scale) -> None:
    if chance is not None:
        axes.axhline(scale * chance, color=theme.muted, ls=(0, (1, 2)), lw=1.2, label="chance")
        axes.set_ylim(0, 102)


def _style_axes(axes, title) -> None:
    axes.set_xlabel("epoch")
    axes.set_title(title, pad=26)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=4, columnspacing=1.2, fontsize=9)


def _draw_best(axes, theme, best, column, scale) -> None:
    if best is None:
        return
    axes.axvline(
        best["epoch"], color=theme.foreground, lw=1.1, zorder=1.5, label=f"best, epoch {best['epoch']:g}"
    )
    if text.is_finite(best.get(column)):
        axes.plot(
            best["epoch"],
            scale * best[column],
            "D",
            color=theme.foreground,
            ms=6,
            mec=theme.background,
            zorder=5,
        )


def _alt_text(lines, metric, best, scale) -> str:
    unit = " %" if metric == "ua" else ""
    ranges = [
        f"{split} from {scale * y[0]:.3g}{unit} to {scale * y[-1]:.3g}{unit}"
        for split, (_, y) in lines.items()
        if y
    ]
    best_text = f"; best epoch {best['epoch']:g}" if best else ""
    return f"Learning curve of the {'UA' if metric == 'ua' else 'loss'}: {', '.join(ranges)}{best_text}."


def mean_curve_picture(
    histories: Sequence[Sequence[dict]], metric: str, marks: Sequence[str] = (), chance: float | None = None
) -> style.Picture | None:
    """Mean of `metric` (`loss` or `ua`) over runs per epoch, and the range of all runs; None where none has
    it.

    An epoch that some runs did not reach is the mean of the others.
    """
    scale, title = (100.0, "UA (mean recall), %") if metric == "ua" else (1.0, "Loss")
    lines = {split: _epoch_ranges(histories, f"{split}_{metric}", scale) for split in ("train", "validation")}
    lines = {split: rows for split, rows in lines.items() if rows}
    if not lines:
        return None

    def draw(figure, theme):
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


def _epoch_ranges(histories, column, scale) -> list[tuple]:
    """Epoch, mean, lowest and highest of the runs that have it."""
    values: dict = {}
    for history in histories:
        for epoch, value in zip(*_curve_points(history, column), strict=True):
            values.setdefault(epoch, []).append(scale * value)
    return [(e, sum(v) / len(v), min(v), max(v)) for e, v in sorted(values.items())]
