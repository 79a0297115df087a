"""Partial answers that are damaged: refused in one line that names the file; a torn last line is none."""

import contextlib
import json
import re
import types

import pytest

from emofuse_jax.serving import prediction_file
from emofuse_jax.serving.bundle import format

PREDICTION = {
    "start": 0.0,
    "end": 1.0,
    "label": "a",
    "confidence": 1.0,
    "probabilities": {"a": 1.0, "b": 0.0},
}


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / format.MANIFEST_FILE).write_text("{}")
    return types.SimpleNamespace(path=str(tmp_path), classes=("a", "b"))


def write_partial(bundle, output: str) -> None:
    """The answers of two files, then a stop."""
    with (
        contextlib.suppress(KeyError),
        prediction_file.open_prediction_writer(output, bundle, 0.0) as writer,
    ):
        for name in ("a.wav", "b.wav"):
            writer.add(name, [{"path": name, **PREDICTION}])
        raise KeyError


def assert_refused(bundle, output: str, message: str) -> None:
    with (
        pytest.raises(ValueError, match=rf"\A{re.escape(output)}\.partial: {message}[^\n]*\Z") as error,
        prediction_file.open_prediction_writer(output, bundle, 0.0),
    ):
        pass
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("number", "text", "message"),
    [
        (0, "{", "line 1: not JSON"),
        (0, "", "line 1: not JSON"),
        (0, "[" * 100_000, "line 1: not JSON: maximum recursion"),
        (0, json.dumps(["x" * 5000]), r"was started with \[\"xx"),
        (1, '{"path": ', "line 2: not JSON"),
        (1, "", "line 2: not JSON"),
        (1, "[]", "line 2: expected a JSON object with a text in the field path"),
        (2, '{"path": 1}', "line 3: expected a JSON object"),
    ],
)
def test_a_line_in_the_middle(bundle, tmp_path, number, text, message):
    output = str(tmp_path / "answers.jsonl")
    write_partial(bundle, output)
    lines = (tmp_path / "answers.jsonl.partial").read_text().splitlines()
    lines[number] = text
    (tmp_path / "answers.jsonl.partial").write_text("\n".join(lines) + "\n")
    assert_refused(bundle, output, message)


def test_a_torn_last_line_is_answered_again(bundle, tmp_path):
    output = str(tmp_path / "answers.jsonl")
    write_partial(bundle, output)
    with open(f"{output}.partial", "ab") as file:
        file.write(b'{"path": "c.w')
    with prediction_file.open_prediction_writer(output, bundle, 0.0) as writer:
        assert writer.completed_paths == {"a.wav"}  # the last one may lack windows


@pytest.mark.parametrize(
    "change",
    [{"probabilities": 1}, {"confidence": "x"}, {"start": 10**30}, {"label": ["a"]}, {"path": "\ud800"}],
)
def test_an_answer_that_fits_no_table(bundle, tmp_path, change):
    output = str(tmp_path / "answers.parquet")
    write_partial(bundle, output)
    with open(f"{output}.partial", "a") as file:
        for name in ("c.wav", "d.wav"):  # the last one is cut off
            file.write(json.dumps({"path": name, **PREDICTION} | change) + "\n")
            change = {}
    assert_refused(bundle, output, "the predictions do not match the Parquet columns: ")
    assert not (tmp_path / "answers.parquet").exists()
