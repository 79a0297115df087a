"""Pictures of scores: UA of each speaker, and networks against each other and their ceilings."""

from collections.abc import Mapping, Sequence
from numbers import Real

from emofuse_jax.reporting import text
from emofuse_jax.reporting.figures import style

NAMED_SPEAKERS = 40
"""With more speakers than this, names and numbers leave the picture; the table has them."""


def speaker_picture(
    speakers: Mapping[str, dict], chance: float, whole: Real | None, marks: Sequence[str] = ()
) -> style.Picture | None:
    """UA of each speaker as a dot, sorted; `whole` is the UA of all clips. None without any known UA."""
    rows = {name: row for name, row in speakers.items() if text.known(row.get("ua"))}
    if not rows:
        return None
    order = sorted(rows, key=lambda name: rows[name]["ua"])
    named = len(order) <= NAMED_SPEAKERS
    size = (5.2, 1.35 + (0.27 * len(order) if named else 4.0))

    def draw(figure, theme):
        axes = figure.subplots()
        values = [100 * rows[name]["ua"] for name in order]
        axes.hlines(range(len(order)), 0, values, color=theme.grid, lw=1.4)
        axes.plot(values, range(len(order)), "o", color=theme.both, ms=7 if named else 4)
        axes.axvline(100 * chance, color=theme.muted, ls=(0, (1, 2)), lw=1.2, label="chance")
        if text.known(whole):
            axes.axvline(100 * whole, color=theme.ink, lw=1.1, label="all clips", zorder=1.5)
        if named:
            _name_rows(axes, theme, order, rows)
        else:
            axes.set(yticks=[], ylabel=f"{len(order)} speakers")
        axes.set(xlim=(0, 104), ylim=(-0.7, len(order) - 0.3), xlabel="UA, %", xticks=range(0, 101, 20))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_title("UA by speaker", pad=26)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.995), ncols=2, fontsize=9)

    alt = f"UA by speaker: {text.listing({name: rows[name]['ua'] for name in reversed(order)})}."
    return style.make_picture("speakers", alt, size, draw, marks=marks)


def comparison_picture(comparison: Mapping, chance: float, marks: Sequence[str] = ()) -> style.Picture:
    """UA of each network as a bar with its interval, its ceiling as a mark, other ceilings as lines."""
    rows = networks(comparison)
    ceilings = comparison.get("ceilings") or {}
    others = {name: value for name, value in ceilings.items() if name not in rows and text.known(value)}
    size = (7.2, 1.8 + 0.66 * len(rows))

    def draw(figure, theme):
        axes = figure.subplots()
        for place, (name, row) in enumerate(rows.items()):
            _draw_network(axes, theme, place, name, row, ceilings.get(name))
        for name, value in others.items():
            axes.axvline(
                100 * value,
                color=theme.ink,
                ls=(0, (5, 3)),
                lw=1.4,
                label=f"{name} ceiling {text.percent(value)}",
            )
        axes.axvline(
            100 * chance, color=theme.muted, ls=(0, (1, 2)), lw=1.2, label=f"chance {text.percent(chance)}"
        )
        axes.plot([], [], "|", color=theme.ink, ms=13, mew=3, label="ceiling of the row")
        axes.set_yticks(range(len(rows)), [text.NETWORKS.get(name, name) for name in rows], color=theme.ink)
        axes.set(xlim=(0, 104), ylim=(len(rows) - 0.5, -0.7), xlabel="UA, %", xticks=range(0, 101, 10))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_title("UA with 95 % intervals, and the best possible", pad=26)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.995), ncols=4, columnspacing=1.4, fontsize=9)

    parts = [_phrase(name, row, ceilings.get(name)) for name, row in rows.items()]
    parts += [f"{name} ceiling {text.percent(value)} %" for name, value in others.items()]
    return style.make_picture("comparison", f"UA compared. {'; '.join(parts)}.", size, draw, marks=marks)


def networks(comparison: Mapping) -> dict[str, Mapping]:
    """The rows of a comparison: every entry that holds scores; ceilings and plain numbers are none."""
    return {name: row for name, row in comparison.items() if isinstance(row, Mapping) and name != "ceilings"}


def _name_rows(axes, theme, order, rows) -> None:
    axes.set_yticks(range(len(order)), [text.shorten(name) for name in order], color=theme.ink)
    for place, name in enumerate(order):
        clips = rows[name].get("clips")
        label = text.percent(rows[name]["ua"]) + (f"  ({clips} clips)" if clips is not None else "")
        axes.text(
            1.01, place, label, transform=axes.get_yaxis_transform(), va="center", size=8.5, color=theme.ink
        )


def _draw_network(axes, theme, place: int, name: str, row: dict, ceiling: Real | None) -> None:
    ua = row.get("ua")
    inside = text.known(ua) and ua > 0.12
    if text.known(ua):
        axes.barh(place, 100 * ua, 0.56, color=style.colour_of(theme, name))
    look = {"size": 10, "weight": "bold", "color": theme.page if inside else theme.ink}
    if inside:
        axes.text(1.2, place, text.percent(ua), va="center", **look)
    else:  # a bar too short for its number has it below
        axes.text(1.2, place + 0.46 * text.known(ua), text.percent(ua), va="center", **look)
    bounds = row.get("ua_interval")
    if text.interval(bounds):
        low, high = (100 * bound for bound in bounds)
        centre, half = (low + high) / 2, (high - low) / 2
        for colour, width in ((theme.page, 2.8), (theme.ink, 1.6)):  # a halo parts the whisker from its bar
            look = {"ecolor": colour, "elinewidth": width, "capsize": 4, "capthick": width}
            axes.errorbar(centre, place, xerr=half, fmt="none", **look)
    if text.known(ceiling):
        axes.vlines(100 * ceiling, place - 0.4, place + 0.4, color=theme.ink, lw=3.2)
        axes.text(100 * ceiling, place - 0.43, text.percent(ceiling), ha="center", va="bottom", size=8.5)


def _phrase(name: str, row: dict, ceiling: Real | None) -> str:
    bounds = text.interval(row.get("ua_interval"))
    within = f" (95 % interval {bounds})" if bounds else ""
    limit = f", ceiling {text.percent(ceiling)} %" if text.known(ceiling) else ""
    return f"{text.NETWORKS.get(name, name)} {text.percent(row.get('ua'))} %{within}{limit}"
