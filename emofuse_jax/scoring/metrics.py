"""Scores from confusion matrices, which add up over batches, devices and processes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

ClassPredictions = Float[Array | np.ndarray, "b c"] | Int[Array | np.ndarray, " b"]
METRIC_NAMES = ("ua", "wa", "wf1", "mf1")


def confusion_matrix(
    predictions: ClassPredictions,
    label: Int[Array | np.ndarray, " b"],
    weight: Float[Array | np.ndarray, " b"],
    num_classes: int,
) -> Float[Array, "c c"]:
    """`M_ij = sum of the weights of clips of class i that were answered j`.

    Args:
      predictions: probabilities or logits [b c], whose largest counts, or class indices [b].
      label: true classes; -1 counts nowhere.
      weight: 0 for padding.
      num_classes: c.
    """
    predicted = jnp.argmax(predictions, axis=-1) if predictions.ndim == 2 else predictions
    # a label of -1 is a zero row
    one_hot_labels = jax.nn.one_hot(label, num_classes) * jnp.asarray(weight)[:, None]
    return jnp.einsum("bi,bj->ij", one_hot_labels, jax.nn.one_hot(predicted, num_classes))


def compute_scores(matrix: Float[Array | np.ndarray, "c c"]) -> dict:
    """Fractions `ua`, `wa`, `wf1`, `mf1`, and `recall`, one a class, None for a class without clips.

    `ua` is the mean recall (UAR), `wa` the accuracy (WAR), `wf1` F1 weighted by the classes' clips, `mf1` its
    plain mean. As in scikit-learn, classes without clips are left out of `ua`, and of `mf1` when they were
    not answered either. Raises ValueError when nothing was counted.
    """
    matrix = np.asarray(matrix, np.float64)
    if not matrix.sum() > 0:
        raise ValueError("confusion matrix: all zero, expected at least one labelled clip")
    values = {name: float(value) for name, value in zip(METRIC_NAMES, batched_scores(matrix), strict=True)}
    support = matrix.sum(axis=1)
    recall = [float(matrix[i, i] / n) if n > 0 else None for i, n in enumerate(support)]
    return values | {"recall": recall}


def speaker_intervals(
    predicted: Int[np.ndarray, " n"],
    label: Int[np.ndarray, " n"],
    speaker: Int[np.ndarray, " n"],
    num_classes: int,
    *,
    resamples: int = 2000,
    seed: int,
    confidence_level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Bootstrap intervals of `ua`, `wa`, `wf1` and `mf1`, drawing whole speakers with replacement.

    Clips of one speaker are not independent, speakers are: drawing clips would give intervals that are too
    narrow. Percentile intervals, for they stay inside [0, 1] and exist where BCa doesn't: its correction is
    infinite at a perfect score, and its acceleration rests on as few values as there are speakers.
    Reference: Efron & Tibshirani, 1993. One speaker says nothing about others: (0, 1).

    Args:
      predicted: class indices.
      label: true classes; clips of -1 are left out.
      speaker: index of each clip's speaker.
      num_classes: c.
      resamples: number of draws.
      seed: of the draws.
      confidence_level: coverage.

    Raises:
      ValueError: no labelled clip.
    """
    matrices = speaker_confusion_matrices(predicted, label, speaker, num_classes)
    if len(matrices) == 1:
        return dict.fromkeys(METRIC_NAMES, (0.0, 1.0))

    def statistic(speaker_indices):
        return np.stack(batched_scores(matrices[speaker_indices].sum(axis=-3)))

    low, high = speaker_bootstrap_interval(
        statistic, len(matrices), resamples=resamples, seed=seed, confidence_level=confidence_level
    )
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(METRIC_NAMES)}


def speaker_confusion_matrices(
    predicted: Int[np.ndarray, " n"],
    label: Int[np.ndarray, " n"],
    speaker: Int[np.ndarray, " n"],
    num_classes: int,
) -> Float[np.ndarray, "s c c"]:
    """Confusion matrix of each speaker who has labelled clips; ValueError where nobody has."""
    labelled = label >= 0
    if not labelled.any():
        raise ValueError("label: no labelled clip to score")
    speaker_ids, speaker_index = np.unique(speaker[labelled], return_inverse=True)
    matrices = np.zeros((len(speaker_ids), num_classes, num_classes))
    np.add.at(matrices, (speaker_index, label[labelled], predicted[labelled]), 1.0)
    return matrices


def speaker_bootstrap_interval(
    statistic: Callable, speaker_count: int, *, resamples: int, seed: int, confidence_level: float
):
    """Percentile interval (low, high) of `statistic(speaker_indices [.. s]) -> [* ..]`, speakers drawn
    again."""
    from scipy import stats  # here, for it takes a second to load

    interval = stats.bootstrap(
        (np.arange(speaker_count),),
        lambda speaker_indices, axis: statistic(speaker_indices),  # the draw is on the last axis
        n_resamples=resamples,
        batch=250,
        vectorized=True,
        axis=-1,
        confidence_level=confidence_level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return interval.low, interval.high


def batched_scores(matrix: Float[np.ndarray, "*batch c c"]) -> tuple:
    """`ua`, `wa`, `wf1`, `mf1` of confusion matrices, none all zero; each is one masked sum over another."""
    correct = np.diagonal(matrix, axis1=-2, axis2=-1)  # ... c
    support, predicted_counts = matrix.sum(axis=-1), matrix.sum(axis=-2)
    total = support.sum(axis=-1)
    recall = _divide_or_zero(correct, support)
    f1 = _divide_or_zero(2 * correct, support + predicted_counts)
    ua = recall.sum(axis=-1) / (support > 0).sum(axis=-1)
    mf1 = f1.sum(axis=-1) / (support + predicted_counts > 0).sum(axis=-1)
    return ua, correct.sum(axis=-1) / total, (f1 * support).sum(axis=-1) / total, mf1


def _divide_or_zero(a, b):
    return np.divide(a, b, out=np.zeros_like(a, dtype=np.float64), where=b > 0)
