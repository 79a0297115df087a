"""Scores as a table on the terminal."""

from rich.console import Console
from rich.table import Table

MEASURES = {"wa": "WA", "ua": "UA", "wf1": "weighted F1"}


def print_scores(rows: dict[str, dict], title: str = "") -> None:
    """One line per row, each measure in per cent with its 95 % interval by speaker."""
    table = Table("", *MEASURES.values(), title=title or None)
    for name, scores in rows.items():
        table.add_row(name, *(measure(scores, key) for key in MEASURES))
    Console(width=100).print(table)


def measure(scores: dict, key: str) -> str:
    """`81.2 [78.0, 84.1]`."""
    text = f"{100 * scores[key]:.1f}"
    if f"{key}_interval" in scores:
        low, high = scores[f"{key}_interval"]
        text += f" [{100 * low:.1f}, {100 * high:.1f}]"
    return text
