"""Measure, side by side in one run, and say the ratio (above 1: ours is better).

    emofuse benchmark --suite=records --data=runs/demo/records --output=benchmark.json

records: reading and decoding records, ours against TFDS's own path on the same files.
"""

import json
import os
import platform
from collections.abc import Sequence

from absl import flags

from launch.cli import run
from launch.suites import SUITES

SUITE = flags.DEFINE_list("suite", ["records"], f"What to measure, of: {', '.join(SUITES)}.")
DATA = flags.DEFINE_string("data", "runs/demo/records", "Directory written by emofuse prepare.")
OUTPUT = flags.DEFINE_string("output", None, "JSON file to write the rows to.")


def main(argv: Sequence[str]) -> None:
    """Runs the suites, prints a line per row, writes the JSON."""
    unknown = [name for name in SUITE.value if name not in SUITES]
    if argv[1:] or unknown:
        raise ValueError(f"unexpected {[*argv[1:], *unknown][0]!r}; see emofuse benchmark --help")
    rows = [{"suite": name, **row} for name in SUITE.value for row in SUITES[name](DATA.value)]
    for row in rows:
        print(
            f"{row['suite']}/{row['case']}: ours {row['ours']:.4g} {row['unit']},"
            f" {row['peer_name']} {row['peer']:.4g}, ratio {row['ratio']:.2f} ({row['repeats']} repeats)"
        )
    if OUTPUT.value:
        machine = {"platform": platform.platform(), "cores": os.cpu_count()}
        with open(OUTPUT.value, "w", encoding="utf-8") as file:
            json.dump({"machine": machine, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    run(main)
