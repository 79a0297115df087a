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
    """Raises ValueError if `output` does not end in .jsonl or .parquet, or if the file exists.

    Also raises ValueError if `output` ends in .parquet and pyarrow is not installed. An existing `output` is
    accepted if `<output>.partial` exists too, because the command can then be resumed. Raises ImportError if
    pyarrow is needed and installed, but cannot be imported.
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
    """Opens `<output>.partial` and yields a PredictionWriter that continues after the predictions in it.

    `add(path, predictions)` of the writer appends the JSON dicts of all windows of one media file; its sets
    `completed_paths` and `failed_paths` are the media files whose predictions are written, and those among
    them with an error. If the block ends without an exception, the predictions are written to `output` and
    `<output>.partial` is removed; otherwise `<output>.partial` stays. A .jsonl file has one JSON dict per
    line, a .parquet file one row per dict, with a column `p_<class>` for each class instead of
    `probabilities`.

    Args:
      output: file to write, ending in .jsonl or .parquet; missing directories are created.
      bundle: the bundle that predicts.
      min_confidence: the minimum confidence of the predictions.

    Raises:
      ValueError: `output` has another suffix, or exists without `<output>.partial`; pyarrow is not installed
        but `output` ends in .parquet; `<output>.partial` is damaged, belongs to another bundle or minimum
        confidence, or is being written by another process; or, at the end of the block, a prediction does not
        fit the columns of the .parquet file.
      OSError: a file cannot be read or written, or bundle.json cannot be read.
      ImportError: pyarrow is needed and installed, but cannot be imported.
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
        """Appends the predictions of one media file as JSON lines, and adds `path` to `completed_paths`.

        If a prediction has the key `error`, `path` is also added to `failed_paths`. The lines are not
        buffered, so they stay if the process is killed. Raises OSError if they cannot be written.

        Args:
          path: the media file.
          predictions: JSON dicts of all its windows, as `predict_files` yields them: {"path", "start", "end",
            "label", "confidence", "probabilities", "voice_weight", "face_weight", "audio_ok", "video_ok"},
            with "notes" if there are any, or {"path", "error"}, with or without "start" and "end".
        """
        _write_lines(self.file, predictions)
        self.completed_paths.add(path)
        if any("error" in prediction for prediction in predictions):
            self.failed_paths.add(path)


def _resume(file: BinaryIO, header: Mapping[str, str | float]) -> PredictionWriter:
    """Returns a writer that continues after the complete files in `file`; an empty file first gets `header`.

    Removes an incomplete last line, and the lines of the last media file, which may lack windows and is
    predicted again. `completed_paths` of the writer are the other media files, `failed_paths` those among
    them with an error.

    Raises:
      ValueError: the first line is not JSON or another header, or a later line is not a JSON object with a
        string `path`.
      OSError: `file` cannot be read, shortened or written.
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
    """Returns the prediction in a JSON line as a dict; only its field `path`, a string, is validated.

    `line_name` names the file and the line in the message. Raises ValueError if the line is not JSON, or not
    an object with a string `path`.
    """
    prediction = parse_json(line, line_name)
    if not _has_path(prediction):
        raise ValueError(
            f"{line_name}: expected a JSON object with a text in the field path; remove this .partial file"
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
    """Returns the header {"bundle": hexadecimal SHA-256 of bundle.json, "min_confidence": the number}.

    All predictions in one file must have an equal header. Raises OSError if bundle.json cannot be read.
    """
    manifest_sha256 = file_sha256(os.path.join(bundle.path, MANIFEST_FILE))
    return {"bundle": manifest_sha256, "min_confidence": min_confidence}


def _write_output(file: BinaryIO, output: str, classes: Sequence[str]) -> None:
    """Writes the predictions in `file` to the file `output`, which is replaced atomically.

    They are first written to `<output>.tmp`, which stays there after an error. The first line of `file`, its
    header, is left out. The format is Parquet, with columns for `classes`, if `output` ends in .parquet, and
    JSON lines otherwise. Raises OSError if `output` cannot be written. For Parquet, raises ValueError if a
    prediction does not fit the columns, and ModuleNotFoundError if pyarrow is not installed.
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
    """Writes JSON lines to the Parquet file `path`, which is replaced if it exists; one row for each line.

    The columns are path, start, end, label, confidence, `p_<class>` for each of `classes`, voice_weight,
    face_weight, audio_ok, video_ok, notes and error.

    Raises:
      ValueError: a line is not JSON, has no `path` or does not fit the columns.
      OSError: the file cannot be written.
      ModuleNotFoundError: pyarrow is not installed.
    """
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema(_column_types(classes))
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while row_group := list(itertools.islice(lines, ROW_GROUP_SIZE)):
            try:
                table = pyarrow.Table.from_pylist([_parse_table_row(line) for line in row_group], schema)
            except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{lines.name}: the predictions do not match the Parquet columns:"
                    f" {format_error(error)}; remove this .partial file"
                ) from error
            writer.write_table(table)


def _parse_table_row(line: bytes) -> dict[str, object]:
    """Returns the table row of a JSON line as a dict by column name, for the Parquet file.

    The columns are the fields of the line, with `probabilities` replaced by one column `p_<class>` per class.
    Bytes in `path` that are not UTF-8 are replaced by a backslash, x and two hexadecimal digits. Raises
    ValueError if the line is not JSON, KeyError if it has no `path`, TypeError if it is not an object or its
    `path` is not a text, and AttributeError if `probabilities` is not an object.
    """
    prediction: WindowFields = json.loads(line)
    path = os.fsencode(prediction["path"])  # a file name need not be UTF-8, a column must be
    return to_table_row(prediction) | {"path": path.decode(errors="backslashreplace")}


def _column_types(classes: Sequence[str]) -> list[tuple[str, str]]:
    """Returns (name, Arrow type) of each column, in order, such as ("path", "string").

    The columns are path (string), start and end (float64, seconds), label (string), confidence, `p_<class>`
    for each class, voice_weight and face_weight (float32), audio_ok and video_ok (bool), notes and error
    (string). A column is null in rows that do not have its field.
    """
    probability_columns = [(f"p_{name}", "float32") for name in classes]
    weight_columns = [("voice_weight", "float32"), ("face_weight", "float32")]
    status_columns = [("audio_ok", "bool"), ("video_ok", "bool"), ("notes", "string"), ("error", "string")]
    first_columns = [("path", "string"), ("start", "float64"), ("end", "float64"), ("label", "string")]
    return [*first_columns, ("confidence", "float32"), *probability_columns, *weight_columns, *status_columns]
