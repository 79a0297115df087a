"""What must stand loudly beside a number or a picture."""

from collections.abc import Iterable


def marks_of(corpus: str, leaks: Iterable[str] = ()) -> list[str]:
    """Marks of what comes from a corpus: leaks of its split, and that it was made."""
    made = "SYNTHETIC: drawn faces and synthesised voices; says nothing about people"
    return [f"LEAKY: {leak}; only for comparison" for leak in leaks] + ([made] if corpus == "demo" else [])
