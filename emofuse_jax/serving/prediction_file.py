"""Answers for thousands of files in one file, JSON lines or Parquet, that a stopped command goes on with.

They gather in `<output>.partial`, JSON lines after a first line that says what is being answered; `output`
appears when all is there.
"""

import contextlib
import dataclasses
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from emofuse_jax.serving.bundle.load import Bundle
from emofuse_jax.serving.interfaces import MANIFEST_FILE
from emofuse_jax.serving.predictions import to_table_row
from emofuse_jax.utils.errors import format_error
from emofuse_jax.utils.files import file_sha256, name_file_in_error, parse_json
from emofuse_jax.utils.locks import lock_file

OUTPUT_SUFFIXES = (".jsonl", ".parquet")
ROW_GROUP_SIZE = 10_000
"""Rows of a Parquet row group."""


def check_output(output: str) -> None:
    """ValueError, one line, where answers can't be written to `output`."""
    if not output.endswith(OUTPUT_SUFFIXES):
        raise ValueError(f"{output}: expected a name that ends in {' or '.join(OUTPUT_SUFFIXES)}")
    if os.path.lexists(output) and not os.path.exists(f"{output}.partial"):  # both: killed at the last step
        raise ValueError(f"{output}: exists; remove it, or give another --output")


@contextlib.contextmanager
def open_prediction_writer(
    output: str, bundle: Bundle, min_confidence: float
) -> Iterator["PredictionWriter"]:
    """The answers so far, to be added to; when the block ends without an error they become `output`.

    Raises:
      ValueError: what lies in `<output>.partial` was begun with another bundle or confidence, or another
        process adds to it.
    """
    check_output(output)
    partial_path = f"{output}.partial"
    os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
    with open(partial_path, "ab+") as file:
        lock_file(file, f"{partial_path}: another process adds to it")
        yield _resume(file, _make_header(bundle, min_confidence))
        _write_output(file, output, bundle.classes)
        os.unlink(partial_path)


@dataclasses.dataclass(frozen=True)
class PredictionWriter:
    """JSON lines of whole files, in a file that is open."""

    file: BinaryIO
    completed_paths: set[str]
    """Those that are answered."""
    failed_paths: set[str]
    """Of these the ones that have no answer, or not for all of their windows."""

    def add(self, path: str, predictions: Sequence[dict]) -> None:
        """The answers of one file."""
        _write_lines(self.file, predictions)
        self.completed_paths.add(path)
        if any("error" in prediction for prediction in predictions):
            self.failed_paths.add(path)


def _resume(file: BinaryIO, header: dict) -> PredictionWriter:
    """Cuts off what was torn, and the last file, which may lack windows: it is answered again."""
    file.seek(0)
    lines = itertools.takewhile(lambda line: line.endswith(b"\n"), file)
    header_line = next(lines, b"")
    if header_line and parse_json(header_line, f"{file.name}: line 1") != header:
        found_header, expected_header = header_line[:200].decode(errors="replace").strip(), json.dumps(header)
        raise ValueError(
            f"{file.name}: begun as {found_header}, now asked for {expected_header}; remove it, or give"
            f" another --output"
        )
    completed_paths, failed_paths, last_path, offset, end_offset = (
        set(),
        set(),
        None,
        len(header_line),
        len(header_line),
    )
    for line_number, line in enumerate(lines, 2):
        prediction = _parse_line(line, f"{file.name}: line {line_number}")
        if prediction["path"] != last_path:
            last_path, end_offset = prediction["path"], offset
        completed_paths.add(last_path)
        if "error" in prediction:
            failed_paths.add(last_path)
        offset += len(line)
    file.truncate(end_offset)
    if not header_line:
        _write_lines(file, [header])
    return PredictionWriter(file, completed_paths - {last_path}, failed_paths - {last_path})


def _parse_line(line: bytes, line_name: str) -> dict:
    prediction = parse_json(line, line_name)
    if not isinstance(prediction, dict) or not isinstance(prediction.get("path"), str):
        raise ValueError(f"{line_name}: field path: expected that of an answered file")
    return prediction


def _write_lines(file: BinaryIO, values: Sequence[dict]) -> None:
    with name_file_in_error(file.name):
        file.write("".join(f"{json.dumps(value)}\n" for value in values).encode())
        file.flush()


def _make_header(bundle: Bundle, min_confidence: float) -> dict:
    """What must be the same for answers to stand in one file."""
    manifest_sha256 = file_sha256(os.path.join(bundle.path, MANIFEST_FILE))
    return {"bundle": manifest_sha256, "min_confidence": min_confidence}


def _write_output(file: BinaryIO, output: str, classes: Sequence[str]) -> None:
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
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema(_column_types(classes))
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while row_group := list(itertools.islice(lines, ROW_GROUP_SIZE)):
            try:
                table = pyarrow.Table.from_pylist([_parse_table_row(line) for line in row_group], schema)
            except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
                raise ValueError(f"{lines.name}: its answers fit no table: {format_error(error)}") from error
            writer.write_table(table)


def _parse_table_row(line: bytes) -> dict:
    row = to_table_row(json.loads(line))  # a file's name need not be UTF-8, a column must
    return row | {"path": os.fsencode(row["path"]).decode(errors="backslashreplace")}


def _column_types(classes: Sequence[str]) -> list[tuple[str, str]]:
    """Name and Arrow type of what a row can have; a column is null where an answer lacks it."""
    probability_columns = [(f"p_{name}", "float32") for name in classes]
    weight_columns = [("voice_weight", "float32"), ("face_weight", "float32")]
    status_columns = [("audio_ok", "bool"), ("video_ok", "bool"), ("notes", "string"), ("error", "string")]
    first_columns = [("path", "string"), ("start", "float64"), ("end", "float64"), ("label", "string")]
    return [*first_columns, ("confidence", "float32"), *probability_columns, *weight_columns, *status_columns]
