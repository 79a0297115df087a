"""How far probabilities can be believed: temperature, reliability, and the calibration error."""

import numpy as np
from jaxtyping import Float, Int

TEMPERATURE_RANGE = (0.2, 10.0)
"""Lowest and highest temperature: few clips, all answered rightly, would ask for 0."""
BISECTION_STEPS = 30
"""Halvings of the range: to a part in 10^8."""
DEFAULT_BINS = 15
MIN_PROBABILITY = 1e-12


def fit_temperature(probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> float:
    """The T that gives `apply_temperature(probabilities, T)` the least mean `-log p(label)`; 1 without
    labelled clips.

    One number for all classes, so no answer changes (Guo et al., arXiv 1706.04599). To be fitted on clips
    that were not trained on.
    """
    labelled = labels >= 0
    if not labelled.any():
        return 1.0
    low, high = TEMPERATURE_RANGE
    for _ in range(BISECTION_STEPS):
        middle = (low * high) ** 0.5
        if _is_overconfident(probabilities[labelled], labels[labelled], middle):
            low = middle
        else:
            high = middle
    return (low * high) ** 0.5


def _is_overconfident(
    probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], temperature: float
):
    """Whether the mean of -log p, convex in 1 / T, falls as T rises: `E_p[log p'] > log p'(label)`."""
    logits = np.log(np.maximum(probabilities, MIN_PROBABILITY))
    expected = (apply_temperature(probabilities, temperature) * logits).sum(-1)
    return (expected - logits[np.arange(len(labels)), labels]).mean() > 0


def apply_temperature(
    probabilities: Float[np.ndarray, "*n c"], temperature: float
) -> Float[np.ndarray, "*n c"]:
    """`softmax(log p / T)`: T above 1 makes answers less sure, below 1 more."""
    logits = np.log(np.maximum(np.asarray(probabilities, np.float64), MIN_PROBABILITY)) / temperature
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def negative_log_likelihood(probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> float:
    """Mean `-log p(label)`, in nats."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], MIN_PROBABILITY)).mean())


def reliability_bins(
    probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], bins: int = DEFAULT_BINS
) -> list[dict]:
    """Mean `confidence`, `accuracy` and number of `clips` in each equal bin of confidence that has any."""
    labelled = labels >= 0
    confidence, predicted = probabilities[labelled].max(-1), probabilities[labelled].argmax(-1)
    is_correct, bin_index = (
        predicted == labels[labelled],
        np.minimum((confidence * bins).astype(int), bins - 1),
    )
    return [
        {
            "confidence": float(confidence[bin_index == i].mean()),
            "accuracy": float(is_correct[bin_index == i].mean()),
            "clips": int((bin_index == i).sum()),
        }
        for i in np.unique(bin_index)
    ]


def calibration_error(
    probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], bins: int = DEFAULT_BINS
) -> float:
    """ECE: the mean over clips of `|accuracy - confidence|` of their bin (Naeini et al., AAAI 2015)."""
    bin_rows = reliability_bins(probabilities, labels, bins)
    weighted_gaps = [row["clips"] * abs(row["accuracy"] - row["confidence"]) for row in bin_rows]
    return sum(weighted_gaps) / sum(row["clips"] for row in bin_rows)
