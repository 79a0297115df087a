"""Draws the UA of each speaker, and a comparison of networks with the best possible accuracies."""

import dataclasses
from collections.abc import Mapping, Sequence

from emofuse_jax.reporting import text
from emofuse_jax.reporting.figures import style
from emofuse_jax.reporting.figures.matplotlib_types import Axes, Figure
from emofuse_jax.scoring.result_types import ScoreFields, SpeakerScores


@dataclasses.dataclass(frozen=True)
class NetworkComparison:
    """Scores of networks that were trained separately, and the best possible accuracies on their clips."""

    networks: Mapping[str, ScoreFields]
    """Scores by the name of the network."""
    ceilings: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Best possible accuracies (fractions) by name: of the networks, and others."""


MAX_NAMED_SPEAKERS = 40
"""With more speakers than this, the picture has no names and numbers; the table lists them."""


def speaker_picture(
    speakers: Mapping[str, SpeakerScores],
    chance: float,
    overall_ua: float | None,
    marks: Sequence[str] = (),
) -> style.Picture | None:
    """Draws the UA of each speaker in per cent as a dot, sorted by UA, with the highest at the top.

    Args:
      speakers: maps the name of a speaker to `ua` (a fraction) and, optionally, `clips` (number of clips).
      chance: UA of guessing as a fraction.
      overall_ua: UA of all clips as a fraction, drawn as a line; None if unknown.
      marks: warnings that are written into the picture.

    Returns:
      The picture `speakers`: PNG bytes in the light and the dark theme (`light`, `dark`), the alternative
      text `alt`, and `width` and `height` in CSS pixels. Speakers without a known UA are left out; None if
      none is left.

    Raises:
      ValueError: if Matplotlib is not installed.
    """
    rows = {name: row for name, row in speakers.items() if text.is_finite(row.get("ua"))}
    if not rows:
        return None
    sorted_names = sorted(rows, key=lambda name: rows[name]["ua"])
    has_names = len(sorted_names) <= MAX_NAMED_SPEAKERS
    size = (5.2, 1.35 + (0.27 * len(sorted_names) if has_names else 4.0))

    def draw(figure: Figure, theme: style.Theme) -> None:
        axes = figure.subplots()
        values = [100 * rows[name]["ua"] for name in sorted_names]
        axes.hlines(range(len(sorted_names)), 0, values, color=theme.grid, lw=1.4)
        axes.plot(values, range(len(sorted_names)), "o", color=theme.both, ms=7 if has_names else 4)
        axes.axvline(100 * chance, color=theme.muted, ls=(0, (1, 2)), lw=1.2, label="chance")
        if text.is_finite(overall_ua):
            axes.axvline(100 * overall_ua, color=theme.foreground, lw=1.1, label="all clips", zorder=1.5)
        if has_names:
            _label_rows(axes, theme, sorted_names, rows)
        else:
            axes.set(yticks=[], ylabel=f"{len(sorted_names)} speakers")
        axes.set(
            xlim=(0, 104), ylim=(-0.7, len(sorted_names) - 0.3), xlabel="UA, %", xticks=range(0, 101, 20)
        )
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_title("UA by speaker", pad=26)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.995), ncols=2, fontsize=9)

    alt = (
        f"UA by speaker: {text.format_percents({name: rows[name]['ua'] for name in reversed(sorted_names)})}."
    )
    return style.make_picture("speakers", alt, size, draw, marks=marks)


def comparison_picture(
    comparison: NetworkComparison, chance: float, marks: Sequence[str] = ()
) -> style.Picture:
    """Draws the UA of each network as a bar with its interval and its ceiling, the best possible accuracy.

    Args:
      comparison: `networks` maps the name of a network, such as `both`, `voice` or `face`, to its scores: the
        fraction `ua`, and optionally `ua_interval` as `[low, high]`. `ceilings` maps names to fractions; a
        ceiling with the name of a network is a mark at its bar, any other a line across all bars.
      chance: UA of guessing as a fraction.
      marks: warnings that are written into the picture.

    Returns:
      The picture `comparison`: PNG bytes in the light and the dark theme (`light`, `dark`), the alternative
      text `alt`, and `width` and `height` in CSS pixels.

    Raises:
      ValueError: if an interval does not have two bounds, or Matplotlib is not installed.
    """
    rows, ceilings = comparison.networks, comparison.ceilings
    other_ceilings = {
        name: value for name, value in ceilings.items() if name not in rows and text.is_finite(value)
    }
    size = (7.2, 1.8 + 0.66 * len(rows))

    def draw(figure: Figure, theme: style.Theme) -> None:
        axes = figure.subplots()
        for position, (name, row) in enumerate(rows.items()):
            _draw_network(axes, theme, position, name, row, ceilings.get(name))
        for name, value in other_ceilings.items():
            axes.axvline(
                100 * value,
                color=theme.foreground,
                ls=(0, (5, 3)),
                lw=1.4,
                label=f"{name} ceiling {text.format_percent(value)}",
            )
        axes.axvline(
            100 * chance,
            color=theme.muted,
            ls=(0, (1, 2)),
            lw=1.2,
            label=f"chance {text.format_percent(chance)}",
        )
        axes.plot([], [], "|", color=theme.foreground, ms=13, mew=3, label="ceiling of this input")
        axes.set_yticks(
            range(len(rows)), [text.NETWORK_NAMES.get(name, name) for name in rows], color=theme.foreground
        )
        axes.set(xlim=(0, 104), ylim=(len(rows) - 0.5, -0.7), xlabel="UA, %", xticks=range(0, 101, 10))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_title("UA with 95 % intervals and ceilings (best possible)", pad=26)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.995), ncols=4, columnspacing=1.4, fontsize=9)

    phrases = [_describe_network(name, row, ceilings.get(name)) for name, row in rows.items()]
    phrases += [f"{name} ceiling {text.format_percent(value)} %" for name, value in other_ceilings.items()]
    return style.make_picture("comparison", f"UA compared. {'; '.join(phrases)}.", size, draw, marks=marks)


def _label_rows(
    axes: Axes, theme: style.Theme, sorted_names: Sequence[str], rows: Mapping[str, SpeakerScores]
) -> None:
    axes.set_yticks(
        range(len(sorted_names)), [text.shorten(name) for name in sorted_names], color=theme.foreground
    )
    for position, name in enumerate(sorted_names):
        clips = rows[name].get("clips")
        label = text.format_percent(rows[name]["ua"]) + (f"  ({clips} clips)" if clips is not None else "")
        axes.text(
            1.01,
            position,
            label,
            transform=axes.get_yaxis_transform(),
            va="center",
            size=8.5,
            color=theme.foreground,
        )


def _draw_network(
    axes: Axes, theme: style.Theme, position: int, name: str, row: ScoreFields, ceiling: float | None
) -> None:
    ua = row.get("ua")
    label_fits = text.is_finite(ua) and ua > 0.12
    if text.is_finite(ua):
        axes.barh(position, 100 * ua, 0.56, color=style.modality_colour(theme, name))
    # where the bar is too short, the number is below it
    label_position = position if label_fits else position + 0.46 * text.is_finite(ua)
    axes.text(
        1.2,
        label_position,
        text.format_percent(ua),
        va="center",
        size=10,
        weight="bold",
        color=theme.background if label_fits else theme.foreground,
    )
    bounds = row.get("ua_interval")
    if bounds is not None and text.format_interval(bounds):
        low, high = (100 * bound for bound in bounds)
        centre, half_width = (low + high) / 2, (high - low) / 2
        for colour, width in (
            (theme.background, 2.8),
            (theme.foreground, 1.6),
        ):  # the first line is a halo that separates the whisker from the bar
            axes.errorbar(
                centre,
                position,
                xerr=half_width,
                fmt="none",
                ecolor=colour,
                elinewidth=width,
                capsize=4,
                capthick=width,
            )
    if text.is_finite(ceiling):
        axes.vlines(100 * ceiling, position - 0.4, position + 0.4, color=theme.foreground, lw=3.2)
        axes.text(
            100 * ceiling, position - 0.43, text.format_percent(ceiling), ha="center", va="bottom", size=8.5
        )


def _describe_network(name: str, row: ScoreFields, ceiling: float | None) -> str:
    bounds = text.format_interval(row.get("ua_interval"))
    interval_text = f" (95 % interval {bounds})" if bounds else ""
    ceiling_text = f", ceiling {text.format_percent(ceiling)} %" if text.is_finite(ceiling) else ""
    return (
        f"{text.NETWORK_NAMES.get(name, name)} {text.format_percent(row.get('ua'))}"
        f" %{interval_text}{ceiling_text}"
    )
