"""What a corpus holds as distributed, and how what was found differs from it."""

import collections
import dataclasses
from collections.abc import Iterable

from emofuse_jax.data.writing.corpus import Corpus


@dataclasses.dataclass(frozen=True)
class Expected:
    """Numbers of a corpus as distributed; zero or empty where they are not known."""

    clips: int
    speakers: int
    classes: dict[str, int] = dataclasses.field(default_factory=dict)
    """Clips of each class, by the corpus's own names."""
    per_speaker: int = 0
    takes: frozenset[str] = frozenset()
    """clip_ids of all that should be there."""


def checked(corpus: Corpus, expected: Expected) -> Corpus:
    """`corpus` with a note for each difference from what it holds as distributed."""
    return dataclasses.replace(corpus, notes=corpus.notes + tuple(differences(corpus, expected)))


def differences(corpus: Corpus, expected: Expected) -> list[str]:
    """A line for each number of `corpus` that is not as expected; what is missing is named, all of it."""
    labels = collections.Counter(corpus.classes[clip.label] for clip in corpus.clips if clip.label >= 0)
    speakers = collections.Counter(clip.speaker for clip in corpus.clips)
    wanted = [("clips", len(corpus.clips), expected.clips), ("speakers", len(speakers), expected.speakers)]
    wanted += [(f"class {name}", labels[name], count) for name, count in expected.classes.items()]
    if expected.per_speaker:
        wanted += [(f"speaker {name}", n, expected.per_speaker) for name, n in sorted(speakers.items())]
    lines = [
        f"{what}: {found}, expected {count}" for what, found, count in wanted if count and found != count
    ]
    if expected.takes:
        ids = {clip.clip_id for clip in corpus.clips}
        lines += listed("missing", expected.takes - ids) + listed("unexpected", ids - expected.takes)
    return lines


def listed(what: str, names: Iterable[str]) -> list[str]:
    """One line with all of `names` and their number; none if there are none."""
    names = sorted(names)
    return [f"{what} ({len(names)}): {', '.join(names)}"] if names else []
