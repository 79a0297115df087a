"""Draws the picture of a clip: spectrogram, faces, attention and predicted probabilities."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from emofuse_jax.reporting import text
from emofuse_jax.reporting.figures import attention, style
from emofuse_jax.reporting.figures.matplotlib_types import Axes, Figure
from emofuse_jax.reporting.gallery_clip import GalleryClip
from emofuse_jax.scoring import attention_weights

WIDTH_INCHES = 9.6
LEFT_INCHES = 1.1
"""Left margin of spectrogram and faces in inches."""
SPECTROGRAM_INCHES = 5.5
"""Width of the spectrogram in inches."""
MAX_FACES = 16
MEL_TICKS_HZ = (250, 500, 1000, 2000, 4000, 7000)


def example_picture(index: int, example: GalleryClip, marks: Sequence[str] = ()) -> style.Picture:
    """Draws one clip: its spectrogram, faces, attention and predicted probabilities.

    Args:
      index: number in the name of the picture.
      example: data of the clip: `clip_id`, `label` and `prediction` (names of classes), `probabilities` by
        class. With a `spectrogram` [t f], also `seconds` (its length), and `max_hz` (upper end of its
        frequency axis) or `bin_hz` [f] (centres of its mel filters in Hz). With `faces` uint8 [s h w 3], also
        `face_mask` bool [s], True for frames with a face. Optional are `audio_attention` [u] or [u g] over u
        steps of the audio and g bands of frequency, `video_attention` [l], each entry for s / l consecutive
        frames, `face_time` [s] in seconds, and `voice_weight` and `face_weight` (0 to 1). Of more than 16
        faces, 16 evenly spaced ones are drawn.
      marks: warnings that are written into the picture.

    Returns:
      The picture `example_<index>`: PNG bytes in the light and the dark theme (`light`, `dark`), the
      alternative text `alt`, and `width` and `height` in CSS pixels.

    Raises:
      ValueError: if the number of faces is not a multiple of the length of `video_attention`, or Matplotlib
        is not installed.
      KeyError: if a field of `example` that is needed is missing.
      IndexError: if `face_mask` or `face_time` has fewer entries than there are faces.
    """
    faces = example.get("faces")
    frame_indices = select_frames(0 if faces is None else len(faces))
    face_inches = min(0.95, (WIDTH_INCHES - LEFT_INCHES - 0.12) / max(len(frame_indices), 1))
    bar_inches = 0.0 if example.get("video_attention") is None else 0.42
    height = 3.85 + (face_inches + 0.38 + bar_inches if len(frame_indices) else 0.3)

    def draw(figure: Figure, theme: style.Theme) -> None:
        figure.text(
            LEFT_INCHES / WIDTH_INCHES,
            1 - 0.14 / height,
            format_heading(example),
            va="top",
            size=11,
            weight="bold",
        )
        _draw_audio(figure, theme, example, height)
        _draw_prediction(figure, theme, example, height)
        _draw_faces(figure, theme, example, frame_indices, face_inches, bar_inches)

    size = (WIDTH_INCHES, height)
    return style.make_picture(
        f"example_{index}", _alt_text(example), size, draw, marks=marks, layout=None, dpi=150
    )


def format_heading(example: GalleryClip) -> str:
    """Returns one line of text with the clip, its true class, and the prediction (right or wrong).

    An example is `clip_1   truth: sad   prediction: happy (wrong)`. Long names are shortened: the clip_id to
    44 characters, the classes to 20.
    """
    is_correct = example["label"] == example["prediction"]
    verdict = "right" if is_correct else "wrong"
    return (
        f"{text.shorten(example['clip_id'], 44)}   truth: {text.shorten(example['label'], 20)}   "
        f"prediction: {text.shorten(example['prediction'], 20)} ({verdict})"
    )


def select_frames(count: int) -> Int[np.ndarray, " n"]:
    """Returns the indices of the frames to draw, from 0 to `count - 1`.

    These are all frames or, if there are more than MAX_FACES (16), that number of evenly spaced ones. The
    array is empty if `count` is 0.
    """
    return np.linspace(0, count - 1, min(count, MAX_FACES)).round().astype(int)


def modality_weights(example: GalleryClip) -> tuple[float, float] | None:
    """Returns `(audio, video)`, the weights of both modalities from 0 to 1, or None if one is not known.

    They are `voice_weight` and `face_weight` of the clip; one that is missing, None or NaN is not known.
    """
    audio, video = example.get("voice_weight"), example.get("face_weight")
    return (audio, video) if text.is_finite(audio) and text.is_finite(video) else None


def frequency_range(example: GalleryClip) -> tuple[float, float]:
    """Returns (0, upper end) of the frequency axis: in Hz, or in bins if `bin_hz` of the clip is not None.

    The upper end is `max_hz` or the number of entries of `bin_hz`. Raises KeyError if the clip has neither.
    """
    bin_hz = example.get("bin_hz")
    return (0.0, float(example["max_hz"] if bin_hz is None else len(bin_hz)))


def _add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Adds axes and returns them; position (of the lower left corner) and size are in inches."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, bottom / h, width / w, height / h))


def _draw_audio(figure: Figure, theme: style.Theme, example: GalleryClip, height: float) -> None:
    """Draws the spectrogram with attention as a colour on top and as a curve over time above it.

    `example` has `spectrogram` [t f], `seconds`, and `max_hz` or `bin_hz` [f]; `audio_attention`, [u] or
    [u g] over u steps and g bands of frequency, is optional. Without a spectrogram, a text such as "no audio"
    is drawn instead. `height` is that of the picture in inches.
    """
    axes = _add_axes(figure, LEFT_INCHES, height - 3.2, SPECTROGRAM_INCHES, 2.0)
    spectrogram = example.get("spectrogram")
    if spectrogram is None or np.size(spectrogram) == 0:
        message = example.get("no_sound", "no audio")
        axes.text(0.5, 0.5, message, ha="center", va="center", color=theme.muted, transform=axes.transAxes)
        style.hide_axes(axes)
        return
    spectrogram = np.nan_to_num(np.asarray(spectrogram, np.float32))
    extent = (0, max(float(example["seconds"]), 1e-3), *frequency_range(example))
    low, high = np.percentile(spectrogram, (8, 99.7))
    image_kwargs: dict[str, Any] = {"origin": "lower", "aspect": "auto", "extent": extent}
    cmap = "Greys" if theme.name == "light" else "gray"
    axes.imshow(spectrogram.T, cmap=cmap, vmin=low, vmax=max(high, low + 1e-6), **image_kwargs)
    relative = attention_weights.relative_attention(example.get("audio_attention"))
    if relative is not None:
        axes.imshow(attention.attention_overlay(relative, theme), interpolation="bilinear", **image_kwargs)
        attention.draw_attention_strip(
            _add_axes(figure, LEFT_INCHES, height - 1.12, SPECTROGRAM_INCHES, 0.52),
            theme,
            relative,
            extent[1],
        )
    axes.set(xlabel="seconds", ylabel="Hz", xlim=extent[:2], ylim=extent[2:])
    bin_hz = example.get("bin_hz")
    if bin_hz is not None:  # mel scale: evenly spaced bins, but not in Hz
        tick_positions = np.interp(MEL_TICKS_HZ, bin_hz, np.arange(len(bin_hz)) + 0.5)
        axes.set_yticks(tick_positions, [f"{hz:g}" for hz in MEL_TICKS_HZ])
    axes.tick_params(color=theme.muted)


def _draw_prediction(figure: Figure, theme: style.Theme, example: GalleryClip, height: float) -> None:
    """Draws the probabilities as bars (true class in bold) and below them the weights of the modalities.

    `height` is that of the picture in inches.
    """
    classes = list(example["probabilities"])
    values = [example["probabilities"][name] for name in classes]
    weights = modality_weights(example)
    bottom_offset = 2.62 if weights else 3.2
    axes = _add_axes(
        figure,
        LEFT_INCHES + SPECTROGRAM_INCHES + 1.2,
        height - bottom_offset,
        WIDTH_INCHES - LEFT_INCHES - SPECTROGRAM_INCHES - 1.32,
        bottom_offset - 0.6,
    )
    bar_lengths = np.nan_to_num(np.asarray(values, float))
    bar_colours = [theme.both if name == example["prediction"] else theme.muted for name in classes]
    axes.barh(range(len(classes)), bar_lengths, 0.68, color=bar_colours)
    font_size = 8.5 if len(classes) <= 10 else 6.5
    names = [text.shorten(name, 11) for name in classes]
    axes.set_yticks(range(len(classes)), names, color=theme.foreground, size=font_size)
    for position, value in enumerate(values):
        axes.text(
            bar_lengths[position] + 0.03, position, text.format_percent(value, 0), va="center", size=font_size
        )
    for tick, name in zip(axes.get_yticklabels(), classes, strict=True):
        tick.set_fontweight("bold" if name == example["label"] else "normal")
    axes.set(xlim=(0, 1.22), ylim=(len(classes) - 0.5, -0.5), xticks=[])
    title_kwargs: dict[str, Any] = {"size": 8.5, "weight": "normal", "color": theme.muted}
    axes.set_title("probability, % (true class bold)", loc="right", pad=3, **title_kwargs)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if weights:
        _draw_modality_weights(figure, theme, weights, height)


def _draw_modality_weights(
    figure: Figure, theme: style.Theme, weights: tuple[float, float], height: float
) -> None:
    axes = _add_axes(
        figure,
        LEFT_INCHES + SPECTROGRAM_INCHES + 0.35,
        height - 3.2,
        WIDTH_INCHES - LEFT_INCHES - SPECTROGRAM_INCHES - 0.47,
        0.24,
    )
    start = 0.0
    for name, weight in zip(("voice", "face"), weights, strict=True):
        axes.barh(0, weight, 1, left=start, color=style.modality_colour(theme, name))
        start += weight
    axes.set(xlim=(0, max(start, 1e-6)), ylim=(-0.5, 0.5))
    style.hide_axes(axes)
    text_kwargs: dict[str, Any] = {"transform": axes.transAxes, "va": "bottom", "size": 8.5}
    axes.text(0, 1.12, f"audio {text.format_percent(weights[0], 0)} %", color=theme.audio, **text_kwargs)
    axes.text(
        1, 1.12, f"video {text.format_percent(weights[1], 0)} %", color=theme.video, ha="right", **text_kwargs
    )


def _draw_faces(
    figure: Figure,
    theme: style.Theme,
    example: GalleryClip,
    frame_indices: np.ndarray,
    face_inches: float,
    bar_inches: float,
) -> None:
    """Draws the faces in a row, a crossed box for a frame without a face; attention is a bar and the opacity.

    Without frames to draw, a text such as "no faces" is drawn instead.

    Args:
      figure: the picture.
      theme: colours of the picture.
      example: data of the clip: `faces`, `face_mask` and, optionally, `video_attention` and `face_time`.
      frame_indices: indices of the frames to draw.
      face_inches: width and height of a face in inches.
      bar_inches: height of the bars of attention in inches; 0 without attention.

    Raises:
      ValueError: if the number of faces is not a multiple of the length of `video_attention`.
    """
    if not len(frame_indices):
        message = example.get("no_faces", "no faces")
        figure.text(LEFT_INCHES / WIDTH_INCHES, 0.3 / figure.get_size_inches()[1], message, color=theme.muted)
        return
    bottom = style.FOOTER_INCHES + 0.22
    faces, valid = np.asarray(example["faces"]), np.asarray(example["face_mask"], bool)
    relative = attention_weights.relative_frame_attention(example.get("video_attention"), valid)
    face_axes = _add_axes(
        figure, LEFT_INCHES, bottom + bar_inches + 0.05, face_inches * len(frame_indices), face_inches
    )
    for position, frame in enumerate(frame_indices):
        box = (position + 0.03, position + 0.97, 0.03, 0.97)
        if not valid[frame]:
            style.draw_missing_face(face_axes, theme, box)
            continue
        fraction = 1.0 if relative is None else relative[frame] / relative.max()
        face_axes.imshow(faces[frame], extent=box, alpha=0.45 + 0.55 * float(fraction), aspect="auto")
    face_axes.set(xlim=(0, len(frame_indices)), ylim=(0, 1))
    style.hide_axes(face_axes)
    bar_axes = _add_axes(figure, LEFT_INCHES, bottom, face_inches * len(frame_indices), max(bar_inches, 0.02))
    bar_axes.set_xlim(0, len(frame_indices))
    style.hide_axes(bar_axes)
    if relative is not None:
        bar_axes.bar(np.arange(len(frame_indices)) + 0.5, relative[frame_indices], 0.94, color=theme.video)
        attention.draw_uniform_level(bar_axes, theme, float(relative.max()))
        attention.draw_left_label(bar_axes, theme, "video\nattention")
    times = example.get("face_time")
    if times is not None:
        labels = [f"{times[frame]:.1f} s" if valid[frame] else "" for frame in frame_indices]
        bar_axes.set_xticks(np.arange(len(frame_indices)) + 0.5, labels, size=7.5)
        bar_axes.tick_params(axis="x", length=0, pad=2)


def _alt_text(example: GalleryClip) -> str:
    mask = example.get("face_mask")
    faces_text = "no faces"
    if mask is not None and len(mask):
        faces_text = f"{int(np.sum(mask))} of {len(mask)} frames with a face"
    weights, weights_text = modality_weights(example), ""
    if weights:
        weights_text = (
            f" Weights: audio {text.format_percent(weights[0], 0)} %, video"
            f" {text.format_percent(weights[1], 0)} %."
        )
    return (
        f"Clip {example['clip_id']}, truth {example['label']}, prediction {example['prediction']}: "
        f"{text.format_percents(example['probabilities'])}.{weights_text} Spectrogram with attention,"
        f" and {faces_text}."
    )
