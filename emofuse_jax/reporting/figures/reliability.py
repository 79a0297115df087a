"""Pictures of what can be relied on: confidence against accuracy, and scores as the input gets worse."""

from collections.abc import Mapping, Sequence

from emofuse_jax.reporting import text
from emofuse_jax.reporting.figures import style

AXES = {"snr": "signal to noise, dB", "lost": "share of the faces that are masked, %"}
TITLES = {"snr": "UA in noise", "lost": "UA without faces"}
WITHOUT = {"audio": "without sound", "video": "without faces"}


def reliability_picture(
    curves: Mapping[str, Sequence[dict]], errors: Mapping[str, float], marks: Sequence[str] = ()
) -> style.Picture:
    """Accuracy over confidence, a line for each of `curves`; rows as of emofuse_jax/scoring/calibration.py.

    `errors`: the calibration error of each line.
    """

    def draw(figure, theme):
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], color=theme.muted, ls=(0, (1, 2)), lw=1.2, label="as sure as right")
        most = max(row["clips"] for rows in curves.values() for row in rows)
        for (name, rows), colour in zip(curves.items(), (theme.muted, theme.both), strict=False):
            x, y = ([100 * row[key] for row in rows] for key in ("confidence", "accuracy"))
            label = f"{name}, ECE {text.percent(errors[name])}"
            axes.plot(x, y, color=colour, lw=1.9, label=label)
            sizes = [8 + 90 * row["clips"] / most for row in rows]
            axes.scatter(x, y, sizes, color=colour, edgecolors=theme.page, zorder=3)
        axes.set(xlim=(0, 102), ylim=(0, 102), xlabel="confidence, %", ylabel="accuracy, %")
        axes.grid()
        axes.set_title("How sure, how right")
        axes.legend(loc="upper left", fontsize=9)

    told = ", ".join(f"{name} {text.percent(value)} %" for name, value in errors.items())
    return style.make_picture("reliability", f"Calibration error: {told}.", (4.6, 4.2), draw, marks=marks)


def robustness_picture(
    curve: str, rows: Sequence[dict], chance: float, marks: Sequence[str] = ()
) -> style.Picture:
    """UA along one of `AXES`; the first place of `snr` is the sound as it is."""
    names = [_place(curve, row["at"]) for row in rows]

    def draw(figure, theme):
        axes = figure.subplots()
        places, values = range(len(rows)), [100 * row["ua"] for row in rows]
        colour = theme.voice if curve == "snr" else theme.face
        axes.plot(places, values, "-o", color=colour, lw=1.9, ms=5)
        for place, value in zip(places, values, strict=True):
            axes.text(place, value + 3, f"{value:.0f}", ha="center", size=9, color=theme.ink)
        axes.axhline(100 * chance, color=theme.muted, ls=(0, (1, 2)), lw=1.2, label="chance")
        axes.set_xticks(places, names)
        axes.set(ylim=(0, 104), xlabel=AXES[curve])
        axes.grid(axis="y")
        axes.set_title(f"{TITLES[curve]}, %")
        axes.legend(loc="upper right", fontsize=9)

    told = text.listing({name: row["ua"] for name, row in zip(names, rows, strict=True)})
    alt = f"{TITLES[curve]}, by {AXES[curve]}: {told}."
    return style.make_picture(f"robustness_{curve}", alt, (5.2, 3.3), draw, marks=marks)


def _place(curve: str, at: float | None) -> str:
    if at is None:
        return "as it is"
    return f"{at:g}" if curve == "snr" else f"{100 * at:.0f}"
