"""What every corpus reader hands over: a list of clips with labels and speakers."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip: a media file, or the part of it between `start` and `end` (seconds from its beginning)."""

    clip_id: str
    """Unique in the corpus."""
    path: str
    label: int
    """Index into the corpus's classes; -1 is unlabelled."""
    speaker: str
    start: float | None = None
    end: float | None = None
    half: str = ""
    """'left' or 'right': the half of the picture in which the speaker is; '': all of it."""
    take: str = ""
    """What several clips show at once, such as two cameras; '': nothing else shows it."""


@dataclasses.dataclass(frozen=True)
class EvaluationProtocol:
    """A named partition: `folds[i]` are the test speakers of fold i; the rest of `speakers` trains."""

    name: str
    speakers: tuple[str, ...]
    folds: tuple[tuple[str, ...], ...]
    validation: tuple[tuple[str, ...], ...] = ()
    """Validation speakers of each fold, where the protocol says so; else a seeded part of the others."""


@dataclasses.dataclass(frozen=True)
class Corpus:
    """All clips of a corpus, ordered by clip_id."""

    name: str
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]
    sex: dict[str, str]
    """speaker to 'f' or 'm', where it is known."""
    notes: tuple[str, ...]
    """Remarks on the corpus as found; they go to prep.json."""
    root: str = ""
    """The folder that manifest.csv's paths are relative to."""
    class_map: dict[str, str] = dataclasses.field(default_factory=dict)
    """The corpus's own name of a class to ours; goes to prep.json."""
    protocols: tuple[EvaluationProtocol, ...] = ()
    """Protocols whose speakers are known only from what lies there."""
