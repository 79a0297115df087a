"""Metadata of a checkpoint: the JSON object that is stored with its arrays."""

from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:  # so that a module that only reads bundles can import this one
    from emofuse_jax.data.metadata import PrepSettingsDict
    from emofuse_jax.types import ConfigFields


class SpecFields(TypedDict):
    """Static shape of one clip: the fields of `types.InputSpec`."""

    t: int
    f: int
    s: int
    h: int
    w: int
    classes: int
    feature_steps: int
    audio_features: int
    face_features: int


class StatisticsFields(TypedDict):
    """Statistics of each frequency bin over the training clips."""

    mean: list[float]
    std: list[float]


class TrackerFields(TypedDict):
    """Best validation result so far: the fields of `early_stopping.EarlyStoppingTracker`."""

    best_ua: float | None
    best_step: int
    since_best: int
    temperature: float


SavedEpochSums = dict[str, float | list[list[float]]]
"""Sums over the steps of an epoch: `loss`, and the rows of the `confusion` matrix."""


class EpochFields(TypedDict):
    """Sums over the steps of an unfinished epoch."""

    steps: int
    """Number of steps in the epoch so far."""
    sums: SavedEpochSums | None
    """None before the first step."""


class RunMetadata(TypedDict):
    """Result of `experiment.make_metadata`: everything about a run that does not change while it trains."""

    config: "ConfigFields"
    """Every field of the experiment's config."""
    classes: list[str]
    """Names of the classes, in the order of the logits."""
    settings: "PrepSettingsDict"
    """Preparation settings of the records, from prep.json."""
    spec: SpecFields
    """Static shape of one clip."""
    statistics: StatisticsFields
    """Input statistics, by which spectrograms are standardised."""
    training_speakers: list[str]
    """Speakers of the training and validation clips, sorted."""
    training_clips_sha256: str
    """Hash of the ids of the training and validation clips."""
    corpus: str
    """Name of the corpus."""
    protocol: str
    """Name of the split protocol."""
    fold: int
    """Fold of the split protocol."""
    leaks: list[str]
    """Accepted leaks between the splits, one text each."""
    versions: dict[str, str]
    """Versions of the packages that can change the numbers."""


class CheckpointMetadata(RunMetadata):
    """Metadata of a checkpoint `last` or `best`, as `checkpoint.store` writes and reads it."""

    schema: NotRequired[int]
    """Schema of the checkpoint; `checkpoint.store` adds it when it writes."""
    step: int
    """Number of completed training steps."""
    temperature: float
    """Temperature for the predictions."""
    progress: NotRequired[TrackerFields]
    """Best validation result so far; only in checkpoints that `train` wrote."""
    epoch: NotRequired[EpochFields]
    """Unfinished epoch; only in checkpoints that `train` wrote."""
    refit: NotRequired["ConfigFields"]
    """Config and results of `emofuse gan`; only in checkpoints that it wrote."""
