"""Writes the predictions of thousands of files to one JSON-lines or Parquet file, and resumes after a stop.

Predictions are collected in `<output>.partial`: JSON lines after a header line that identifies the bundle and
the minimum confidence. `output` is created when all files are done.
"""

import contextlib
import dataclasses
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, TypeGuard

from emofuse_jax.serving.bundle.load import Bundle
from emofuse_jax.serving.interfaces import MANIFEST_FILE
from emofuse_jax.serving.predictions import WindowFields, to_table_row
from emofuse_jax.utils.errors import format_error
from emofuse_jax.utils.files import file_sha256, name_file_in_error, parse_json
from emofuse_jax.utils.locks import lock_file
from emofuse_jax.utils.optional import require_package

OUTPUT_SUFFIXES = (".jsonl", ".parquet")
"""Suffixes of the supported output formats: JSON lines and Parquet."""
ROW_GROUP_SIZE = 10_000
"""Number of rows of a Parquet row group."""


def check_output(output: str) -> None:
    """Raises ValueError if `output` does not end in .jsonl or .parquet, or exists, or pyarrow is missing.

    An existing `output` is accepted if `<output>.partial` exists too, because the command can then be
    resumed.
    """
    if not output.endswith(OUTPUT_SUFFIXES):
        raise ValueError(f"{output}: expected a file name that ends in {' or '.join(OUTPUT_SUFFIXES)}")
    if output.endswith(".parquet"):
        require_package("pyarrow", "tables", "a .parquet file")
    if os.path.lexists(output) and not os.path.exists(f"{output}.partial"):  # both: killed in last step
        raise ValueError(f"{output}: the file exists; remove it or choose another --output")


@contextlib.contextmanager
def open_prediction_writer(
    output: str, bundle: Bundle, min_confidence: float
) -> Iterator["PredictionWriter"]:
    """Opens `<output>.partial` and yields a PredictionWriter with the predictions so far.

    If the block ends without an exception, the predictions are written to `output` and `<output>.partial` is
    removed.

    Args:
      output: file to write, ending in .jsonl or .parquet; missing directories are created.
      bundle: the bundle that predicts.
      min_confidence: the minimum confidence of the predictions.

    Raises:
      ValueError: `output` is invalid (`check_output`); `<output>.partial` is damaged, belongs to another
        bundle or minimum confidence, or is being written by another process; or, at the end of the block,
        pyarrow is missing for a .parquet file or a prediction does not fit its columns.
      OSError: a file cannot be written, or bundle.json cannot be read.
    """
    check_output(output)
    partial_path = f"{output}.partial"
    os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
    with open(partial_path, "ab+") as file:
        lock_file(file, f"{partial_path}: another process is writing to this file; wait until it ends")
        yield _resume(file, _make_header(bundle, min_confidence))
        _write_output(file, output, bundle.classes)
        os.unlink(partial_path)


@dataclasses.dataclass(frozen=True)
class PredictionWriter:
    """Appends the predictions of complete files to an open file, as JSON lines."""

    file: BinaryIO
    """Open file, positioned at its end."""
    completed_paths: set[str]
    """Files whose predictions are written."""
    failed_paths: set[str]
    """Files among `completed_paths` with at least one window without a prediction."""

    def add(self, path: str, predictions: Sequence[WindowFields]) -> None:
        """Appends the predictions of one file and flushes them to disk; raises OSError if that fails."""
        _write_lines(self.file, predictions)
        self.completed_paths.add(path)
        if any("error" in prediction for prediction in predictions):
            self.failed_paths.add(path)


def _resume(file: BinaryIO, header: Mapping[str, str | float]) -> PredictionWriter:
    """Returns a writer that continues after the complete files in `file`; an empty file first gets `header`.

    Removes an incomplete last line, and the last media file, which may lack windows and is predicted again.

    Raises:
      ValueError: a line is not valid, or the first line is another header.
      OSError: the header cannot be written.
    """
    file.seek(0)
    lines = itertools.takewhile(lambda line: line.endswith(b"\n"), file)
    header_line = next(lines, b"")
    if header_line and parse_json(header_line, f"{file.name}: line 1") != header:
        found_header, expected_header = header_line[:200].decode(errors="replace").strip(), json.dumps(header)
        raise ValueError(
            f"{file.name}: was started with {found_header}, but this run has {expected_header}; remove the"
            f" file or choose another --output"
        )
    completed_paths: set[str] = set()
    failed_paths: set[str] = set()
    last_path: str | None = None
    offset = end_offset = len(header_line)
    for line_number, line in enumerate(lines, 2):
        prediction = _parse_line(line, f"{file.name}: line {line_number}")
        path = prediction["path"]
        if path != last_path:
            last_path, end_offset = path, offset
        completed_paths.add(path)
        if "error" in prediction:
            failed_paths.add(path)
        offset += len(line)
    file.truncate(end_offset)
    if not header_line:
        _write_lines(file, [header])
    return PredictionWriter(file, completed_paths - {last_path}, failed_paths - {last_path})


def _parse_line(line: bytes, line_name: str) -> WindowFields:
    """Returns the prediction in a line; raises ValueError if it is not a JSON object with a string `path`."""
    prediction = parse_json(line, line_name)
    if not _has_path(prediction):
        raise ValueError(
            f"{line_name}: field path: expected an object with the path of a predicted file; remove the file"
        )
    return prediction


def _has_path(prediction: object) -> TypeGuard[WindowFields]:
    return isinstance(prediction, dict) and isinstance(prediction.get("path"), str)


def _write_lines(file: BinaryIO, values: Sequence[Mapping[str, object]]) -> None:
    """Appends one JSON line per value and flushes; raises OSError with the file's name if that fails."""
    with name_file_in_error(file.name):
        file.write("".join(f"{json.dumps(value)}\n" for value in values).encode())
        file.flush()


def _make_header(bundle: Bundle, min_confidence: float) -> dict[str, str | float]:
    """Returns the header {"bundle", "min_confidence"}, with the SHA-256 of bundle.json.

    All predictions in one file must have an equal header. Raises OSError if bundle.json cannot be read.
    """
    manifest_sha256 = file_sha256(os.path.join(bundle.path, MANIFEST_FILE))
    return {"bundle": manifest_sha256, "min_confidence": min_confidence}


def _write_output(file: BinaryIO, output: str, classes: Sequence[str]) -> None:
    """Converts the collected JSON lines in `file` to the file `output`, which is replaced atomically.

    Raises OSError if `output` cannot be written. For a .parquet file, raises ValueError if pyarrow is not
    installed or a prediction does not fit the columns.
    """
    file.seek(0)
    next(file)
    temporary_path = f"{output}.tmp"
    if output.endswith(".parquet"):
        _write_parquet(file, temporary_path, classes)
    else:
        with name_file_in_error(temporary_path), open(temporary_path, "wb") as target:
            target.writelines(file)
    os.replace(temporary_path, output)


def _write_parquet(lines: BinaryIO, path: str, classes: Sequence[str]) -> None:
    """Writes JSON lines to the Parquet file `path`.

    Raises:
      ValueError: a line does not fit the columns.
      OSError: the file cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema(_column_types(classes))
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while row_group := list(itertools.islice(lines, ROW_GROUP_SIZE)):
            try:
                table = pyarrow.Table.from_pylist([_parse_table_row(line) for line in row_group], schema)
            except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{lines.name}: the predictions do not match the Parquet columns: {format_error(error)}"
                ) from error
            writer.write_table(table)


def _parse_table_row(line: bytes) -> dict[str, object]:
    """Returns the table row of a JSON line, by column; bytes in the path that are not UTF-8 are escaped."""
    prediction: WindowFields = json.loads(line)
    path = os.fsencode(prediction["path"])  # a file name need not be UTF-8, a column must be
    return to_table_row(prediction) | {"path": path.decode(errors="backslashreplace")}


def _column_types(classes: Sequence[str]) -> list[tuple[str, str]]:
    """Returns (name, Arrow type) of each column; a column is null in rows that do not have its field."""
    probability_columns = [(f"p_{name}", "float32") for name in classes]
    weight_columns = [("voice_weight", "float32"), ("face_weight", "float32")]
    status_columns = [("audio_ok", "bool"), ("video_ok", "bool"), ("notes", "string"), ("error", "string")]
    first_columns = [("path", "string"), ("start", "float64"), ("end", "float64"), ("label", "string")]
    return [*first_columns, ("confidence", "float32"), *probability_columns, *weight_columns, *status_columns]
