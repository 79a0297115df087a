"""One picture a clip: what was heard and seen, where attention lay, and what was answered."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from emofuse_jax.reporting import text
from emofuse_jax.reporting.figures import attention, style
from emofuse_jax.scoring import attention_weights

WIDTH = 9.6
LEFT = 1.1
"""Inches left of spectrogram and faces."""
SOUND = 5.5
"""Inches of the spectrogram."""
FACES_SHOWN = 16
MEL_TICKS = (250, 500, 1000, 2000, 4000, 7000)


def example_picture(index: int, example: dict, marks: Sequence[str] = ()) -> style.Picture:
    """The picture of one example (see `emofuse_jax.reporting.run_report.write_report`), named
    ``example_<index>``."""
    faces = example.get("faces")
    shown = shown_frames(0 if faces is None else len(faces))
    row = min(0.95, (WIDTH - LEFT - 0.12) / max(len(shown), 1))
    bars = 0.0 if example.get("video_attention") is None else 0.42
    height = 3.85 + (row + 0.38 + bars if len(shown) else 0.3)

    def draw(figure, theme):
        figure.text(LEFT / WIDTH, 1 - 0.14 / height, heading(example), va="top", size=11, weight="bold")
        _sound(figure, theme, example, height)
        _answer(figure, theme, example, height)
        _faces(figure, theme, example, shown, row, bars)

    size = (WIDTH, height)
    return style.make_picture(
        f"example_{index}", _alt(example), size, draw, marks=marks, layout=None, dpi=150
    )


def heading(example: dict) -> str:
    """Clip, truth and prediction on one line."""
    right = example["label"] == example["prediction"]
    verdict = "right" if right else "wrong"
    return (
        f"{text.shorten(example['clip_id'], 44)}   truth: {text.shorten(example['label'], 20)}   "
        f"prediction: {text.shorten(example['prediction'], 20)} ({verdict})"
    )


def shown_frames(count: int) -> Int[np.ndarray, " n"]:
    """Indices of the frames that the picture has room for, even over the clip."""
    return np.linspace(0, count - 1, min(count, FACES_SHOWN)).round().astype(int)


def frequency_range(example: dict) -> tuple[float, float]:
    """The lower and upper end of the frequency axis: Hz, or bins where these are not even in Hz."""
    return (0.0, float(example["max_hz"] if example.get("bin_hz") is None else len(example["bin_hz"])))


def _place(figure, left: float, bottom: float, width: float, height: float):
    """Axes at inches from the lower left corner."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, bottom / h, width / w, height / h))


def _sound(figure, theme, example, height) -> None:
    """Spectrogram, frequency upwards; attention tinted over it and summed to a strip above it."""
    axes = _place(figure, LEFT, height - 3.2, SOUND, 2.0)
    spectrogram = example.get("spectrogram")
    if spectrogram is None or np.size(spectrogram) == 0:
        words = example.get("no_sound", "no sound")
        axes.text(0.5, 0.5, words, ha="center", va="center", color=theme.muted, transform=axes.transAxes)
        style.bare(axes)
        return
    spectrogram = np.nan_to_num(np.asarray(spectrogram, np.float32))
    extent = (0, max(float(example["seconds"]), 1e-3), *frequency_range(example))
    low, high = np.percentile(spectrogram, (8, 99.7))
    look = {"origin": "lower", "aspect": "auto", "extent": extent}
    cmap = "Greys" if theme.name == "light" else "gray"
    axes.imshow(spectrogram.T, cmap=cmap, vmin=low, vmax=max(high, low + 1e-6), **look)
    relative = attention_weights.relative_attention(example.get("audio_attention"))
    if relative is not None:
        axes.imshow(attention.tint(relative, theme), interpolation="bilinear", **look)
        attention.draw_strip(_place(figure, LEFT, height - 1.12, SOUND, 0.52), theme, relative, extent[1])
    axes.set(xlabel="seconds", ylabel="Hz", xlim=extent[:2], ylim=extent[2:])
    if example.get("bin_hz") is not None:  # a mel scale: even in bins, not in Hz
        places = np.interp(MEL_TICKS, example["bin_hz"], np.arange(len(example["bin_hz"])) + 0.5)
        axes.set_yticks(places, [f"{hz:g}" for hz in MEL_TICKS])
    axes.tick_params(color=theme.muted)


def _answer(figure, theme, example, height) -> None:
    """Probabilities as bars, the truth marked; below them how much the fusion took from each stream."""
    classes = list(example["probabilities"])
    values = [example["probabilities"][name] for name in classes]
    weights = [example.get("voice_weight"), example.get("face_weight")]
    split = all(text.known(weight) for weight in weights)
    below = 2.62 if split else 3.2
    axes = _place(figure, LEFT + SOUND + 1.2, height - below, WIDTH - LEFT - SOUND - 1.32, below - 0.6)
    lengths = np.nan_to_num(np.asarray(values, float))
    colours = [theme.both if name == example["prediction"] else theme.muted for name in classes]
    axes.barh(range(len(classes)), lengths, 0.68, color=colours)
    small = 8.5 if len(classes) <= 10 else 6.5
    names = [text.shorten(name, 11) for name in classes]
    axes.set_yticks(range(len(classes)), names, color=theme.ink, size=small)
    for place, value in enumerate(values):
        axes.text(lengths[place] + 0.03, place, text.percent(value, 0), va="center", size=small)
    for tick, name in zip(axes.get_yticklabels(), classes, strict=True):
        tick.set_fontweight("bold" if name == example["label"] else "normal")
    axes.set(xlim=(0, 1.22), ylim=(len(classes) - 0.5, -0.5), xticks=[])
    look = {"size": 8.5, "weight": "normal", "color": theme.muted}
    axes.set_title("probability, % (truth bold)", loc="right", pad=3, **look)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if split:
        _weights(figure, theme, weights, height)


def _weights(figure, theme, weights, height) -> None:
    axes = _place(figure, LEFT + SOUND + 0.35, height - 3.2, WIDTH - LEFT - SOUND - 0.47, 0.24)
    start = 0.0
    for name, weight in zip(("voice", "face"), weights, strict=True):
        axes.barh(0, weight, 1, left=start, color=style.colour_of(theme, name))
        start += weight
    axes.set(xlim=(0, max(start, 1e-6)), ylim=(-0.5, 0.5))
    style.bare(axes)
    at = {"transform": axes.transAxes, "va": "bottom", "size": 8.5}
    axes.text(0, 1.12, f"voice {text.percent(weights[0], 0)} %", color=theme.voice, **at)
    axes.text(1, 1.12, f"face {text.percent(weights[1], 0)} %", color=theme.face, ha="right", **at)


def _faces(figure, theme, example, shown: np.ndarray, side: float, bars: float) -> None:
    """Faces in order, a cross where none was found; attention as a bar and as opacity."""
    if not len(shown):
        words = example.get("no_faces", "no faces")
        figure.text(LEFT / WIDTH, 0.3 / figure.get_size_inches()[1], words, color=theme.muted)
        return
    bottom = style.FOOTER + 0.22
    valid = np.asarray(example["face_mask"], bool)
    relative = attention_weights.over_frames(example.get("video_attention"), valid)
    row = _place(figure, LEFT, bottom + bars + 0.05, side * len(shown), side)
    for place, frame in enumerate(shown):
        box = (place + 0.03, place + 0.97, 0.03, 0.97)
        if not valid[frame]:
            style.cross(row, theme, box)
            continue
        share = 1.0 if relative is None else relative[frame] / relative.max()
        row.imshow(example["faces"][frame], extent=box, alpha=0.45 + 0.55 * float(share), aspect="auto")
    row.set(xlim=(0, len(shown)), ylim=(0, 1))
    style.bare(row)
    below = _place(figure, LEFT, bottom, side * len(shown), max(bars, 0.02))
    below.set_xlim(0, len(shown))
    style.bare(below)
    if relative is not None:
        below.bar(np.arange(len(shown)) + 0.5, relative[shown], 0.94, color=theme.face)
        attention.draw_even(below, theme, float(relative.max()))
        attention.draw_label(below, theme, "face\nattention")
    times = example.get("face_time")
    if times is not None:
        labels = [f"{times[frame]:.1f} s" if valid[frame] else "" for frame in shown]
        below.set_xticks(np.arange(len(shown)) + 0.5, labels, size=7.5)
        below.tick_params(axis="x", length=0, pad=2)


def _alt(example: dict) -> str:
    mask = example.get("face_mask")
    faces = "no faces"
    if mask is not None and len(mask):
        faces = f"{int(np.sum(mask))} of {len(mask)} frames with a face"
    weights, split = [example.get("voice_weight"), example.get("face_weight")], ""
    if all(text.known(weight) for weight in weights):
        split = f" Weights: voice {text.percent(weights[0], 0)} %, face {text.percent(weights[1], 0)} %."
    return (
        f"Clip {example['clip_id']}, truth {example['label']}, prediction {example['prediction']}: "
        f"{text.listing(example['probabilities'])}.{split} Spectrogram with attention, and {faces}."
    )
