"""Draws the confusion matrix and the recall of each class."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Num

from emofuse_jax.reporting import text
from emofuse_jax.reporting.figures import cells, style
from emofuse_jax.reporting.figures.matplotlib_types import Axes, Colormap, Figure


def confusion_picture(
    confusion: Num[np.ndarray, "c c"], classes: Sequence[str], marks: Sequence[str] = ()
) -> style.Picture:
    """Draws a confusion matrix with the counts and the rate within each row in per cent.

    Args:
      confusion: counts; rows are true classes, columns predictions.
      classes: names of the classes.
      marks: warnings that are written into the picture.

    Returns:
      The picture `confusion`: PNG bytes in the light and the dark theme (`light`, `dark`), the alternative
      text `alt`, and `width` and `height` in CSS pixels. The rates of a class without clips are dashes.

    Raises:
      ValueError: if the diagonal of the matrix does not have one entry for each class, there are no classes,
        or Matplotlib is not installed.
    """
    rates = row_rates(confusion)
    side_inches = 1.5 + max(3.0, 0.62 * len(classes))
    size = (side_inches, side_inches - 0.25)

    def draw(figure: Figure, theme: style.Theme) -> None:
        axes = figure.subplots()
        colormap = cells.sequential_colormap(theme, theme.both)
        axes.imshow(np.nan_to_num(rates), cmap=colormap, vmin=0, vmax=1, aspect="auto")
        _write_counts(axes, theme, confusion, rates, colormap, is_small=len(classes) > 9)
        _class_ticks(axes, theme, classes)
        axes.set(xlabel="prediction", ylabel="truth")
        axes.set_title("Confusion: % of row, number of clips below")

    alt = (
        f"Confusion matrix, rows truth, columns prediction. Recall:"
        f" {_format_recalls(classes, np.diag(rates))}."
    )
    return style.make_picture("confusion", alt, size, draw, marks=marks)


def recall_picture(
    recalls: Mapping[str, Sequence[text.Number | None] | Float[np.ndarray, " c"]],
    classes: Sequence[str],
    marks: Sequence[str] = (),
) -> style.Picture:
    """Draws the recall of each class in per cent, with a bar for each modality and a line at chance.

    Args:
      recalls: maps `both`, `audio` or `video` to the recall of each class as a fraction; None and NaN are
        shown as a dash.
      classes: names of the classes.
      marks: warnings that are written into the picture.

    Returns:
      The picture `recall`: PNG bytes in the light and the dark theme (`light`, `dark`), the alternative text
      `alt`, and `width` and `height` in CSS pixels.

    Raises:
      ValueError: if a modality does not have one recall for each class, or Matplotlib is not installed.
      KeyError: if a key of `recalls` is not `both`, `audio` or `video`.
      ZeroDivisionError: if `recalls` or `classes` is empty.
    """
    bar_height = 0.8 / len(recalls)
    size = (5.2, 1.2 + len(classes) * (0.2 + 0.17 * len(recalls)))

    def draw(figure: Figure, theme: style.Theme) -> None:
        axes = figure.subplots()
        for row, (name, recall) in enumerate(recalls.items()):
            y = np.arange(len(classes)) - 0.4 + bar_height * (row + 0.5)
            bar_lengths = 100 * np.nan_to_num(np.asarray(recall, float))
            axes.barh(
                y,
                bar_lengths,
                0.9 * bar_height,
                color=style.modality_colour(theme, name),
                label=text.MODALITY_NAMES[name],
            )
            for position, length, value in zip(y, bar_lengths, recall, strict=True):
                axes.text(
                    length + 1,
                    position,
                    text.format_percent(value, 0),
                    va="center",
                    size=8,
                    color=theme.foreground,
                )
        axes.axvline(100 / len(classes), color=theme.muted, ls=(0, (1, 2)), lw=1.2, label="chance")
        axes.set_yticks(range(len(classes)), [text.shorten(name) for name in classes], color=theme.foreground)
        axes.set(xlim=(0, 108), xlabel="recall, %", ylim=(len(classes) - 0.45, -0.55))
        axes.set_xticks(range(0, 101, 20))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_title("Recall by class", pad=26)
        handles, labels = axes.get_legend_handles_labels()
        order = [i for i in range(len(labels)) if labels[i] != "chance"] + [labels.index("chance")]
        handles, labels = [handles[i] for i in order], [labels[i] for i in order]
        axes.legend(
            handles,
            labels,
            loc="lower left",
            bbox_to_anchor=(-0.18, 0.995),
            ncols=4,
            columnspacing=1.0,
            fontsize=8.5,
        )

    phrases = [
        f"{text.MODALITY_NAMES[name]}: {_format_recalls(classes, recall)}" for name, recall in recalls.items()
    ]
    return style.make_picture("recall", f"Recall by class. {'; '.join(phrases)}.", size, draw, marks=marks)


def row_rates(confusion: Num[np.ndarray, "c c"]) -> Num[np.ndarray, "c c"]:
    """Returns each row divided by its sum, as float64 [c c]; the row of a class without clips is NaN."""
    total = confusion.sum(axis=1, keepdims=True)
    return np.divide(confusion, total, out=np.full(confusion.shape, np.nan), where=total > 0)


def _write_counts(
    axes: Axes,
    theme: style.Theme,
    confusion: Num[np.ndarray, "c c"],
    rates: Num[np.ndarray, "c c"],
    colormap: Colormap,
    *,
    is_small: bool,
) -> None:
    for (row, column), count in np.ndenumerate(confusion):
        rate = float(rates[row, column])
        text_colour = theme.foreground if count else theme.muted
        if text.is_finite(rate) and rate > 0.1:
            text_colour = cells.contrasting_colour(colormap(rate))
        rate_font_size, count_font_size = (7.5, 6) if is_small else (10.5, 7.5)
        weight = "bold" if row == column else "normal"
        axes.text(
            column,
            row - 0.1,
            text.format_percent(rate, 0),
            ha="center",
            va="center",
            size=rate_font_size,
            color=text_colour,
            weight=weight,
        )
        axes.text(
            column,
            row + 0.27,
            f"{count:g}",
            ha="center",
            va="center",
            size=count_font_size,
            color=text_colour,
        )


def _class_ticks(axes: Axes, theme: style.Theme, classes: Sequence[str]) -> None:
    names = [text.shorten(name, 12) for name in classes]
    if max(map(len, names)) > 5:
        axes.set_xticks(
            range(len(names)), names, color=theme.foreground, rotation=40, ha="right", rotation_mode="anchor"
        )
    else:
        axes.set_xticks(range(len(names)), names, color=theme.foreground)
    axes.set_yticks(range(len(names)), names, color=theme.foreground)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    edges = np.arange(1, len(names)) - 0.5
    axes.hlines(edges, -0.5, len(names) - 0.5, color=theme.background, lw=2)
    axes.vlines(edges, -0.5, len(names) - 0.5, color=theme.background, lw=2)


def _format_recalls(classes: Sequence[str], values: Iterable[text.Number | None]) -> str:
    return text.format_percents(dict(zip(classes, values, strict=True)))
