"""prep.json and manifest.csv that are of no use: one line, with file and field."""

import dataclasses
import json
import pathlib

import pytest

from emofuse_jax.data import records
from emofuse_jax.data.prepared_files import read_index, read_prep
from tests.support.fakes import write_dataset

SHAPE = dataclasses.asdict(records.RecordShape(f=70, h=16, w=16))


@pytest.fixture
def path(tmp_path):
    return write_dataset(str(tmp_path / "records"), num_clips=6, num_shards=2)


def edit_prep(path, **fields):
    file = pathlib.Path(path) / "prep.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schema_version": 99}, "prep.json: records schema 99; this emofuse reads schema 4: update emofuse"),
        ({"schema_version": True}, "field schema_version is True, expected an integer"),
        ({"classes": "ab"}, "field classes is 'ab', expected a list"),
        ({"settings": None}, "field settings is None, expected an object"),
        ({"shape": {"f": 70}}, "missing or invalid field: shape.h: this field is missing"),
        ({"shape": SHAPE | {"f": -1}}, "shape.f is -1, expected an integer from 0 to 1048575"),
        ({"shape": SHAPE | {"f": 1 << 20}}, "shape.f is 1048576, expected an integer from 0 to 1048575"),
        ({"shards": [{"records": "3"}]}, r"shards\[0\].records is '3', expected an integer from 0"),
        ({"shards": [3]}, "missing or invalid field: .*; prepare the clips again"),
        (
            {"speakers": [1]},
            "missing or invalid field: speakers has 1, expected only strings; prepare the clips again",
        ),
    ],
)
def test_fields(path, fields, message):
    read_prep(path)
    edit_prep(path, **fields)
    with pytest.raises(ValueError, match=rf"\A[^\n]*{message}"):
        read_prep(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "field schema_version is None"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON: maximum recursion"),
    ],
)
def test_what_is_no_object(path, text, message):
    (pathlib.Path(path) / "prep.json").write_text(text)
    with pytest.raises(ValueError, match=f"prep.json: {message}"):
        read_prep(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("clip_id,", "name,", "no column 'clip_id'"),
        ("index,", "number,", "no column 'index'"),
        ("speaker,", "person,", "no column 'speaker'"),
        ("status,", "state,", "no column 'status'"),
        ("label", "class", "no column 'label'"),
        ("\nclip002,2", "\nclip002", "row 4: expected 5 columns, as in row 1"),
        ("\nclip002,2", "\nclip002,2,2", "row 4: expected 5 columns, as in row 1"),
        ("\nclip002,2", f"\n{'x' * 200_000},2", "not a CSV file in UTF-8: field larger than"),
        ("\nclip002,2", "\nclip002,x", "not a valid manifest: invalid literal"),
        ("\nclip002,2", "\nclip002,1", "6 rows with a record, expected unique clip_ids and indices from 0"),
        ("\nclip002,2", "\nclip001,2", "6 rows with a record, expected unique clip_ids"),
    ],
)
def test_the_manifest(path, old, new, message):
    file = pathlib.Path(path) / "manifest.csv"
    text = file.read_text()
    read_index(path)
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=rf"manifest\.csv: {message}"):
        read_index(path)


def test_a_manifest_that_is_not_utf8(path):
    (pathlib.Path(path) / "manifest.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(
        ValueError, match=r"manifest\.csv: not a CSV file in UTF-8: .*; prepare the clips again$"
    ):
        read_index(path)
