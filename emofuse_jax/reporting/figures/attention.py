"""Attention as it is drawn over sound and faces.

It is shown relative to even attention: ``r_i = n a_i / sum_j a_j``, so 1 is what a network without
attention would give, whatever the length of the clip.
"""

import numpy as np
from jaxtyping import Float


def attention_overlay(relative: np.ndarray, theme) -> Float[np.ndarray, "f t 4"]:
    """Colour where attention is above even, the stronger the denser; nothing where it is even or below."""
    from matplotlib.colors import to_rgb

    relative = relative if relative.ndim == 2 else relative[:, None]  # t 1
    excess = np.clip(relative - 1, 0, None) / max(float(relative.max()) - 1, 1.0)
    rgba = np.empty((*excess.T.shape, 4))
    rgba[..., :3] = to_rgb(theme.audio)
    rgba[..., 3] = 0.62 * np.sqrt(excess.T)  # the square root keeps a second peak visible beside a sharp one
    return rgba


def draw_attention_strip(axes, theme, relative: np.ndarray, seconds: float) -> None:
    """Attention over time, in multiples of even attention."""
    time_attention = relative if relative.ndim == 1 else relative.mean(axis=1)
    edges = np.linspace(0, seconds, len(time_attention) + 1)
    axes.stairs(time_attention, edges, fill=True, color=theme.audio)
    draw_uniform_level(axes, theme, float(time_attention.max()))
    axes.set_xlim(0, seconds)
    axes.set_xticks([])
    draw_left_label(axes, theme, "sound\nattention")


def draw_uniform_level(axes, theme, max_value: float) -> None:
    """The line of even attention, and an axis in its multiples."""
    axes.axhline(1, color=theme.foreground, lw=0.9, ls=(0, (3, 2)))
    y_max = max(2.0, 1.1 * max_value)
    axes.set_ylim(0, y_max)
    ticks = [1] if max_value < 1.8 else [1, round(max_value) if max_value >= 10 else round(max_value, 1)]
    axes.set_yticks(ticks, [f"{tick:g}×" for tick in ticks], size=7.5)
    axes.tick_params(axis="y", length=0, pad=2)
    axes.spines["left"].set_visible(False)


def draw_left_label(axes, theme, label: str) -> None:
    """Writes left of the axis, at the same place in every picture."""
    placement = {
        "xy": (0, 0.45),
        "xycoords": "axes fraction",
        "xytext": (-0.38 * 72, 0),
        "textcoords": "offset points",
    }
    axes.annotate(label, **placement, ha="right", va="center", size=8.5, color=theme.muted)
