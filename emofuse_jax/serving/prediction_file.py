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

from emofuse_jax.serving.bundle.format import file_sha256
from emofuse_jax.serving.bundle.load import Bundle
from emofuse_jax.serving.interfaces import MANIFEST
from emofuse_jax.serving.predictions import row_of
from emofuse_jax.utils.errors import format_error
from emofuse_jax.utils.files import name_file_in_error, parse_json
from emofuse_jax.utils.locks import lock_file

SUFFIXES = (".jsonl", ".parquet")
ROWS = 10_000
"""Of a row group."""


def check_output(output: str) -> None:
    """ValueError, one line, where answers can't be written to `output`."""
    if not output.endswith(SUFFIXES):
        raise ValueError(f"{output}: expected a name that ends in {' or '.join(SUFFIXES)}")
    if os.path.lexists(output) and not os.path.exists(f"{output}.partial"):  # both: killed at the last step
        raise ValueError(f"{output}: exists; remove it, or give another --output")


@contextlib.contextmanager
def gathering(output: str, bundle: Bundle, min_confidence: float) -> Iterator["Gathered"]:
    """The answers so far, to be added to; when the block ends without an error they become `output`.

    Raises:
      ValueError: what lies in `<output>.partial` was begun with another bundle or confidence, or another
        process adds to it.
    """
    check_output(output)
    partial = f"{output}.partial"
    os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
    with open(partial, "ab+") as file:
        lock_file(file, f"{partial}: another process adds to it")
        yield _resumed(file, _header(bundle, min_confidence))
        _finish(file, output, bundle.classes)
        os.unlink(partial)


@dataclasses.dataclass(frozen=True)
class Gathered:
    """JSON lines of whole files, in a file that is open."""

    file: BinaryIO
    files: set[str]
    """Those that are answered."""
    refused: set[str]
    """Of these the ones that have no answer, or not for all of their windows."""

    def add(self, path: str, answers: Sequence[dict]) -> None:
        """The answers of one file."""
        _write(self.file, answers)
        self.files.add(path)
        if any("error" in answer for answer in answers):
            self.refused.add(path)


def _resumed(file: BinaryIO, header: dict) -> Gathered:
    """Cuts off what was torn, and the last file, which may lack windows: it is answered again."""
    file.seek(0)
    lines = itertools.takewhile(lambda line: line.endswith(b"\n"), file)
    first = next(lines, b"")
    if first and parse_json(first, f"{file.name}: line 1") != header:
        found, asked = first[:200].decode(errors="replace").strip(), json.dumps(header)
        raise ValueError(
            f"{file.name}: begun as {found}, now asked for {asked}; remove it, or give another --output"
        )
    files, refused, last, at, end = set(), set(), None, len(first), len(first)
    for number, line in enumerate(lines, 2):
        answer = _answer(line, f"{file.name}: line {number}")
        if answer["path"] != last:
            last, end = answer["path"], at
        files.add(last)
        if "error" in answer:
            refused.add(last)
        at += len(line)
    file.truncate(end)
    if not first:
        _write(file, [header])
    return Gathered(file, files - {last}, refused - {last})


def _answer(line: bytes, name: str) -> dict:
    answer = parse_json(line, name)
    if not isinstance(answer, dict) or not isinstance(answer.get("path"), str):
        raise ValueError(f"{name}: field path: expected that of an answered file")
    return answer


def _write(file: BinaryIO, values: Sequence[dict]) -> None:
    with name_file_in_error(file.name):
        file.write("".join(f"{json.dumps(value)}\n" for value in values).encode())
        file.flush()


def _header(bundle: Bundle, min_confidence: float) -> dict:
    """What must be the same for answers to stand in one file."""
    digest = file_sha256(os.path.join(bundle.path, MANIFEST))
    return {"bundle": digest, "min_confidence": min_confidence}


def _finish(file: BinaryIO, output: str, classes: Sequence[str]) -> None:
    file.seek(0)
    next(file)
    temporary = f"{output}.tmp"
    if output.endswith(".parquet"):
        _write_parquet(file, temporary, classes)
    else:
        with name_file_in_error(temporary), open(temporary, "wb") as target:
            target.writelines(file)
    os.replace(temporary, output)


def _write_parquet(lines: BinaryIO, path: str, classes: Sequence[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema(_columns(classes))
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while some := list(itertools.islice(lines, ROWS)):
            try:
                table = pyarrow.Table.from_pylist([_row(line) for line in some], schema)
            except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
                raise ValueError(f"{lines.name}: its answers fit no table: {format_error(error)}") from error
            writer.write_table(table)


def _row(line: bytes) -> dict:
    row = row_of(json.loads(line))  # a file's name need not be UTF-8, a column must
    return row | {"path": os.fsencode(row["path"]).decode(errors="backslashreplace")}


def _columns(classes: Sequence[str]) -> list[tuple[str, str]]:
    """Name and Arrow type of what a row can have; a column is null where an answer lacks it."""
    probabilities = [(f"p_{name}", "float32") for name in classes]
    weights = [("voice_weight", "float32"), ("face_weight", "float32")]
    found = [("audio_ok", "bool"), ("video_ok", "bool"), ("notes", "string"), ("error", "string")]
    head = [("path", "string"), ("start", "float64"), ("end", "float64"), ("label", "string")]
    return [*head, ("confidence", "float32"), *probabilities, *weights, *found]
