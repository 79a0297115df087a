"""Calibrates probabilities with a temperature, and measures their reliability and calibration error."""

import numpy as np
from jaxtyping import Float, Int

from emofuse_jax.scoring.result_types import ReliabilityBin

TEMPERATURE_RANGE = (0.2, 10.0)
"""Lowest and highest temperature; without a limit, a few correctly classified clips would give 0."""
BISECTION_STEPS = 30
"""Number of halvings of the range; 30 give a precision of about 1e-8."""
DEFAULT_BINS = 15
"""Number of confidence bins."""
MIN_PROBABILITY = 1e-12
"""Lower limit of a probability before its logarithm is taken."""


def fit_temperature(probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> float:
    """Fits one temperature for `apply_temperature` (temperature scaling, Guo et al., 2017, arXiv 1706.04599).

    Minimises the mean `-log p(label)` over the labelled clips. One temperature for all classes does not
    change the predicted class. Use clips that the model was not trained on.

    Args:
      probabilities: probabilities of the c classes for each of n clips.
      labels: true classes, from 0 to c - 1; clips with label -1 are left out.

    Returns:
      The temperature, between 0.2 and 10 (`TEMPERATURE_RANGE`); 1.0 if no clip has a label.

    Raises:
      IndexError: if a label is not below c.
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
) -> bool:
    """Returns True if a temperature above `temperature` gives a lower mean of `-log p(label)`, else False.

    Every clip must have a label, from 0 to c - 1 for c classes. The mean is convex in 1 / T, with T the
    temperature. It falls as T rises as long as `E_q[log p] > log p(label)` on average, with `q` the
    probabilities at this temperature.
    """
    logits = np.log(np.maximum(probabilities, MIN_PROBABILITY))
    expected = (apply_temperature(probabilities, temperature) * logits).sum(-1)
    return bool((expected - logits[np.arange(len(labels)), labels]).mean() > 0)


def apply_temperature(
    probabilities: Float[np.ndarray, "*n c"], temperature: float
) -> Float[np.ndarray, "*n c"]:
    """Returns the probabilities `softmax(log p / T)` as float64, in the same shape.

    T is the temperature, above 0. The softmax is over the last axis, the c classes; a probability `p` below
    1e-12 counts as 1e-12. T above 1 makes predictions less confident, T below 1 more confident.
    """
    logits = np.log(np.maximum(np.asarray(probabilities, np.float64), MIN_PROBABILITY)) / temperature
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def negative_log_likelihood(probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> float:
    """Returns the mean of `-log p(label)` over all clips, in nats; NaN if there are no clips.

    A probability below 1e-12 counts as 1e-12. Every clip must have a label: a label of -1 is not left out,
    but read as the last class. Raises IndexError if a label is not below c.
    """
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], MIN_PROBABILITY)).mean())


def reliability_bins(
    probabilities: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], bins: int = DEFAULT_BINS
) -> list[ReliabilityBin]:
    """Groups the labelled clips into bins of equal width by their confidence, the largest probability.

    Args:
      probabilities: probabilities of the c classes for each of n clips.
      labels: true classes; clips with label -1 are left out.
      bins: number of bins from confidence 0 to 1, by default 15. A bin contains its lower limit, not its
        upper one; only the last bin contains both.

    Returns:
      One dict per bin that has clips, in ascending order of confidence: `confidence` (mean, 0 to 1),
      `accuracy` (fraction of the clips that are classified correctly) and `clips` (number of clips). The list
      is empty if no clip has a label.
    """
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
    """Returns the expected calibration error (ECE; Naeini et al., AAAI 2015) as a fraction from 0 to 1.

    The labelled clips are grouped into `bins` bins of equal width by their confidence, the largest
    probability. The error is the mean over these clips of `|accuracy - mean confidence|` of the clip's bin.

    Args:
      probabilities: probabilities of the c classes for each of n clips.
      labels: true classes; clips with label -1 are left out.
      bins: number of bins from confidence 0 to 1, by default 15.

    Raises:
      ZeroDivisionError: if no clip has a label.
    """
    bin_rows = reliability_bins(probabilities, labels, bins)
    weighted_gaps = [row["clips"] * abs(row["accuracy"] - row["confidence"]) for row in bin_rows]
    return sum(weighted_gaps) / sum(row["clips"] for row in bin_rows)
