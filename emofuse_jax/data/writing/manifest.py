"""manifest.csv: one row for each clip, with its status and where its record is."""

import csv
import io
import os

from emofuse_jax.utils.files import write_atomic

MANIFEST_COLUMNS = (
    "clip_id",
    "path",
    "speaker",
    "label",
    "status",
    "reason",
    "shard",
    "row",
    "index",
    "sha256",
    "take",
    "start",
    "end",
)


def write_manifest(output: str, rows: list[dict]) -> None:
    """manifest.csv: a row for each clip, in order."""
    text = io.StringIO(newline="")
    # A lone return is left bare by Python before 3.13, and ends the row where it is read.
    has_bare_return = any("\r" in str(value) for row in rows for value in row.values())
    quoting = csv.QUOTE_ALL if has_bare_return else csv.QUOTE_MINIMAL
    writer = csv.DictWriter(text, MANIFEST_COLUMNS, lineterminator="\n", quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(os.path.join(output, "manifest.csv"), text.getvalue().encode())
