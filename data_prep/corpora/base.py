"""What every corpus reader hands over: a list of clips with labels and speakers."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Clip:
    """One take: a media file, or the part of it between `start` and `end` (seconds from its beginning)."""

    clip_id: str
    """Unique in the corpus; the take, not the file."""
    path: str
    label: int
    """Index into the corpus's classes; -1 is unlabelled."""
    speaker: str
    start: float | None = None
    end: float | None = None


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
