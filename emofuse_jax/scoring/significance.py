"""Whether two results differ by more than chance: a paired permutation test over speakers."""

import itertools

import numpy as np
from jaxtyping import Float, Int

from emofuse_jax.scoring import metrics
from emofuse_jax.scoring.pooled_scores import join_predictions

MAX_EXACT_SPEAKERS = 13
"""Speakers up to which all swaps are counted; with more they are drawn."""
CLIP_FIELDS = ("clips", "speakers", "labels")
SIGNIFICANCE_LEVEL = 0.05
"""`p` below which two results are told apart."""


def compare(a: dict, b: dict, *, measure: str = "ua", draws: int = 10_000, seed: int = 0) -> dict:
    """Compares two results of `emofuse crossval` on the same test clips.

    Under the hypothesis that A and B answer alike, a speaker's answers may be swapped between them: all of
    them, for clips of one speaker are not independent. `p` is the share of swaps that differ at least as much
    as the results do, counted for up to 13 speakers, else drawn, with the results themselves among the draws
    (Phipson & Smyth, 2010). Several seeds of a result are averaged first: they are no new speakers.

    Args:
      a: contents of a results.json.
      b: of another.
      measure: `ua`, `wa`, `wf1` or `mf1`, of all answers pooled.
      draws: of swaps, and of speakers for the interval.
      seed: of both.

    Returns:
      `a`, `b` and `difference` (fractions), its 95 % `interval` (speakers drawn, percentiles), `p`, `effect`
      (mean over sd of the speakers' own differences; None where all are alike), `speakers`, and `verdict`:
      better, worse (A than B), or not told apart.

    Raises:
      ValueError: other classes, clips, speakers or labels, or an unknown measure.
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
        else "not told apart",
    }


def describe_comparison(comparison: dict) -> str:
    """The comparison in words."""
    low, high = (100 * x for x in comparison["interval"])
    effect = "" if comparison["effect"] is None else f", effect {comparison['effect']:.2f}"
    details = (
        f"{100 * comparison['difference']:+.1f} points of {comparison['measure'].upper()} (95 % interval"
        f" {low:+.1f} to"
        f" {high:+.1f}, {comparison['speakers']} speakers, p = {comparison['p']:.3f}{effect})"
    )
    if comparison["verdict"] != "not told apart":
        return f"A is {comparison['verdict']} than B: {details}."
    smallest_p = 2.0 ** (1 - comparison["speakers"])
    sample_size_note = (
        f" So few speakers cannot give p < {SIGNIFICANCE_LEVEL:g}."
        if smallest_p >= SIGNIFICANCE_LEVEL
        else ""
    )
    return f"A and B are not told apart: {details}.{sample_size_note}"


def check_same_clips(a: dict, b: dict) -> None:
    """ValueError naming the field in which two results are not of the same test clips."""
    for field in ("classes", "protocol"):
        if a[field] != b[field]:
            raise ValueError(f"{field}: {a[field]!r} and {b[field]!r}; results on the same clips are needed")
    for fold in sorted({run["fold"] for run in (*a["runs"], *b["runs"])}):
        rows = [sorted_clip_rows(run) for run in (*a["runs"], *b["runs"]) if run["fold"] == fold]
        has_fold = [any(run["fold"] == fold for run in results["runs"]) for results in (a, b)]
        if not all(has_fold):
            raise ValueError(f"runs: fold {fold} is in one of the results alone")
        if any(row != rows[0] for row in rows):
            raise ValueError(f"runs: fold {fold} has other clips, speakers or labels in one of the results")


def sorted_clip_rows(run: dict) -> list[tuple]:
    """Clip, speaker and label of each answer of a run, sorted."""
    return sorted(zip(*(run[field] for field in CLIP_FIELDS), strict=True))


def speaker_matrices(results: dict) -> Float[np.ndarray, "s c c"]:
    """Confusion matrix of each speaker who has labelled clips, by name, averaged over the seeds."""
    matrices = metrics.speaker_confusion_matrices(*join_predictions(results["runs"]), len(results["classes"]))
    return matrices / len({run["seed"] for run in results["runs"]})


def score_differences(
    matrices_a: Float[np.ndarray, "*draws c c"], matrices_b: Float[np.ndarray, "*draws c c"], measure: str
) -> Float[np.ndarray, "*draws"]:
    """A less B of each pair of matrices."""
    metric_index = metrics.METRIC_NAMES.index(measure)
    return metrics.batched_scores(matrices_a)[metric_index] - metrics.batched_scores(matrices_b)[metric_index]


def swapped_differences(
    matrices_a: Float[np.ndarray, "s c c"],
    matrices_b: Float[np.ndarray, "s c c"],
    swaps: Int[np.ndarray, "d s"],
    measure: str,
) -> Float[np.ndarray, " d"]:
    """A less B of all answers, in each draw with the answers of some speakers (1) exchanged."""
    pairs = ((matrices_a, matrices_b), (matrices_b, matrices_a))
    totals = [
        np.tensordot(1 - swaps, unswapped, 1) + np.tensordot(swaps, swapped, 1)
        for unswapped, swapped in pairs
    ]
    return score_differences(*totals, measure)


def difference_interval(
    matrices_a: Float[np.ndarray, "s c c"],
    matrices_b: Float[np.ndarray, "s c c"],
    measure: str,
    draws: int,
    seed: int,
) -> list[float]:
    """The 95 % interval of A less B, with speakers drawn again; one speaker alone says nothing: -1 to 1."""
    if len(matrices_a) == 1:
        return [-1.0, 1.0]

    def statistic(speaker_indices):
        return score_differences(
            matrices_a[speaker_indices].sum(-3), matrices_b[speaker_indices].sum(-3), measure
        )

    bounds = metrics.speaker_bootstrap_interval(
        statistic, len(matrices_a), resamples=draws, seed=seed, confidence_level=0.95
    )
    return [float(bound) for bound in bounds]


def enumerate_swaps(speaker_count: int) -> Int[np.ndarray, "d s"]:
    """Every choice of speakers, as ones."""
    return np.array(list(itertools.product((0, 1), repeat=speaker_count)))


def sample_swaps(speaker_count: int, draws: int, seed: int) -> Int[np.ndarray, "d s"]:
    """Random choices of speakers, and first none at all: the results as they are."""
    random_swaps = np.random.default_rng(seed).integers(0, 2, (draws, speaker_count))
    return np.vstack([np.zeros((1, speaker_count), int), random_swaps])
