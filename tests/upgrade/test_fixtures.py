"""What older code wrote is read by this one, to the same numbers; what newer code wrote is refused."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from emofuse_jax.api.evaluation import evaluate_workdir
from emofuse_jax.data import records
from emofuse_jax.data.dataset import open_dataset, read_json
from emofuse_jax.serving import load
from emofuse_jax.serving.bundle import format
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.checkpoint.compat import saved_config
from emofuse_jax.training.crossval.crossval import crossval
from emofuse_jax.training.metric_writer import read_epoch_rows
from tests.upgrade.make import FIXTURES, summarise_records, unpack

ROOT = pathlib.Path(__file__).parent.parent.parent
CURRENT_SCHEMAS = {
    "records": records.SCHEMA_VERSION,
    "checkpoint": store.SCHEMA_VERSION,
    "bundle": format.SCHEMA_VERSION,
}


def list_fixtures(kind: str) -> list[str]:
    return sorted(path.name.removesuffix(".json") for path in FIXTURES.glob(f"{kind}-*.json"))


def read_metadata(name: str) -> dict:
    return json.loads((FIXTURES / f"{name}.json").read_text())


@pytest.fixture
def unpacked(request, tmp_path) -> pathlib.Path:
    return unpack(request.param, tmp_path / "fixture")


def for_each_fixture(kind: str):
    """A fixture's name and its files."""
    names = list_fixtures(kind)
    return pytest.mark.parametrize(
        ("name", "unpacked"), [(name, name) for name in names], indirect=["unpacked"], ids=names
    )


@pytest.mark.parametrize("kind", CURRENT_SCHEMAS)
def test_every_schema_has_a_fixture(kind):
    """Where this fails, a SCHEMA_VERSION was raised: tests/upgrade/make.py writes the new one's."""
    assert {read_metadata(name)["schema"] for name in list_fixtures(kind)} == set(
        range(1, CURRENT_SCHEMAS[kind] + 1)
    )


def test_fixtures_stay_small():
    assert sum(path.stat().st_size for path in FIXTURES.iterdir()) < 600_000


@for_each_fixture("records")
def test_records_decode_to_their_numbers(name, unpacked):
    expected = read_metadata(name)["numbers"]
    assert summarise_records(unpacked) == expected
    assert open_dataset(str(unpacked)).prep["schema_version"] == read_metadata(name)["schema"]


@for_each_fixture("checkpoint")
def test_a_checkpoint_scores_as_it_did(name, unpacked, tmp_path):
    expected = read_metadata(name)["numbers"]
    clips = unpack(expected["records"], tmp_path / "records")
    results, _ = evaluate_workdir(str(unpacked), data_path=str(clips), example_count=0)
    assert results["clips"] == expected["clips"]
    np.testing.assert_allclose(results["probabilities"], expected["probabilities"], atol=1e-5)


@for_each_fixture("checkpoint")
def test_a_run_goes_on_from_a_checkpoint(name, unpacked, tmp_path):
    clips = unpack(read_metadata(name)["numbers"]["records"], tmp_path / "records")
    before = store.read_metadata(str(unpacked), "last")
    config = saved_config(before)
    config.data.path = str(clips)
    command = [sys.executable, "-m", "tests.training.run_train", str(unpacked), json.dumps(config.to_dict())]
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}  # batches have one row
    completed = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stderr[-3000:]
    after = store.read_metadata(str(unpacked), "last")
    assert (before["step"], after["step"]) == (2, 4)
    rows = read_epoch_rows(str(unpacked))
    assert [row["epoch"] for row in rows] == [1, 2]
    if losses := read_metadata(name)["numbers"].get(
        "train_loss"
    ):  # where parameters are averaged: of the others
        assert [row["train_loss"] for row in rows] == pytest.approx(losses, rel=1e-3)


@for_each_fixture("replicas")
def test_a_cross_validation_goes_on(name, unpacked, monkeypatch):
    restored_kinds, restore = [], store.restore_items

    def restore_and_record(workdir, kind, abstract):
        restored_kinds.append(kind)
        return restore(workdir, kind, abstract)

    monkeypatch.setattr(store, "restore_items", restore_and_record)
    workdir, expected = str(unpacked / "run"), read_metadata(name)["numbers"]
    config = saved_config(read_json(str(unpacked / "run" / "crossval.json")))
    config.data.path = str(unpacked / "records")
    results = crossval(config, workdir, seeds=1, folds=[0, 1])
    assert restored_kinds == ["replicas"]  # from the start it would come to the same
    assert [run["epochs"] for run in results["runs"]] == [2, 2]
    for run in results["runs"]:
        np.testing.assert_allclose(run["probabilities"], expected[f"fold_{run['fold']}"], atol=1e-3)


@for_each_fixture("bundle")
def test_a_bundle_predicts_as_it_did(name, unpacked):
    expected = read_metadata(name)["numbers"]
    bundle = load(str(unpacked / "bundle"))
    assert bundle.metadata["schema"] == read_metadata(name)["schema"]
    (prediction,) = bundle.predict(str(unpacked / "clip.wav"))
    assert bundle.parity() <= 1e-5
    assert prediction.label == expected["label"]
    assert prediction.probabilities == pytest.approx(expected["probabilities"], abs=1e-5)
