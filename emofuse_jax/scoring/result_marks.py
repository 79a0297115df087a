"""Warnings that must be shown next to a number or a figure."""

from collections.abc import Iterable


def corpus_marks(corpus: str, leaks: Iterable[str] = ()) -> list[str]:
    """Returns the warning texts for results on an artificial corpus, or with leaks between the splits.

    Each text starts with `LEAKY:` (one text per leak), `COMPOSITE:` or `SYNTHETIC:`. The list is empty for a
    real corpus without leaks.

    Args:
      corpus: name of the corpus; `composite...` and `demo` are artificial.
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
