"""Files of another schema raise an error of one line: who wrote them, which schema is read, what to do."""

import json
import pathlib

import pytest

from data_prep.verify.records import verify
from emofuse_jax.data import records
from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.serving import load
from emofuse_jax.serving.bundle import format
from emofuse_jax.training.checkpoint import store
from tests.support.bundles import save_checkpoint
from tests.support.fakes import write_dataset

VERSIONS = {"versions": {"emofuse": "0.1.0"}}
OTHER_SCHEMAS = [
    (lambda current: current - 1, VERSIONS, ", written by emofuse 0.1.0", None),
    (lambda current: 1, {"versions": {}}, "", None),
    (lambda current: current + 1, VERSIONS, ", written by emofuse 0.1.0", "update emofuse"),
]
"""Schema of the file, its field about the writer, how the error names the writer, and the remedy."""


@pytest.fixture(params=OTHER_SCHEMAS, ids=["previous", "first", "next"])
def other(request):
    return request.param


@pytest.fixture(params=[True, False], ids=["all_fields", "no_other_field"])
def keep_fields(request):
    """Tests files with and without the current fields; files of another schema may lack them."""
    return request.param


def rewrite(path: pathlib.Path, changes: dict, *, keep_fields: bool, section: str = "") -> None:
    """Changes fields of a JSON file, or of one section in it."""
    content = json.loads(path.read_text())
    fields = content[section] if section else content
    changed = fields | changes if keep_fields else changes
    path.write_text(json.dumps(content | {section: changed} if section else changed))


def assert_rejected(action, path: str, kind: str, other: tuple, current: int, remedy: str) -> None:
    make_schema, _, writer, other_remedy = other
    with pytest.raises(ValueError, match="schema") as error:
        action()
    written = f"{kind} schema {make_schema(current)}{writer}"
    expected = f"{path}: {written}; this emofuse reads schema {current}: {other_remedy or remedy}"
    assert str(error.value) == expected


def test_records(tmp_path, other, keep_fields):
    path, current = write_dataset(str(tmp_path / "records")), records.SCHEMA_VERSION
    prep = pathlib.Path(path, "prep.json")
    rewrite(prep, {"schema_version": other[0](current), **other[1]}, keep_fields=keep_fields)
    remedy = "prepare the clips again"
    assert_rejected(lambda: open_dataset(path), str(prep), "records", other, current, remedy)
    (problem,) = verify(path)
    assert problem.startswith(f"prep.json: records schema {other[0](current)}")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("run"), "audio_only").workdir


def test_a_checkpoint(workdir, other, keep_fields):
    directory, current = pathlib.Path(workdir, "checkpoints", "best"), store.SCHEMA_VERSION
    (file,) = directory.glob("*/_CHECKPOINT_METADATA")
    written = file.read_text()
    changes = {"schema": other[0](current), **other[1]}
    rewrite(file, changes, keep_fields=keep_fields, section="custom_metadata")
    try:
        read = lambda: store.read_metadata(workdir, "best")  # noqa: E731
        assert_rejected(read, str(directory), "checkpoint", other, current, "train again")
    finally:
        file.write_text(written)


def test_a_bundle(tmp_path, other):
    """Tests that bundle.json alone causes the error, before any other file is read."""
    file, current = tmp_path / format.MANIFEST_FILE, format.SCHEMA_VERSION
    changes = {"kind": format.BUNDLE_KIND, "schema": other[0](current), **other[1]}
    file.write_text(json.dumps(changes))
    remedy = "export it again from the checkpoint"
    assert_rejected(lambda: load(str(tmp_path)), str(file), "bundle", other, current, remedy)
