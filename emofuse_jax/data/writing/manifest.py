"""Writes manifest.csv: one row for each clip, with its status and the position of its record."""

import csv
import io
import os
from collections.abc import Sequence

from emofuse_jax.data.metadata import ManifestRow
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


def write_manifest(output: str, rows: Sequence[ManifestRow]) -> None:
    """Writes manifest.csv atomically into the directory `output`, one line for each row, in order.

    An existing file is replaced.

    Args:
      output: Directory of the records.
      rows: A dict for each clip with the keys `clip_id`, `path`, `speaker`, `label`, `status`, `reason`,
        `shard`, `row`, `index`, `sha256`, `take`, `start` and `end` (MANIFEST_COLUMNS); missing keys and None
        are written as empty.

    Raises:
      OSError: The file cannot be written.
      ValueError: A row has another key, or a text cannot be encoded as UTF-8.
    """
    text = io.StringIO(newline="")
    # Python before 3.13 does not quote a single carriage return, which then ends the row for the reader.
    has_bare_return = any("\r" in str(value) for row in rows for value in row.values())
    writer = csv.DictWriter(
        text,
        MANIFEST_COLUMNS,
        lineterminator="\n",
        quoting=csv.QUOTE_ALL if has_bare_return else csv.QUOTE_MINIMAL,
    )
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(os.path.join(output, "manifest.csv"), text.getvalue().encode())
