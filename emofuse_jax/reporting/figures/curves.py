"""Learning curves: training and validation over the epochs, the best epoch marked."""

from collections.abc import Sequence

from emofuse_jax.reporting import text
from emofuse_jax.reporting.figures import style

SIZE = (5.2, 3.3)


def loss_picture(history: Sequence[dict], marks: Sequence[str] = ()) -> style.Picture | None:
    """Loss per epoch; None where no row has one."""
    return _picture(history, "loss", "Loss", marks)


def ua_picture(history: Sequence[dict], chance: float, marks: Sequence[str] = ()) -> style.Picture | None:
    """UA per epoch in per cent, with the line of chance; None where no row has one."""
    return _picture(history, "ua", "UA (mean recall), %", marks, chance)


def best_row(history: Sequence[dict]) -> dict | None:
    """The row of the highest validation UA; without any, of the lowest validation loss; else None."""
    for key, sign in (("validation_ua", 1.0), ("validation_loss", -1.0)):
        rows = [row for row in history if text.known(row.get(key)) and text.known(row.get("epoch"))]
        if rows:
            return max(rows, key=lambda row: sign * row[key])
    return None


def _picture(history, key, title, marks, chance=None) -> style.Picture | None:
    lines = {part: _line(history, f"{part}_{key}") for part in ("train", "validation")}
    if not any(x for x, _ in lines.values()):
        return None
    best = best_row(history)
    scale = 100.0 if key == "ua" else 1.0

    def draw(figure, theme):
        axes = figure.subplots()
        _draw_lines(axes, theme, lines, scale)
        _draw_chance(axes, theme, chance, scale)
        _draw_best(axes, theme, best, f"validation_{key}", scale)
        _dress(axes, title)

    return style.make_picture(f"learning_{key}", _alt(lines, key, best, scale), SIZE, draw, marks=marks)


def _line(history, key) -> tuple[list, list]:
    rows = [row for row in history if text.known(row.get(key)) and text.known(row.get("epoch"))]
    rows = sorted(rows, key=lambda row: row["epoch"])
    return [row["epoch"] for row in rows], [row[key] for row in rows]


def _draw_lines(axes, theme, lines, scale) -> None:
    looks = {"train": (theme.muted, (0, (4, 2))), "validation": (theme.both, "-")}
    for part, (x, y) in lines.items():
        if x:
            colour, dashes = looks[part]
            marker = "o" if len(x) <= 30 else None  # a single epoch is a point, not an invisible line
            y = [scale * value for value in y]
            axes.plot(x, y, color=colour, ls=dashes, lw=1.9, marker=marker, ms=3.2, label=part)


def _draw_chance(axes, theme, chance, scale) -> None:
    if chance is not None:
        axes.axhline(scale * chance, color=theme.muted, ls=(0, (1, 2)), lw=1.2, label="chance")
        axes.set_ylim(0, 102)


def _dress(axes, title) -> None:
    axes.set_xlabel("epoch")
    axes.set_title(title, pad=26)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=4, columnspacing=1.2, fontsize=9)


def _draw_best(axes, theme, best, key, scale) -> None:
    if best is None:
        return
    axes.axvline(best["epoch"], color=theme.ink, lw=1.1, zorder=1.5, label=f"best, epoch {best['epoch']:g}")
    if text.known(best.get(key)):
        axes.plot(best["epoch"], scale * best[key], "D", color=theme.ink, ms=6, mec=theme.page, zorder=5)


def _alt(lines, key, best, scale) -> str:
    unit = " %" if key == "ua" else ""
    ends = [
        f"{part} from {scale * y[0]:.3g}{unit} to {scale * y[-1]:.3g}{unit}"
        for part, (_, y) in lines.items()
        if y
    ]
    tail = f"; best epoch {best['epoch']:g}" if best else ""
    return f"Learning curve of the {'UA' if key == 'ua' else 'loss'}: {', '.join(ends)}{tail}."


def spread_picture(
    histories: Sequence[Sequence[dict]], key: str, marks: Sequence[str] = (), chance: float | None = None
) -> style.Picture | None:
    """Mean of `key` (`loss` or `ua`) over runs per epoch, and the range of all runs; None where none has it.

    An epoch that some runs did not reach is the mean of the others.
    """
    scale, title = (100.0, "UA (mean recall), %") if key == "ua" else (1.0, "Loss")
    lines = {part: _spread(histories, f"{part}_{key}", scale) for part in ("train", "validation")}
    lines = {part: rows for part, rows in lines.items() if rows}
    if not lines:
        return None

    def draw(figure, theme):
        axes = figure.subplots()
        for part, rows in lines.items():
            colour = theme.both if part == "validation" else theme.muted
            epochs, means, lows, highs = zip(*rows, strict=True)
            axes.plot(
                epochs, means, color=colour, lw=1.9, ls="-" if part == "validation" else "--", label=part
            )
            axes.fill_between(epochs, lows, highs, color=colour, alpha=0.22, lw=0)
        _draw_chance(axes, theme, chance, scale)
        _dress(axes, title)

    ends = [
        f"{part} {rows[-1][1]:.3g} ({rows[-1][2]:.3g} to {rows[-1][3]:.3g})" for part, rows in lines.items()
    ]
    alt = f"{title}, mean and range of {len(histories)} runs; last epoch: {', '.join(ends)}."
    return style.make_picture(f"learning_{key}", alt, SIZE, draw, marks=marks)


def _spread(histories, key, scale) -> list[tuple]:
    """Epoch, mean, lowest and highest of the runs that have it."""
    values: dict = {}
    for history in histories:
        for epoch, value in zip(*_line(history, key), strict=True):
            values.setdefault(epoch, []).append(scale * value)
    return [(e, sum(v) / len(v), min(v), max(v)) for e, v in sorted(values.items())]
