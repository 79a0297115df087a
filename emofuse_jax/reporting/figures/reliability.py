"""Draws reliability diagrams (confidence against accuracy) and scores for degraded input."""

from collections.abc import Mapping, Sequence

from emofuse_jax.reporting import text
from emofuse_jax.reporting.figures import style
from emofuse_jax.reporting.figures.matplotlib_types import Figure
from emofuse_jax.scoring.result_types import ReliabilityBin, RobustnessPoint

AXIS_LABELS = {"snr": "signal-to-noise ratio, dB", "lost": "faces that are masked, %"}
TITLES = {"snr": "UA with noise", "lost": "UA with masked faces"}
MISSING_MODALITY_LABELS = {"audio": "without audio", "video": "without video"}


def reliability_picture(
    curves: Mapping[str, Sequence[ReliabilityBin]],
    calibration_errors: Mapping[str, float],
    marks: Sequence[str] = (),
) -> style.Picture:
    """Draws accuracy over confidence, both in per cent, with a line for each entry of `curves`.

    Args:
      curves: maps a name, which is shown, to the bins of a curve, dicts with `confidence` and `accuracy`
        (fractions) and `clips` (number of clips); only the first two curves are drawn.
      calibration_errors: expected calibration error of each curve, by the same name, as a fraction.
      marks: warnings that are written into the picture.

    Returns:
      The picture `reliability`: PNG bytes in the light and the dark theme (`light`, `dark`), the alternative
      text `alt`, and `width` and `height` in CSS pixels.

    Raises:
      ValueError: if no curve has a bin, or Matplotlib is not installed.
      KeyError: if `calibration_errors` lacks the name of a curve that is drawn.
    """

    def draw(figure: Figure, theme: style.Theme) -> None:
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], color=theme.muted, ls=(0, (1, 2)), lw=1.2, label="perfect calibration")
        max_clips = max(row["clips"] for rows in curves.values() for row in rows)
        for (name, rows), colour in zip(curves.items(), (theme.muted, theme.both), strict=False):
            x, y = [100 * row["confidence"] for row in rows], [100 * row["accuracy"] for row in rows]
            label = f"{name}, ECE {text.format_percent(calibration_errors[name])}"
            axes.plot(x, y, color=colour, lw=1.9, label=label)
            marker_sizes = [8 + 90 * row["clips"] / max_clips for row in rows]
            axes.scatter(x, y, marker_sizes, color=colour, edgecolors=theme.background, zorder=3)
        axes.set(xlim=(0, 102), ylim=(0, 102), xlabel="confidence, %", ylabel="accuracy, %")
        axes.grid()
        axes.set_title("Accuracy by confidence")
        axes.legend(loc="upper left", fontsize=9)

    errors_text = ", ".join(
        f"{name} {text.format_percent(value)} %" for name, value in calibration_errors.items()
    )
    return style.make_picture(
        "reliability", f"Calibration error: {errors_text}.", (4.6, 4.2), draw, marks=marks
    )


def robustness_picture(
    curve_name: str, rows: Sequence[RobustnessPoint], chance: float, marks: Sequence[str] = ()
) -> style.Picture:
    """Draws the UA in per cent for input that gets worse, with a line at the UA of guessing.

    Args:
      curve_name: `snr` (noise) or `lost` (masked faces).
      rows: a dict for each level of degradation: `at` (dB for `snr`, fraction of masked faces for `lost`,
        None for the original audio) and `ua` (a fraction).
      chance: UA of guessing as a fraction.
      marks: warnings that are written into the picture.

    Returns:
      The picture `robustness_<curve_name>`: PNG bytes in the light and the dark theme (`light`, `dark`), the
      alternative text `alt`, and `width` and `height` in CSS pixels.

    Raises:
      ValueError: if a level is a text that is no number, or Matplotlib is not installed.
      KeyError: if `curve_name` is another one.
    """
    tick_labels = [_tick_label(curve_name, row["at"]) for row in rows]

    def draw(figure: Figure, theme: style.Theme) -> None:
        axes = figure.subplots()
        positions, values = range(len(rows)), [100 * row["ua"] for row in rows]
        colour = theme.audio if curve_name == "snr" else theme.video
        axes.plot(positions, values, "-o", color=colour, lw=1.9, ms=5)
        for position, value in zip(positions, values, strict=True):
            axes.text(position, value + 3, f"{value:.0f}", ha="center", size=9, color=theme.foreground)
        axes.axhline(100 * chance, color=theme.muted, ls=(0, (1, 2)), lw=1.2, label="chance")
        axes.set_xticks(positions, tick_labels)
        axes.set(ylim=(0, 104), xlabel=AXIS_LABELS[curve_name])
        axes.grid(axis="y")
        axes.set_title(f"{TITLES[curve_name]}, %")
        axes.legend(loc="upper right", fontsize=9)

    scores_text = text.format_percents({name: row["ua"] for name, row in zip(tick_labels, rows, strict=True)})
    alt = f"{TITLES[curve_name]}, by {AXIS_LABELS[curve_name]}: {scores_text}."
    return style.make_picture(f"robustness_{curve_name}", alt, (5.2, 3.3), draw, marks=marks)


def _tick_label(curve_name: str, level: float | str | None) -> str:
    if level is None:
        return "original"
    level = float(level)
    return f"{level:g}" if curve_name == "snr" else f"{100 * level:.0f}"
