"""Warnings that must be shown next to a number or a figure."""

from collections.abc import Iterable


def corpus_marks(corpus: str, leaks: Iterable[str] = ()) -> list[str]:
    """Returns the warning texts for results on an artificial corpus, or with leaks between the splits.

    First comes a text that starts with `LEAKY:` for each leak. A corpus `composite...` adds a text with
    `COMPOSITE:`; `demo` and `composite_demo` add one with `SYNTHETIC:`. The list is empty for a real corpus
    without leaks.

    Args:
      corpus: name of the corpus.
      leaks: description of each leak.
    """
    marks = [f"LEAKY: {leak}; only for comparison" for leak in leaks]
    if corpus.startswith("composite"):
        marks.append("COMPOSITE: audio and faces of different people; only a test of the fusion")
    if corpus == "demo":
        marks.append("SYNTHETIC: drawn faces and synthetic voices; says nothing about people")
    if corpus == "composite_demo":
        marks.append("SYNTHETIC: one modality was drawn or synthesised")
    return marks
