"""The suite `systems`: a row a system, and no run twice."""

import importlib
import json
import os

import pytest

from launch import ablations, systems
from tests.fakes import write_dataset

TINY = {
    "train.epochs": 1,
    "data.batch_size": 8,
    "data.audio_steps": 140,
    "model.audio.widths": (4, 4, 4, 4, 4),
}


@pytest.fixture
def suite(tmp_path, monkeypatch):
    tiny = (systems.System("voice", "audio_only", TINY),)
    monkeypatch.setattr(systems, "SYSTEMS", tiny)
    monkeypatch.setattr(systems, "SEEDS", (0, 1))
    monkeypatch.setattr(systems, "STEPS", 2)
    data = write_dataset(str(tmp_path / "records"), clips=60)
    return lambda only=(): list(systems.run_systems(data, str(tmp_path / "runs"), list(only)))


def test_a_row_a_system_and_no_run_twice(suite, tmp_path, monkeypatch):
    (row,) = suite()
    assert row["case"] == "voice"
    assert len(row["seeds"]) == row["repeats"] == 2
    assert 0 <= row["ours"] <= 1
    assert row["parameters"] > 0
    assert row["forward_gflop"] > 0
    assert row["clips_per_second"] > 0
    stored = json.loads((tmp_path / "runs" / "voice" / "seed_1" / "systems.json").read_text())
    assert stored["scores"]["audio"]["ua"] == row["seeds"][1]
    monkeypatch.setattr(systems, "train", None)  # a call would fail
    assert suite() == [row]
    table = systems.markdown([row]).splitlines()
    assert len(table) == 3
    assert len({line.count("|") for line in table}) == 1


def test_an_unknown_name_is_named(suite):
    with pytest.raises(ValueError, match=r"--systems: 'vioce', expected of voice"):
        suite(["vioce"])


def test_every_row_is_a_shipped_config_whose_fields_exist():
    names = [system.name for system in systems.SYSTEMS]
    assert len(names) == len(set(names))
    for system in systems.SYSTEMS:
        config = importlib.import_module("configs.demo").get_config(system.config)
        config.update_from_flattened_dict(system.fields)  # raises for a field that is not there
        assert os.path.basename(system.name) == system.name
    assert ablations.ABLATIONS
