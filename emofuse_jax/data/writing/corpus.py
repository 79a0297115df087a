"""Data classes that every corpus reader returns: clips with labels and speakers, evaluation protocols."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class MediaClip:
    """One clip: a media file, or the part of it between `start` and `end`."""

    clip_id: str
    """Name of the clip, unique in the corpus."""
    path: str
    """Path of the media file."""
    label: int
    """Index into the corpus's classes; -1 is unlabelled."""
    speaker: str
    """Name of the speaker."""
    start: float | None = None
    """Start of the clip in seconds from the beginning of the file; None: the beginning."""
    end: float | None = None
    """End of the clip in seconds from the beginning of the file; None: the end of the file."""
    half: str = ""
    """'left' or 'right': half of the picture that shows the speaker; '': the complete picture."""
    take: str = ""
    """Name of the recording that several clips show, e.g. from two cameras; '': only this clip shows it."""


@dataclasses.dataclass(frozen=True)
class EvaluationProtocol:
    """A named partition of speakers into folds for cross-validation."""

    name: str
    """Name of the protocol."""
    speakers: tuple[str, ...]
    """All speakers that the protocol uses."""
    folds: tuple[tuple[str, ...], ...]
    """Test speakers of each fold; the other speakers are used for training and validation."""
    validation: tuple[tuple[str, ...], ...] = ()
    """Validation speakers of each fold; if empty, a seeded selection of the speakers that are not tested."""


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A corpus: its classes, and its clips ordered by clip_id."""

    name: str
    """Name of the corpus."""
    classes: tuple[str, ...]
    """Class names in the order of the labels."""
    clips: tuple[MediaClip, ...]
    """All clips, ordered by clip_id."""
    sex: dict[str, str]
    """'f' or 'm' for each speaker whose sex is known."""
    notes: tuple[str, ...]
    """Remarks on the files of the corpus; stored in prep.json."""
    root: str = ""
    """Folder to which the paths in manifest.csv are relative."""
    class_map: dict[str, str] = dataclasses.field(default_factory=dict)
    """Name of a class in `classes` for each class name of the corpus; stored in prep.json."""
    protocols: tuple[EvaluationProtocol, ...] = ()
    """Protocols that the corpus reader derived from the files, in addition to the shipped protocols."""
