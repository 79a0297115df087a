"""One table of all results below a folder, best first: leaders.html in it, and the terminal.

    emofuse leaders runs/

Takes every results.json of emofuse crossval (scores of all answers pooled) and emofuse evaluate. Results on
other clips stand in tables of their own.
"""

from collections.abc import Sequence

from absl import flags

OUTPUT = flags.DEFINE_string("output", "", "Page to write, in place of leaders.html in the folder.")
MEASURE = flags.DEFINE_enum("measure", "ua", ["ua", "wa", "wf1"], "What the order goes by.")


def main(argv: Sequence[str]) -> None:
    """Finds, writes and prints."""
    if len(argv) != 2:
        raise ValueError("usage: emofuse leaders FOLDER; see emofuse leaders --help")
    from emofuse_jax.reporting import leaderboard, terminal

    path, rows, skipped_paths = leaderboard.write_leaderboard(argv[1], OUTPUT.value, MEASURE.value)
    groups: dict[tuple, dict] = {}
    for row in rows:
        groups.setdefault(row["group"], {})[f"{row['config']} ({row['path']})"] = row["scores"]
    for group, members in groups.items():
        terminal.print_scores(members, title=", ".join(group))
    for skipped_path in skipped_paths:
        print(f"{skipped_path}: not a result of emofuse crossval or evaluate; left out")
    print(f"table: {path}")
