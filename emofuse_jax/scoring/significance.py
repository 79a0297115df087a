"""Whether two results differ by more than chance: a paired permutation test over speakers."""

import itertools

import numpy as np
from jaxtyping import Float, Int

from emofuse_jax.scoring import metrics
from emofuse_jax.scoring.pooled_scores import joined_answers

EXACT = 13
"""Speakers up to which all swaps are counted; with more they are drawn."""
CLIPS = ("clips", "speakers", "labels")
ALPHA = 0.05
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
    if measure not in metrics.NAMES:
        raise ValueError(f"measure: {measure!r}, expected one of {', '.join(metrics.NAMES)}")
    check_same_clips(a, b)
    ours, theirs = speaker_matrices(a), speaker_matrices(b)
    count = len(ours)
    (own,) = swapped_differences(ours, theirs, np.zeros((1, count), int), measure)
    swaps = all_swaps(count) if count <= EXACT else drawn_swaps(count, draws, seed)
    p = float(np.mean(np.abs(swapped_differences(ours, theirs, swaps, measure)) >= abs(own) - 1e-12))
    each = differences(ours, theirs, measure)
    sd = each.std(ddof=1) if count > 1 else 0.0
    return {
        "measure": measure,
        "a": metrics.scores(ours.sum(0))[measure],
        "b": metrics.scores(theirs.sum(0))[measure],
        "difference": float(own),
        "interval": drawn_interval(ours, theirs, measure, draws, seed),
        "p": p,
        "effect": float(each.mean() / sd) if sd > 0 else None,
        "speakers": count,
        "verdict": ("better" if own > 0 else "worse") if p < ALPHA else "not told apart",
    }


def sentence(found: dict) -> str:
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
    few = f" So few speakers cannot give p < {ALPHA:g}." if least >= ALPHA else ""
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
    matrices = metrics.speaker_confusions(*joined_answers(results["runs"]), len(results["classes"]))
    return matrices / len({run["seed"] for run in results["runs"]})


def differences(
    ours: Float[np.ndarray, "*draws c c"], theirs: Float[np.ndarray, "*draws c c"], measure: str
) -> Float[np.ndarray, "*draws"]:
    """A less B of each pair of matrices."""
    place = metrics.NAMES.index(measure)
    return metrics.stacked_scores(ours)[place] - metrics.stacked_scores(theirs)[place]


def swapped_differences(
    ours: Float[np.ndarray, "s c c"],
    theirs: Float[np.ndarray, "s c c"],
    swaps: Int[np.ndarray, "d s"],
    measure: str,
) -> Float[np.ndarray, " d"]:
    """A less B of all answers, in each draw with the answers of some speakers (1) exchanged."""
    pairs = ((ours, theirs), (theirs, ours))
    totals = [np.tensordot(1 - swaps, kept, 1) + np.tensordot(swaps, other, 1) for kept, other in pairs]
    return differences(*totals, measure)


def drawn_interval(
    ours: Float[np.ndarray, "s c c"],
    theirs: Float[np.ndarray, "s c c"],
    measure: str,
    draws: int,
    seed: int,
) -> list[float]:
    """The 95 % interval of A less B, with speakers drawn again; one speaker alone says nothing: -1 to 1."""
    if len(ours) == 1:
        return [-1.0, 1.0]

    def statistic(drawn):
        return differences(ours[drawn].sum(-3), theirs[drawn].sum(-3), measure)

    ends = metrics.draw_speakers(statistic, len(ours), resamples=draws, seed=seed, level=0.95)
    return [float(end) for end in ends]


def all_swaps(speakers: int) -> Int[np.ndarray, "d s"]:
    """Every choice of speakers, as ones."""
    return np.array(list(itertools.product((0, 1), repeat=speakers)))


def drawn_swaps(speakers: int, draws: int, seed: int) -> Int[np.ndarray, "d s"]:
    """Random choices of speakers, and first none at all: the results as they are."""
    drawn = np.random.default_rng(seed).integers(0, 2, (draws, speakers))
    return np.vstack([np.zeros((1, speakers), int), drawn])
