"""Numbers and names as the report prints them: fractions become per cent, NaN becomes a dash."""

import math
from collections.abc import Sequence
from numbers import Real

import numpy as np
from jaxtyping import Float

DASH = "–"
METRIC_NAMES = {
    "wa": ("WA", "weighted accuracy (WAR): the share of clips that are right"),
    "ua": ("UA", "unweighted accuracy (UAR): the mean of the recalls of all classes"),
    "wf1": ("weighted F1", "F1 of each class, weighted by its clips"),
    "mf1": ("macro F1", "F1 of each class, all classes alike"),
}
MODALITY_NAMES = {"both": "sound and face", "audio": "sound only", "video": "face only"}
NETWORK_NAMES = {"both": "both together", "voice": "voice alone", "face": "face alone"}


def is_finite(value: Real | None) -> bool:
    """Whether `value` is a number that can be shown."""
    return value is not None and math.isfinite(value)


def format_percent(value: Real | None, digits: int = 1) -> str:
    """0.7134 -> "71.3"; None, NaN and infinities -> a dash."""
    return f"{100 * value:.{digits}f}" if is_finite(value) else DASH


def format_interval(bounds: Sequence[Real] | Float[np.ndarray, "2"] | None) -> str:
    """(0.65, 0.77) -> "65.0–77.0"; empty where either end is unknown."""
    if bounds is None or not all(is_finite(bound) for bound in bounds):
        return ""
    low, high = bounds
    return f"{format_percent(low)}{DASH}{format_percent(high)}"


def shorten(name: str, length: int = 16) -> str:
    """A name that fits beside an axis: head and tail, since names often differ at the end alone."""
    head, tail = length // 2, (length - 1) // 2
    return name if len(name) <= length else f"{name[:head]}…{name[len(name) - tail :]}"


def format_percents(pairs: dict[str, Real | None]) -> str:
    """Names and per cents as one phrase, for the alternative texts."""
    return ", ".join(f"{name} {format_percent(value)} %" for name, value in pairs.items())
