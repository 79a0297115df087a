"""What must stand loudly beside a number or a picture."""

from collections.abc import Iterable


def corpus_marks(corpus: str, leaks: Iterable[str] = ()) -> list[str]:
    """Marks of what comes from a corpus: leaks of its split, and that it was made."""
    marks = [f"LEAKY: {leak}; only for comparison" for leak in leaks]
    if corpus.startswith("composite"):
        marks.append("COMPOSITE: voices with the faces of others; a test of fusion, no result on people")
    if corpus == "demo":
        marks.append("SYNTHETIC: drawn faces and synthesised voices; says nothing about people")
    if corpus == "composite_demo":
        marks.append("SYNTHETIC: one side of it was drawn or synthesised")
    return marks
