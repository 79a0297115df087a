"""Tests if two results differ by more than chance, with a paired permutation test over speakers."""

import itertools
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from emofuse_jax.scoring import metrics
from emofuse_jax.scoring.pooled_scores import join_predictions
from emofuse_jax.scoring.result_types import ComparisonFields, CrossvalFile, Metric, ReplicaResult, Verdict

MAX_EXACT_SPEAKERS = 13
"""Up to this number of speakers all swaps are enumerated; above it they are sampled."""
NO_DIFFERENCE: Verdict = "no significant difference"
SIGNIFICANCE_LEVEL = 0.05
"""Value of `p` below which two results count as different."""


def compare(
    a: CrossvalFile, b: CrossvalFile, *, measure: Metric = "ua", draws: int = 10_000, seed: int = 0
) -> ComparisonFields:
    """Compares two results of `emofuse crossval` on the same test clips.

    Under the null hypothesis that A and B predict equally well, all predictions of a speaker can be swapped
    between them (all at once, because clips of one speaker are not independent). `p` is the fraction of swaps
    with a difference at least as large as the observed one. Up to 13 speakers all swaps are enumerated; above
    that they are sampled, and the observed result is one of the samples (Phipson & Smyth, 2010). Several
    seeds of a result are averaged first, because they add no speakers.

    Args:
      a: contents of a results.json.
      b: contents of another one.
      measure: `ua` (mean recall), `wa` (accuracy), `wf1` (weighted F1) or `mf1` (macro F1) of the pooled
        predictions.
      draws: number of sampled swaps, and of bootstrap resamples for the interval.
      seed: seed of both.

    Returns:
      A dict: `measure`; `a`, `b` and `difference` (fractions, A minus B); `interval`, the 95 % interval of
      the difference as `[low, high]` (speakers are resampled, percentiles; `[-1, 1]` with one speaker); `p`;
      `effect`, the mean over the standard deviation of the differences per speaker, or None if they are all
      equal or there is one speaker; `speakers` (the number of those with labelled clips); and `verdict`:
      `better` or `worse` (A than B) if `p` is below 0.05, otherwise `no significant difference`.

    Raises:
      ValueError: if the measure is unknown, if the results have different classes, protocols, folds, clips,
        speakers or labels, if there are no runs or a run has no clips or lists `clips`, `speakers` and
        `labels` of different lengths, if no clip has a label, or if there are several speakers and `draws` is
        less than 1 or `seed` is negative.
      IndexError: if a run has more or fewer `probabilities` than `labels`, or a label is not the index of a
        class.
    """
    if measure not in metrics.METRIC_NAMES:
        raise ValueError(f"measure: {measure!r}, expected one of {', '.join(metrics.METRIC_NAMES)}")
    check_same_clips(a, b)
    matrices_a, matrices_b = speaker_matrices(a), speaker_matrices(b)
    speaker_count = len(matrices_a)
    (observed_difference,) = swapped_differences(
        matrices_a, matrices_b, np.zeros((1, speaker_count), int), measure
    )
    swaps = (
        enumerate_swaps(speaker_count)
        if speaker_count <= MAX_EXACT_SPEAKERS
        else sample_swaps(speaker_count, draws, seed)
    )
    p = float(
        np.mean(
            np.abs(swapped_differences(matrices_a, matrices_b, swaps, measure))
            >= abs(observed_difference) - 1e-12
        )
    )
    speaker_differences = score_differences(matrices_a, matrices_b, measure)
    sd = speaker_differences.std(ddof=1) if speaker_count > 1 else 0.0
    return {
        "measure": measure,
        "a": metrics.compute_scores(matrices_a.sum(0))[measure],
        "b": metrics.compute_scores(matrices_b.sum(0))[measure],
        "difference": float(observed_difference),
        "interval": difference_interval(matrices_a, matrices_b, measure, draws, seed),
        "p": p,
        "effect": float(speaker_differences.mean() / sd) if sd > 0 else None,
        "speakers": speaker_count,
        "verdict": ("better" if observed_difference > 0 else "worse")
        if p < SIGNIFICANCE_LEVEL
        else NO_DIFFERENCE,
    }


def describe_comparison(comparison: ComparisonFields) -> str:
    """Returns the result of `compare` as one or two English sentences.

    The first sentence has the verdict, the difference in percentage points, its interval, the number of
    speakers, `p` and the effect. A second one follows if the difference is not significant and there are so
    few speakers (at most 5) that `p` cannot fall below 0.05.
    """
    low, high = (100 * x for x in comparison["interval"])
    effect = "" if comparison["effect"] is None else f", effect {comparison['effect']:.2f}"
    details = (
        f"{100 * comparison['difference']:+.1f} points of {comparison['measure'].upper()} (95 % interval"
        f" {low:+.1f} to"
        f" {high:+.1f}, {comparison['speakers']} speakers, p = {comparison['p']:.3f}{effect})"
    )
    if comparison["verdict"] != NO_DIFFERENCE:
        return f"A is {comparison['verdict']} than B: {details}."
    smallest_p = 2.0 ** (1 - comparison["speakers"])
    sample_size_note = (
        f" With {comparison['speakers']} speakers, p cannot fall below {SIGNIFICANCE_LEVEL:g}."
        if smallest_p >= SIGNIFICANCE_LEVEL
        else ""
    )
    return f"A and B do not differ significantly: {details}.{sample_size_note}"


def check_same_clips(a: CrossvalFile, b: CrossvalFile) -> None:
    """Checks that two results are on the same test clips.

    Raises:
      ValueError: if they have different classes, protocols or folds, if a fold has different clips, speakers
        or labels in two runs, or if these lists differ in length in a run; the message names the field.
    """
    fields: tuple[Literal["classes", "protocol"], ...] = ("classes", "protocol")
    for field in fields:
        if a[field] != b[field]:
            raise ValueError(
                f"{field}: {a[field]!r} and {b[field]!r}, expected equal values;"
                " compare two results on the same test clips"
            )
    for fold in sorted({run["fold"] for run in (*a["runs"], *b["runs"])}):
        rows = [sorted_clip_rows(run) for run in (*a["runs"], *b["runs"]) if run["fold"] == fold]
        has_fold = [any(run["fold"] == fold for run in results["runs"]) for results in (a, b)]
        if not all(has_fold):
            raise ValueError(
                f"runs: fold {fold} is in only one of the results; compare two results with the same folds"
            )
        if any(row != rows[0] for row in rows):
            raise ValueError(
                f"runs: fold {fold} has different clips, speakers or labels in two runs of these results;"
                " compare two results on the same test clips"
            )


def sorted_clip_rows(run: ReplicaResult) -> list[tuple[str, str, int]]:
    """Returns a tuple (clip_id, name of the speaker, label) for each clip of a run, sorted.

    The label is the index of the true class, -1 without a label.

    Raises:
      ValueError: if the lists `clips`, `speakers` and `labels` of the run differ in length.
    """
    return sorted(zip(run["clips"], run["speakers"], run["labels"], strict=True))


def speaker_matrices(results: CrossvalFile) -> Float[np.ndarray, "s c c"]:
    """Returns the confusion matrix of each speaker with labelled clips, averaged over the seeds.

    The result is float64 [s c c] for s such speakers, in the order of their names, and c classes; rows are
    true classes, columns predicted classes.

    Raises:
      ValueError: if there are no runs, if a run has no clips, or if no clip has a label.
      IndexError: if a run has more or fewer `labels` than `speakers` or `probabilities`, or a label is not
        the index of a class.
    """
    matrices = metrics.speaker_confusion_matrices(*join_predictions(results["runs"]), len(results["classes"]))
    return matrices / len({run["seed"] for run in results["runs"]})


def score_differences(
    matrices_a: Float[np.ndarray, "*draws c c"], matrices_b: Float[np.ndarray, "*draws c c"], measure: Metric
) -> Float[np.ndarray, "*draws"]:
    """Returns the score `measure` of A minus that of B, a fraction, for each pair of confusion matrices.

    The result has the axes of the matrices without the last two; NaN for a matrix that is all zero.

    Raises:
      ValueError: if the measure is not `ua`, `wa`, `wf1` or `mf1`.
    """
    metric_index = metrics.METRIC_NAMES.index(measure)
    return metrics.batched_scores(matrices_a)[metric_index] - metrics.batched_scores(matrices_b)[metric_index]


def swapped_differences(
    matrices_a: Float[np.ndarray, "s c c"],
    matrices_b: Float[np.ndarray, "s c c"],
    swaps: Int[np.ndarray, "d s"],
    measure: Metric,
) -> Float[np.ndarray, " d"]:
    """Returns the pooled score of A minus that of B after each of d swaps, as fractions [d].

    A has s speakers, and B has the same ones.

    Args:
      matrices_a: confusion matrix of each speaker in A.
      matrices_b: confusion matrix of each speaker in B.
      swaps: [d s], one row per swap; 1 exchanges the predictions of the speaker between A and B, 0 does not.
      measure: `ua`, `wa`, `wf1` or `mf1`.

    Raises:
      ValueError: if the measure is unknown.
    """
    pairs = ((matrices_a, matrices_b), (matrices_b, matrices_a))
    totals_a, totals_b = (
        np.tensordot(1 - swaps, unswapped, 1) + np.tensordot(swaps, swapped, 1)
        for unswapped, swapped in pairs
    )
    return score_differences(totals_a, totals_b, measure)


def difference_interval(
    matrices_a: Float[np.ndarray, "s c c"],
    matrices_b: Float[np.ndarray, "s c c"],
    measure: Metric,
    draws: int,
    seed: int,
) -> list[float]:
    """Returns the 95 % bootstrap interval `[low, high]` of the score of A minus that of B, as fractions.

    With a single speaker the interval is [-1, 1], because nothing is known about other speakers.

    Args:
      matrices_a: confusion matrix of each of s speakers in A.
      matrices_b: confusion matrix of the same speakers in B.
      measure: `ua`, `wa`, `wf1` or `mf1`.
      draws: number of bootstrap resamples of the speakers.
      seed: seed of the resamples.

    Raises:
      ValueError: if there are no speakers, or several and the measure is unknown, `draws` is less than 1 or
        `seed` is negative.
    """
    if len(matrices_a) == 1:
        return [-1.0, 1.0]

    def statistic(speaker_indices: Int[np.ndarray, "*draws s"]) -> Float[np.ndarray, "*draws"]:
        return score_differences(
            matrices_a[speaker_indices].sum(-3), matrices_b[speaker_indices].sum(-3), measure
        )

    bounds = metrics.speaker_bootstrap_interval(
        statistic, len(matrices_a), resamples=draws, seed=seed, confidence_level=0.95
    )
    return [float(bound) for bound in bounds]


def enumerate_swaps(speaker_count: int) -> Int[np.ndarray, "d s"]:
    """Returns all possible swaps [d s] of s = `speaker_count` speakers, one per row: d = 2 ** s.

    An entry is 1 if the predictions of the speaker are swapped between the two results, else 0. The first row
    is all 0. Raises ValueError if `speaker_count` is negative.
    """
    return np.array(list(itertools.product((0, 1), repeat=speaker_count)))


def sample_swaps(speaker_count: int, draws: int, seed: int) -> Int[np.ndarray, "d s"]:
    """Returns d = `draws + 1` swaps [d s] of s = `speaker_count` speakers, one per row.

    The first row is all 0 (no swap: the observed result), the others are random. An entry is 1 if the
    predictions of the speaker are swapped between the two results, else 0. Raises ValueError if an argument
    is negative.
    """
    random_swaps = np.random.default_rng(seed).integers(0, 2, (draws, speaker_count))
    return np.vstack([np.zeros((1, speaker_count), int), random_swaps])
