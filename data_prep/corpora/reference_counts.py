"""Compares the clips of a corpus with the published numbers."""

import collections
import dataclasses
from collections.abc import Iterable

from emofuse_jax.data.writing.corpus import Corpus


@dataclasses.dataclass(frozen=True)
class ExpectedCounts:
    """Published numbers of a corpus; zero or empty if unknown."""

    clips: int
    speakers: int
    classes: dict[str, int] = dataclasses.field(default_factory=dict)
    """Number of clips of each class, by original class name."""
    clips_per_speaker: int = 0
    clip_ids: frozenset[str] = frozenset()
    """All expected clip_ids."""


def add_difference_notes(corpus: Corpus, expected: ExpectedCounts) -> Corpus:
    """Returns a copy of the corpus with one more note for each number that differs from the expected one.

    `expected` has the numbers `clips` and `speakers`, `classes` (number of clips by class name),
    `clips_per_speaker` (of each speaker), and the set `clip_ids`; a number of 0 and an empty set are not
    compared. One note lists the clip_ids that are missing, and one those that are not expected.
    """
    return dataclasses.replace(corpus, notes=corpus.notes + tuple(list_differences(corpus, expected)))


def list_differences(corpus: Corpus, expected: ExpectedCounts) -> list[str]:
    """Returns a line for each number that differs from the expected one; an empty list if all are equal.

    `expected` has the numbers `clips` and `speakers`, `classes` (number of clips by class name),
    `clips_per_speaker` (of each speaker), and the set `clip_ids`; a number of 0 and an empty set are not
    compared. A line is such as `clips: 1439, expected 1440`. One line lists the clip_ids that are missing,
    and one those that are not expected.
    """
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
    """Returns a list with one line, `title (number): a, b, c` (sorted names); an empty list without names."""
    names = sorted(names)
    return [f"{title} ({len(names)}): {', '.join(names)}"] if names else []
