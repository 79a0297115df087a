"""What a newer emofuse wrote is refused in one line: which file, its schema, and the newest that is known."""

import json
import pathlib
import re

import pytest

from data_prep.verify.records import verify
from emofuse_jax.data import records
from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.serving import load
from emofuse_jax.serving.bundle import format
from emofuse_jax.training.checkpoint import store
from tests.upgrade.make import unpack

ADDED_FIELDS = {"a field of the future": 1}


def rewrite(path: pathlib.Path, change) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def check_refused(action, path, known_schema: int) -> None:
    """The one line names the path, the schema that was found, and the known one."""
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        action()
    line = str(error.value).replace(str(path), "")
    assert "\n" not in line
    assert "schema" in line
    assert re.findall(r"\b\d+\b", line) == [str(known_schema + 1), str(known_schema)]


@pytest.mark.parametrize("keeps_old_fields", [True, False])
def test_records(tmp_path, keeps_old_fields):
    """Also where fields that are read today are no longer there."""
    path, version = unpack("records-3-e52d263", tmp_path / "made"), records.SCHEMA_VERSION
    newer = {"schema_version": version + 1, **ADDED_FIELDS}
    rewrite(path / "prep.json", lambda prep: {**prep, **newer} if keeps_old_fields else newer)
    check_refused(lambda: open_dataset(str(path)), path, version)
    assert verify(str(path)) == [f"prep.json: schema_version {version + 1}, expected 1 to {version}"]


@pytest.mark.parametrize("keeps_old_fields", [True, False])
def test_a_checkpoint(tmp_path, keeps_old_fields):
    path, version = unpack("checkpoint-1-2e78b16", tmp_path / "run"), store.SCHEMA_VERSION
    newer = {"schema": version + 1, **ADDED_FIELDS}
    for kind in store.CHECKPOINT_KINDS:
        (file,) = (path / "checkpoints" / kind).glob("*/_CHECKPOINT_METADATA")
        rewrite(
            file,
            lambda m: {
                **m,
                "custom_metadata": {**m["custom_metadata"], **newer} if keeps_old_fields else newer,
            },
        )
        check_refused(lambda kind=kind: store.read_metadata(str(path), kind), path, version)


@pytest.mark.parametrize("keeps_old_fields", [True, False])
def test_a_bundle(tmp_path, keeps_old_fields):
    path, version = unpack("bundle-1-2e78b16", tmp_path / "made") / "bundle", format.SCHEMA_VERSION
    newer = {"kind": format.BUNDLE_KIND, "schema": version + 1, **ADDED_FIELDS}
    rewrite(path / format.MANIFEST_FILE, lambda m: {**m, **newer} if keeps_old_fields else newer)
    check_refused(lambda: load(str(path)), path / format.MANIFEST_FILE, version)
