"""Types of results: the contents of results.json and of the other JSON files with scores.

At run time every one of them is a plain dict. Scores are fractions of 1.
"""

from typing import Literal, NotRequired, TypedDict

Metric = Literal["ua", "wa", "wf1", "mf1"]
"""Mean recall (UAR), accuracy (WAR), F1 weighted by class size, and macro F1."""
IntervalField = Literal["ua_interval", "wa_interval", "wf1_interval", "mf1_interval"]
INTERVAL_FIELDS: dict[Metric, IntervalField] = {
    "ua": "ua_interval",
    "wa": "wa_interval",
    "wf1": "wf1_interval",
    "mf1": "mf1_interval",
}
"""Fields of `ScoreFields` that hold the interval of each metric."""
SUMMARY_METRICS: tuple[Metric, ...] = ("ua", "wa", "wf1")
"""Metrics of a cross-validation's runs, pooled scores and table rows."""
Verdict = Literal["better", "worse", "no significant difference"]
"""Result of a comparison: A is better or worse than B, or neither."""


class ScoreFields(TypedDict):
    """Scores of predictions as fractions: `ua` (mean recall, UAR), `wa` (accuracy), `wf1` and `mf1` (F1).

    `wf1` is weighted by class size, `mf1` is not. The fields of a file that not every file has are optional.
    """

    ua: float
    wa: float
    wf1: float
    mf1: NotRequired[float]
    recall: NotRequired[list[float | None]]
    """Recall of each class; None for a class without clips."""
    confusion: NotRequired[list[list[int]]]
    """Number of clips by true class (rows) and predicted class (columns)."""
    ua_interval: NotRequired[list[float]]
    """95 % interval over speakers, `[low, high]`."""
    wa_interval: NotRequired[list[float]]
    wf1_interval: NotRequired[list[float]]
    mf1_interval: NotRequired[list[float]]


class SpeakerScores(TypedDict):
    """Scores of the clips of one speaker: `ua` (mean recall) and `wa` (accuracy) as fractions."""

    ua: float
    wa: float
    clips: int
    """Number of labelled clips."""


class ClipPredictions(TypedDict):
    """Predictions as parallel lists with one entry per clip."""

    clips: list[str]
    """The clip_ids."""
    speakers: list[str]
    """Names of the speakers."""
    labels: list[int]
    """True classes; -1 without a label."""
    probabilities: list[list[float]]
    """Probability of each class."""


class EvaluationResults(ClipPredictions):
    """Contents of the results.json of `emofuse evaluate`: scores on one split of a fold."""

    config: str
    """Name of the config."""
    corpus: str
    dataset: str
    """Path of the records."""
    date: str
    protocol: str
    fold: int
    split: str
    leaky: bool
    leaks: list[str]
    """Descriptions of the known leaks of the split."""
    checkpoint_step: int
    temperature: float
    classes: list[str]
    modalities: dict[str, ScoreFields]
    """Scores by modality: `both`, `audio` and `video`, or the one modality of the model."""
    per_speaker: dict[str, SpeakerScores]
    versions: dict[str, str]


class ValidationScores(TypedDict):
    """Validation scores of a replica."""

    ua: float | None
    """None if no clips are held out."""


class ReplicaResult(ClipPredictions):
    """Contents of the result.json of a replica, one fold and seed; the predictions are of its test clips."""

    fold: int
    seed: int
    validation: ValidationScores
    test: ScoreFields
    best_step: int
    temperature: float
    epochs: int


class PooledPredictions(ClipPredictions):
    """Predictions that are averaged over the seeds of a cross-validation."""

    classes: list[str]


class CrossvalFile(TypedDict):
    """Contents of the results.json of `emofuse crossval`."""

    protocol: str
    config: str
    """Name of the config."""
    corpus: str
    dataset: str
    """Path of the records."""
    date: str
    classes: list[str]
    modalities: list[str]
    runs: list[ReplicaResult]
    pooled: ScoreFields
    """Scores of the predictions of all runs together."""
    mean: ScoreFields
    """Mean of the scores of the runs."""
    sd: ScoreFields
    """Standard deviation of the scores of the runs."""
    leaky: bool
    leaks: list[str]
    """Descriptions of the known leaks of the splits."""
    versions: dict[str, str]
    ensemble: NotRequired[ScoreFields]
    """Scores after averaging the predictions of the seeds; only with several seeds."""


class ComparisonFields(TypedDict):
    """Result of `significance.compare`; A and B are results of `emofuse crossval`."""

    measure: Metric
    a: float
    b: float
    difference: float
    """A minus B."""
    interval: list[float]
    """95 % interval of the difference, `[low, high]`."""
    p: float
    effect: float | None
    """Mean over standard deviation of the speakers' differences; None if all are equal."""
    speakers: int
    verdict: Verdict


class RobustnessPoint(TypedDict):
    """Scores for one severity of a corruption."""

    at: float | str | None
    """Decibels, fraction of masked faces, or the missing modality; None without noise."""
    ua: float
    wa: float


RobustnessCurves = dict[str, list[RobustnessPoint]]
"""Contents of robustness.json: the points of each curve, `snr`, `lost` and `without`."""


class ReliabilityBin(TypedDict):
    """Clips whose confidence is in the same range."""

    confidence: float
    """Mean."""
    accuracy: float
    clips: int


class EpochRow(TypedDict, total=False):
    """Scores of one epoch: a row of metrics.jsonl whose `split` is `epoch`."""

    step: int
    split: str
    epoch: int
    train_loss: float
    train_ua: float
    validation_loss: float
    validation_ua: float
    validation_wa: float
    temperature: float
    clips_per_second: float
    waiting: float
    """Fraction of the time spent waiting for data."""
    damaged: int
    """Number of training clips that were skipped because their records are damaged."""


class TrialRun(TypedDict):
    """Validation scores of a trial for one fold and seed."""

    fold: int
    seed: int
    validation_ua: float
    best_step: int
    last_ua: float
    """Mean UA of the last five epochs."""


class TrialScores(TypedDict):
    """Validation scores of one trial of a sweep, over its folds and seeds."""

    number: int
    fields: dict[str, object]
    """Changed config fields by dotted name."""
    validation_ua: float
    """Mean over the runs of the UA of the best epoch."""
    sd: float
    """Standard deviation over the runs."""
    last_ua: float
    """Mean over the runs."""
    runs: list[TrialRun]


class SweepResults(TypedDict):
    """Results of `emofuse sweep`: the trials, the best one first."""

    config: str
    """Name of the config."""
    protocol: str
    corpus: str
    folds: list[int]
    seeds: int
    trials: list[TrialScores]
