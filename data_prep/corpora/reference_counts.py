"""What a corpus holds as distributed, and how what was found differs from it."""

import collections
import dataclasses
from collections.abc import Iterable

from emofuse_jax.data.writing.corpus import Corpus


@dataclasses.dataclass(frozen=True)
class ExpectedCounts:
    """Numbers of a corpus as distributed; zero or empty where they are not known."""

    clips: int
    speakers: int
    classes: dict[str, int] = dataclasses.field(default_factory=dict)
    """Clips of each class, by the corpus's own names."""
    clips_per_speaker: int = 0
    clip_ids: frozenset[str] = frozenset()
    """clip_ids of all that should be there."""


def add_difference_notes(corpus: Corpus, expected: ExpectedCounts) -> Corpus:
    """`corpus` with a note for each difference from what it holds as distributed."""
    return dataclasses.replace(corpus, notes=corpus.notes + tuple(list_differences(corpus, expected)))


def list_differences(corpus: Corpus, expected: ExpectedCounts) -> list[str]:
    """A line for each number of `corpus` that is not as expected; what is missing is named, all of it."""
    class_counts = collections.Counter(corpus.classes[clip.label] for clip in corpus.clips if clip.label >= 0)
    speaker_counts = collections.Counter(clip.speaker for clip in corpus.clips)
    comparisons = [
        ("clips", len(corpus.clips), expected.clips),
        ("speakers", len(speaker_counts), expected.speakers),
    ]
    comparisons += [(f"class {name}", class_counts[name], count) for name, count in expected.classes.items()]
    if expected.clips_per_speaker:
        comparisons += [
            (f"speaker {name}", n, expected.clips_per_speaker) for name, n in sorted(speaker_counts.items())
        ]
    lines = [
        f"{quantity}: {actual}, expected {count}"
        for quantity, actual, count in comparisons
        if count and actual != count
    ]
    if expected.clip_ids:
        clip_ids = {clip.clip_id for clip in corpus.clips}
        lines += format_names("missing", expected.clip_ids - clip_ids) + format_names(
            "unexpected", clip_ids - expected.clip_ids
        )
    return lines


def format_names(title: str, names: Iterable[str]) -> list[str]:
    """One line with all of `names` and their number; none if there are none."""
    names = sorted(names)
    return [f"{title} ({len(names)}): {', '.join(names)}"] if names else []
