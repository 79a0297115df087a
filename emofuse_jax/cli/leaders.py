"""Prints a table of all results below a folder, best first, and writes it as leaders.html.

    emofuse leaders runs/

Reads every results.json written by emofuse crossval (scores of all pooled predictions) or emofuse evaluate.
Results on different clips are in separate tables.
"""

import itertools
from collections.abc import Sequence
from typing import cast

from absl import flags

OUTPUT = flags.DEFINE_string("output", "", "HTML file to write; default: leaders.html in the folder.")
MEASURE = flags.DEFINE_enum(
    "measure",
    "ua",
    ["ua", "wa", "wf1"],
    "Score to sort by: unweighted accuracy, weighted accuracy or weighted F1.",
)


def main(argv: Sequence[str]) -> None:
    """Prints tables of all results below a folder, and writes them as an HTML page to --output.

    Without --output, the page is leaders.html in the folder; an existing one is replaced. `argv` has the name
    of the program and the folder.

    Raises:
      ValueError: there is not one argument, or the folder has no results.
      OSError: a file cannot be read or the page cannot be written.
      KeyError: a result lacks the score in --measure.
    """
    if len(argv) != 2:
        raise ValueError("expected one folder; usage: emofuse leaders FOLDER; see emofuse leaders --help")
    from emofuse_jax.reporting import leaderboard, terminal
    from emofuse_jax.scoring.result_types import Metric

    path, rows, skipped_paths = leaderboard.write_leaderboard(
        argv[1], OUTPUT.value, cast(Metric, MEASURE.value)
    )
    for group, group_rows in itertools.groupby(rows, key=lambda row: row["group"]):
        scores = {f"{row['config']} ({row['path']})": row["scores"] for row in group_rows}
        terminal.print_scores(scores, title=", ".join(group))
    for skipped_path in skipped_paths:
        print(f"{skipped_path}: skipped, not a result of emofuse crossval or emofuse evaluate")
    print(f"table: {path}")
