"""Draws attention over the spectrogram and the faces.

Attention is shown relative to uniform attention: ``r_i = n a_i / sum_j a_j``. The value 1 is what a network
without attention would use, for clips of any length.
"""

import numpy as np
from jaxtyping import Float

from emofuse_jax.reporting.figures.matplotlib_types import Axes
from emofuse_jax.reporting.figures.style import Theme


def attention_overlay(relative: np.ndarray, theme: Theme) -> Float[np.ndarray, "f t 4"]:
    """Returns an RGBA image (values from 0 to 1) that colours the positions with more than uniform attention.

    Row 0 is the first band, the lowest frequency. The opacity grows with the attention, up to 0.62; positions
    with uniform attention or less are transparent.

    Args:
      relative: attention divided by uniform attention, over t audio steps and f bands of frequency, [t f], or
        [t], which gives f = 1; not empty.
      theme: colours of the picture, `style.LIGHT` or `style.DARK`; the image has the colour of audio.

    Raises:
      ModuleNotFoundError: if Matplotlib is not installed.
    """
    from matplotlib.colors import to_rgb

    relative = relative if relative.ndim == 2 else relative[:, None]  # t 1
    excess = np.clip(relative - 1, 0, None) / max(float(relative.max()) - 1, 1.0)
    rgba = np.empty((*excess.T.shape, 4))
    rgba[..., :3] = to_rgb(theme.audio)
    rgba[..., 3] = 0.62 * np.sqrt(excess.T)  # square root: a second peak stays visible next to a sharp one
    return rgba


def draw_attention_strip(axes: Axes, theme: Theme, relative: np.ndarray, seconds: float) -> None:
    """Draws attention over the audio as a filled curve over time, with a line at uniform attention.

    Args:
      axes: axes to draw into; the x axis becomes 0 to `seconds`.
      theme: colours of the picture, `style.LIGHT` or `style.DARK`.
      relative: attention divided by uniform attention, [t] or [t f], which is averaged over f; not empty.
      seconds: duration of the audio.
    """
    time_attention = relative if relative.ndim == 1 else relative.mean(axis=1)
    edges = np.linspace(0, seconds, len(time_attention) + 1)
    axes.stairs(time_attention, edges, fill=True, color=theme.audio)
    draw_uniform_level(axes, theme, float(time_attention.max()))
    axes.set_xlim(0, seconds)
    axes.set_xticks([])
    draw_left_label(axes, theme, "audio\nattention")


def draw_uniform_level(axes: Axes, theme: Theme, max_value: float) -> None:
    """Draws a line at 1, uniform attention, and sets the y axis to multiples of uniform attention.

    The axis goes from 0 to 1.1 times `max_value`, the largest value that is drawn, or to 2 if that is larger.
    The ticks are 1 and, from 1.8 on, the largest value. `theme` is `style.LIGHT` or `style.DARK`.
    """
    axes.axhline(1, color=theme.foreground, lw=0.9, ls=(0, (3, 2)))
    y_max = max(2.0, 1.1 * max_value)
    axes.set_ylim(0, y_max)
    ticks = [1] if max_value < 1.8 else [1, round(max_value) if max_value >= 10 else round(max_value, 1)]
    axes.set_yticks(ticks, [f"{tick:g}×" for tick in ticks], size=7.5)
    axes.tick_params(axis="y", length=0, pad=2)
    axes.spines["left"].set_visible(False)


def draw_left_label(axes: Axes, theme: Theme, label: str) -> None:
    """Writes a label to the left of the axes; it ends 0.38 inches from them in every picture.

    `theme` is `style.LIGHT` or `style.DARK`.
    """
    axes.annotate(
        label,
        xy=(0, 0.45),
        xycoords="axes fraction",
        xytext=(-0.38 * 72, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        size=8.5,
        color=theme.muted,
    )
