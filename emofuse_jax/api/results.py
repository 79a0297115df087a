"""Scores of runs and of cross-validations, as values and as text."""

import dataclasses
from collections.abc import Sequence

from emofuse_jax.scoring.result_types import ComparisonFields, Metric, ScoreFields, Verdict

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of predictions for one set of clips, as fractions of 1, with 95 % intervals that draw speakers.

    An interval from 0 to 1 means that there are too few speakers to say more.
    """

    ua: float
    """Unweighted accuracy: the mean of the recalls of all classes."""
    wa: float
    """Weighted accuracy: the fraction of clips that are predicted correctly."""
    wf1: float
    """F1 score averaged over classes, weighted by their number of clips."""
    ua_interval: Interval
    wa_interval: Interval
    wf1_interval: Interval
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Number of clips by true class (rows) and predicted class (columns)."""

    @classmethod
    def from_dict(cls, scores: ScoreFields, classes: Sequence[str]) -> "Scores":
        """Returns the scores of a result file: `ua`, `wa`, `wf1`, their intervals, `classes` and `confusion`.

        Lists become tuples.

        Args:
          scores: a dict with `ua` (mean recall of the classes), `wa` (accuracy) and `wf1` (F1 weighted by
            class size), fractions of 1; `ua_interval`, `wa_interval` and `wf1_interval`, each `[low, high]`;
            and `confusion`, numbers of clips as nested lists, rows true classes, columns predicted classes.
            Other fields are ignored.
          classes: names of the classes, which the result file stores elsewhere.

        Raises:
          ValueError: an interval does not have two numbers.
          KeyError: a field is missing.
        """
        return cls(
            ua=float(scores["ua"]),
            wa=float(scores["wa"]),
            wf1=float(scores["wf1"]),
            ua_interval=_interval(scores["ua_interval"]),
            wa_interval=_interval(scores["wa_interval"]),
            wf1_interval=_interval(scores["wf1_interval"]),
            classes=tuple(classes),
            confusion=tuple(tuple(row) for row in scores["confusion"]),
        )

    def __str__(self) -> str:
        metrics = (
            ("UA", self.ua, self.ua_interval),
            ("WA", self.wa, self.wa_interval),
            ("WF1", self.wf1, self.wf1_interval),
        )
        return ", ".join(
            f"{name} {100 * score:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
            for name, score, (low, high) in metrics
        )


def _interval(bounds: Sequence[float]) -> Interval:
    low, high = bounds
    return low, high


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Comparison of result A with result B, by a permutation test over speakers."""

    measure: Metric
    a: float
    b: float
    difference: float
    """A minus B, as a fraction of 1."""
    interval: Interval
    """95 % interval of the difference."""
    p: float
    effect: float | None
    """Mean over standard deviation of the speakers' differences; None if all are equal."""
    speakers: int
    verdict: Verdict
    """`better`, `worse` (A than B) or `no significant difference`."""
    text: str
    """The comparison as a sentence."""

    @classmethod
    def from_dict(cls, fields: ComparisonFields, text: str) -> "Comparison":
        """Returns the comparison with all values of `fields` and the sentence `text`.

        Args:
          fields: a dict, as `significance.compare` returns it, with the keys `measure` (such as `ua`), `a`
            and `b` (the scores, fractions of 1), `difference` (A minus B), `interval` (`[low, high]`, 95 %,
            of the difference), `p`, `effect` (mean over standard deviation of the speakers' differences, or
            None), `speakers` (their number) and `verdict` (`better`, `worse` or `no significant difference`).
          text: the comparison as a sentence.

        Raises:
          ValueError: the interval does not have two numbers.
          KeyError: a key is missing.
        """
        return cls(
            fields["measure"],
            fields["a"],
            fields["b"],
            fields["difference"],
            _interval(fields["interval"]),
            fields["p"],
            fields["effect"],
            fields["speakers"],
            fields["verdict"],
            text,
        )

    def __str__(self) -> str:
        return self.text
