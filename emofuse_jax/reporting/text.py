"""Formats numbers and names for reports: fractions become per cent, NaN becomes a dash."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeGuard, TypeVar

import numpy as np
from jaxtyping import Float

from emofuse_jax.scoring.result_types import Metric

Number = float | int | np.floating | np.integer
"""A number of Python or NumPy."""
NumberT = TypeVar("NumberT", bound=Number)
DASH = "–"
METRIC_NAMES: dict[Metric, tuple[str, str]] = {
    "wa": ("WA", "weighted accuracy (WAR): fraction of clips that are classified correctly"),
    "ua": ("UA", "unweighted accuracy (UAR): mean of the recalls of all classes"),
    "wf1": ("weighted F1", "mean F1 of the classes, weighted by their number of clips"),
    "mf1": ("macro F1", "mean F1 of the classes, all with equal weight"),
}
MODALITY_NAMES = {"both": "audio and video", "audio": "audio only", "video": "video only"}
NETWORK_NAMES = {"both": "audio-visual network", "voice": "audio network", "face": "video network"}


def is_finite(value: NumberT | None) -> TypeGuard[NumberT]:
    """Returns True if `value` is a finite number, and False if it is None, NaN or infinite."""
    return value is not None and math.isfinite(value)


def format_percent(value: Number | None, digits: int = 1) -> str:
    """Formats a fraction in per cent with `digits` decimals and without a unit: 0.7134 becomes "71.3".

    None, NaN and infinity become a dash.
    """
    return f"{100 * value:.{digits}f}" if is_finite(value) else DASH


def format_interval(bounds: Sequence[Number] | Float[np.ndarray, "2"] | None) -> str:
    """Formats an interval in per cent: (0.65, 0.77) becomes "65.0–77.0".

    Returns an empty string if `bounds` is None or a bound is None, NaN or infinite. Raises ValueError if
    there are more or fewer than two bounds.
    """
    if bounds is None or not all(is_finite(bound) for bound in bounds):
        return ""
    low, high = bounds
    return f"{format_percent(low)}{DASH}{format_percent(high)}"


def shorten(name: str, length: int = 16) -> str:
    """Shortens a name to at most `length` characters, so that it fits next to an axis.

    A shorter name is returned unchanged. In a longer one, an ellipsis replaces the middle: the beginning and
    the end remain, because names often differ only at the end.
    """
    head, tail = length // 2, (length - 1) // 2
    return name if len(name) <= length else f"{name[:head]}…{name[len(name) - tail :]}"


def format_percents(pairs: Mapping[str, Number | None]) -> str:
    """Returns names and values in per cent as one phrase for alternative texts: `calm 80.0 %, sad – %`.

    The values are fractions; None and NaN become a dash.
    """
    return ", ".join(f"{name} {format_percent(value)} %" for name, value in pairs.items())
