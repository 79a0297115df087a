"""Computes scores from confusion matrices, which can be summed over batches, devices and processes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from emofuse_jax.scoring.result_types import Metric, ScoreFields

Statistic = Callable[[Int[np.ndarray, "*draws s"]], Float[np.ndarray, "*values"]]
"""Maps speaker indices to values; the leading axes of the indices become the last ones of the values."""
ClassPredictions = Float[Array | np.ndarray, "b c"] | Int[Array | np.ndarray, " b"]
METRIC_NAMES: tuple[Metric, ...] = ("ua", "wa", "wf1", "mf1")
"""Mean recall (UAR), accuracy (WAR), F1 weighted by class size, and macro F1."""


def confusion_matrix(
    predictions: ClassPredictions,
    label: Int[Array | np.ndarray, " b"],
    weight: Float[Array | np.ndarray, " b"],
    num_classes: int,
) -> Float[Array, "c c"]:
    """Returns the confusion matrix: `M_ij` is the summed weight of clips of class i that are predicted as j.

    The matrix is float32 [c c].

    Args:
      predictions: probabilities or logits [b c], whose maximum is the predicted class, or class indices [b].
      label: true classes; clips with label -1 are not counted.
      weight: weight of each clip; 0 for padding.
      num_classes: number of classes, c.
    """
    predicted = jnp.argmax(predictions, axis=-1) if predictions.ndim == 2 else predictions
    # one_hot(-1) is a row of zeros
    one_hot_labels = jax.nn.one_hot(label, num_classes) * jnp.asarray(weight)[:, None]
    return jnp.einsum("bi,bj->ij", one_hot_labels, jax.nn.one_hot(predicted, num_classes))


def compute_scores(matrix: Float[Array | np.ndarray, "c c"]) -> ScoreFields:
    """Computes the scores of a confusion matrix (rows are true classes, columns predicted classes).

    As in scikit-learn, classes without clips are left out of `ua`; they are left out of `mf1` if they were
    never predicted either.

    Returns:
      A dict of fractions: `ua` (mean recall, UAR), `wa` (accuracy, WAR), `wf1` (F1 weighted by the number of
      clips of each class), `mf1` (unweighted mean F1), and `recall`, a list with one entry per class, None
      for a class without clips.

    Raises:
      ValueError: if the matrix is all zero.
    """
    matrix = np.asarray(matrix, np.float64)
    if not matrix.sum() > 0:
        raise ValueError(
            "confusion matrix: all counts are 0, expected at least one labelled clip; score clips with labels"
        )
    ua, wa, wf1, mf1 = (float(score) for score in batched_scores(matrix))
    support = matrix.sum(axis=1)
    recall = [float(matrix[i, i] / n) if n > 0 else None for i, n in enumerate(support)]
    return {"ua": ua, "wa": wa, "wf1": wf1, "mf1": mf1, "recall": recall}


def speaker_intervals(
    predicted: Int[np.ndarray, " n"],
    label: Int[np.ndarray, " n"],
    speaker: Int[np.ndarray, " n"],
    num_classes: int,
    *,
    resamples: int = 2000,
    seed: int,
    confidence_level: float = 0.95,
) -> dict[Metric, tuple[float, float]]:
    """Computes bootstrap confidence intervals by resampling complete speakers with replacement.

    Clips of one speaker are not independent, but speakers are: resampling clips would give intervals that are
    too narrow. Percentile intervals are used because they stay inside [0, 1] and always exist. The correction
    of BCa intervals is infinite at a perfect score, and their acceleration is estimated from as few values as
    there are speakers. Reference: Efron & Tibshirani, 1993.

    Args:
      predicted: predicted class indices.
      label: true classes; clips with label -1 are left out.
      speaker: speaker index of each clip.
      num_classes: number of classes, c.
      resamples: number of bootstrap resamples.
      seed: seed of the random resamples.
      confidence_level: coverage of the intervals, between 0 and 1.

    Returns:
      `{"ua": (low, high), "wa": ..., "wf1": ..., "mf1": ...}`, the intervals of mean recall (UAR), accuracy,
      F1 weighted by class size, and macro F1, as fractions. With a single speaker with labelled clips, every
      interval is (0, 1).

    Raises:
      ValueError: if no clip has a label, or if there are several speakers and `resamples` is less than 1 or
        `seed` is negative.
      IndexError: if the arrays differ in length, or a class index is not below `num_classes`.
    """
    matrices = speaker_confusion_matrices(predicted, label, speaker, num_classes)
    if len(matrices) == 1:
        return dict.fromkeys(METRIC_NAMES, (0.0, 1.0))

    def statistic(speaker_indices: Int[np.ndarray, "*rest s"]) -> Float[np.ndarray, "4 *rest"]:
        return batched_scores(matrices[speaker_indices].sum(axis=-3))

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
    """Returns one confusion matrix for each speaker with labelled clips, in ascending order of speaker index.

    The result is float64 [s c c]: numbers of clips, for these s speakers and c = `num_classes` classes; rows
    are true classes, columns predicted classes. Clips with label -1 are left out.

    Raises:
      ValueError: if no clip has a label.
      IndexError: if the arrays differ in length, or a class index is not below `num_classes`.
    """
    labelled = label >= 0
    if not labelled.any():
        raise ValueError("label: no clip has a label, expected at least one; score clips with labels")
    speaker_ids, speaker_index = np.unique(speaker[labelled], return_inverse=True)
    matrices = np.zeros((len(speaker_ids), num_classes, num_classes))
    np.add.at(matrices, (speaker_index, label[labelled], predicted[labelled]), 1.0)
    return matrices


def speaker_bootstrap_interval(
    statistic: Statistic, speaker_count: int, *, resamples: int, seed: int, confidence_level: float
) -> tuple[Float[np.ndarray, "*values"], Float[np.ndarray, "*values"]]:
    """Returns the percentile bootstrap interval `(low, high)` of a statistic over resampled speakers.

    Args:
      statistic: maps the indices of s speakers (0 to s - 1, with repetitions) to values: int [s] to an array
        [*values] of any shape, and several resamples at once, int [*draws s], to [*values *draws].
      speaker_count: number of speakers, s.
      resamples: number of bootstrap resamples.
      seed: seed of the random resamples.
      confidence_level: coverage of the interval, between 0 and 1.

    Returns:
      Two float64 arrays, the lower and the upper bound, in the shape [*values] of one resample.

    Raises:
      ValueError: if there are fewer than two speakers, `resamples` is less than 1, or `seed` is negative.
    """
    from scipy import stats  # imported here because it takes a second to load

    interval = stats.bootstrap(
        (np.arange(speaker_count),),
        # SciPy puts the resampled speakers on the last axis, as `statistic` expects
        lambda speaker_indices, axis: statistic(speaker_indices),
        n_resamples=resamples,
        batch=250,
        vectorized=True,
        axis=-1,
        confidence_level=confidence_level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return np.asarray(interval.low), np.asarray(interval.high)


def batched_scores(matrix: Float[np.ndarray, "*rest c c"]) -> Float[np.ndarray, "4 *rest"]:
    """Returns the four scores `ua`, `wa`, `wf1` and `mf1` of each confusion matrix, along a new first axis.

    The axes before the last two (c true classes, c predicted classes) count the matrices; they follow the
    axis of the scores in the result, float64 [4 *rest]. All scores are fractions: `ua` is the mean recall of
    the classes with clips, `wa` the accuracy, `wf1` the mean F1 weighted by the number of clips of each
    class, and `mf1` the mean F1 of the classes that have clips or were predicted. The scores of a matrix that
    is all zero are NaN.
    """
    correct = np.diagonal(matrix, axis1=-2, axis2=-1)  # ... c
    support, predicted_counts = matrix.sum(axis=-1), matrix.sum(axis=-2)
    total = support.sum(axis=-1)
    recall = _divide_or_zero(correct, support)
    f1 = _divide_or_zero(2 * correct, support + predicted_counts)
    ua = recall.sum(axis=-1) / (support > 0).sum(axis=-1)
    mf1 = f1.sum(axis=-1) / (support + predicted_counts > 0).sum(axis=-1)
    return np.stack([ua, correct.sum(axis=-1) / total, (f1 * support).sum(axis=-1) / total, mf1])


def _divide_or_zero(a: Float[np.ndarray, "..."], b: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return np.divide(a, b, out=np.zeros_like(a, dtype=np.float64), where=b > 0)
