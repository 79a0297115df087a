"""Whether two results differ by more than chance: a paired permutation test over speakers."""

import itertools

import numpy as np
from jaxtyping import Float, Int, Shaped

from emofuse_jax import metrics

EXACT = 13
"""Speakers up to which all swaps are counted; with more they are drawn."""
CLIPS = ("clips", "speakers", "labels")


def compare(
    a: dict, b: dict, *, measure: str = "ua", draws: int = 10_000, seed: int = 0, alpha: float = 0.05
) -> dict:
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
      alpha: `p` below which the two are told apart.

    Returns:
      `a`, `b` and `difference` (fractions), its 95 % `interval` (speakers drawn, percentiles), `p`, `effect`
      (mean over sd of the speakers' own differences; None where all are alike), `speakers`, and `verdict`:
      better, worse (A than B), or not told apart.

    Raises:
      ValueError: other classes, clips, speakers or labels, or an unknown measure.
    """
    if measure not in metrics.NAMES:
        raise ValueError(f"measure: {measure!r}, expected one of {', '.join(metrics.NAMES)}")
    check_same_clips(a, b)
    ours, theirs = speaker_matrices(a), speaker_matrices(b)
    count, generator = len(ours), np.random.default_rng(seed)

    def differences(kept, swapped):
        return weighted_differences(ours, theirs, kept, swapped, measure)

    (own,) = differences(np.ones((1, count)), np.zeros((1, count)))
    swaps = all_swaps(count) if count <= EXACT else drawn_swaps(count, draws, generator)
    p = float(np.mean(np.abs(differences(1 - swaps, swaps)) >= abs(own) - 1e-12))
    times = generator.multinomial(count, np.full(count, 1 / count), draws)
    spread = differences(times, np.zeros_like(times))
    each = differences(np.eye(count), np.zeros((count, count)))
    sd = each.std(ddof=1) if count > 1 else 0.0
    return {
        "measure": measure,
        "a": metrics.scores(ours.sum(0))[measure],
        "b": metrics.scores(theirs.sum(0))[measure],
        "difference": float(own),
        "interval": [float(x) for x in np.quantile(spread, (0.025, 0.975))],
        "p": p,
        "effect": float(each.mean() / sd) if sd > 0 else None,
        "speakers": count,
        "verdict": ("better" if own > 0 else "worse") if p < alpha else "not told apart",
    }


def sentence(found: dict, alpha: float = 0.05) -> str:
    """The comparison in words."""
    low, high = (100 * x for x in found["interval"])
    effect = "" if found["effect"] is None else f", effect {found['effect']:.2f}"
    numbers = (
        f"{100 * found['difference']:+.1f} points of {found['measure'].upper()} (95 % interval {low:+.1f} to"
        f" {high:+.1f}, {found['speakers']} speakers, p = {found['p']:.3f}{effect})"
    )
    if found["verdict"] != "not told apart":
        return f"A is {found['verdict']} than B: {numbers}."
    least = 2.0 ** (1 - found["speakers"])
    few = f" So few speakers cannot give p < {alpha:g}." if least >= alpha else ""
    return f"A and B are not told apart: {numbers}.{few}"


def check_same_clips(a: dict, b: dict) -> None:
    """ValueError naming the field in which two results are not of the same test clips."""
    for field in ("classes", "protocol"):
        if a[field] != b[field]:
            raise ValueError(f"{field}: {a[field]!r} and {b[field]!r}; results on the same clips are needed")
    for fold in sorted({run["fold"] for run in (*a["runs"], *b["runs"])}):
        rows = [rows_of(run) for run in (*a["runs"], *b["runs"]) if run["fold"] == fold]
        sides = [any(run["fold"] == fold for run in side["runs"]) for side in (a, b)]
        if not all(sides):
            raise ValueError(f"runs: fold {fold} is in one of the results alone")
        if any(row != rows[0] for row in rows):
            raise ValueError(f"runs: fold {fold} has other clips, speakers or labels in one of the results")


def rows_of(run: dict) -> list[tuple]:
    """Clip, speaker and label of each answer of a run, sorted."""
    return sorted(zip(*(run[field] for field in CLIPS), strict=True))


def speaker_matrices(results: dict) -> Float[np.ndarray, "s c c"]:
    """Confusion matrix of each speaker who has labelled clips, by name, averaged over the seeds."""
    names = sorted({name for run in results["runs"] for name in run["speakers"]})
    classes, seeds = len(results["classes"]), len({run["seed"] for run in results["runs"]})
    matrices = np.zeros((len(names), classes, classes))
    for run in results["runs"]:
        labels, guess = np.array(run["labels"]), np.argmax(run["probabilities"], -1)
        rows, known = np.searchsorted(names, run["speakers"]), labels >= 0
        np.add.at(matrices, (rows[known], labels[known], guess[known]), 1.0 / seeds)
    return matrices[matrices.any((1, 2))]


def weighted_differences(
    ours: Float[np.ndarray, "s c c"],
    theirs: Float[np.ndarray, "s c c"],
    kept: Shaped[np.ndarray, "d s"],
    swapped: Shaped[np.ndarray, "d s"],
    measure: str,
) -> Float[np.ndarray, " d"]:
    """A less B of each draw: a speaker counts `kept` times as it is, `swapped` times exchanged."""
    totals = [
        np.tensordot(kept, first, 1) + np.tensordot(swapped, second, 1)
        for first, second in ((ours, theirs), (theirs, ours))
    ]
    place = metrics.NAMES.index(measure)
    a, b = (metrics.stacked_scores(total)[place] for total in totals)
    return a - b


def all_swaps(speakers: int) -> Int[np.ndarray, "d s"]:
    """Every choice of speakers, as ones."""
    return np.array(list(itertools.product((0, 1), repeat=speakers)))


def drawn_swaps(speakers: int, draws: int, generator: np.random.Generator) -> Int[np.ndarray, "d s"]:
    """Random choices of speakers, and first none at all: the results as they are."""
    return np.vstack([np.zeros((1, speakers), int), generator.integers(0, 2, (draws, speakers))])
