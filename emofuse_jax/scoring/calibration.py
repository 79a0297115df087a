"""How far probabilities can be believed: temperature, reliability, and the calibration error."""

import numpy as np
from jaxtyping import Float, Int

BOUNDS = (0.2, 10.0)
"""Lowest and highest temperature: few clips, all answered rightly, would ask for 0."""
STEPS = 30
"""Halvings of the range: to a part in 10^8."""
BINS = 15
TINY = 1e-12


def fit_temperature(probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> float:
    """The T that gives `tempered(probabilities, T)` the least mean `-log p(label)`; 1 without labelled clips.

    One number for all classes, so no answer changes (Guo et al., arXiv 1706.04599). To be fitted on clips
    that were not trained on.
    """
    known = labels >= 0
    if not known.any():
        return 1.0
    low, high = BOUNDS
    for _ in range(STEPS):
        middle = (low * high) ** 0.5
        if _too_sure(probabilities[known], labels[known], middle):
            low = middle
        else:
            high = middle
    return (low * high) ** 0.5


def _too_sure(probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], temperature: float):
    """Whether the mean of -log p, convex in 1 / T, falls as T rises: `E_p[log p'] > log p'(label)`."""
    logits = np.log(np.maximum(probabilities, TINY))
    expected = (tempered(probabilities, temperature) * logits).sum(-1)
    return (expected - logits[np.arange(len(labels)), labels]).mean() > 0


def tempered(probabilities: Float[np.ndarray, "*n c"], temperature: float) -> Float[np.ndarray, "*n c"]:
    """`softmax(log p / T)`: T above 1 makes answers less sure, below 1 more."""
    logits = np.log(np.maximum(np.asarray(probabilities, np.float64), TINY)) / temperature
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def negative_log(probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> float:
    """Mean `-log p(label)`, in nats."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], TINY)).mean())


def reliability(
    probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], bins: int = BINS
) -> list[dict]:
    """Mean `confidence`, `accuracy` and number of `clips` in each equal bin of confidence that has any."""
    known = labels >= 0
    confidence, answer = probabilities[known].max(-1), probabilities[known].argmax(-1)
    right, place = answer == labels[known], np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "confidence": float(confidence[place == i].mean()),
            "accuracy": float(right[place == i].mean()),
            "clips": int((place == i).sum()),
        }
        for i in np.unique(place)
    ]


def calibration_error(
    probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], bins: int = BINS
) -> float:
    """ECE: the mean over clips of `|accuracy - confidence|` of their bin (Naeini et al., AAAI 2015)."""
    rows = reliability(probabilities, labels, bins)
    gaps = [row["clips"] * abs(row["accuracy"] - row["confidence"]) for row in rows]
    return sum(gaps) / sum(row["clips"] for row in rows)
