"""The suite `systems`: a row a system, no run twice, and nothing from another config."""

import json

import pytest

from benchmarks import cost, systems
from benchmarks.system_table import System
from tests.support.fakes import write_dataset

TINY = {
    "train.epochs": 1,
    "data.batch_size": 8,
    "data.audio_steps": 140,
    "augment.frames": 3,
    "model.audio.widths": (4, 4, 4, 4, 4),
    "model.video.width": 4,
    "model.video.blocks": (1, 1),
}
ROWS = (
    System(
        "both-refit",
        "concat",
        TINY,
        refit_fields={"generate": False, "refit.epochs": 2},
        prerequisites=("concat",),
    ),
    System("concat", "concat", TINY),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("systems")
    write_dataset(str(home / "records"), num_clips=60)
    return home


@pytest.fixture
def suite(home, monkeypatch):
    monkeypatch.setattr(systems, "SYSTEMS", ROWS)
    monkeypatch.setattr(systems, "SEEDS", (0, 1))
    monkeypatch.setattr(cost, "STEPS", 2)
    data = str(home / "records")
    return lambda rows=ROWS, only=(): list(systems.run_systems(rows, data, str(home / "runs"), list(only)))


@pytest.mark.long
def test_a_row_a_system_and_no_run_twice(suite, home, monkeypatch):
    refit_row, plain_row = suite()  # the first runs what it needs
    assert (refit_row["case"], plain_row["case"]) == ("both-refit", "concat")
    for row in (refit_row, plain_row):
        assert len(row["seeds"]) == row["repeats"] == 2
        assert set(row["modalities"]) == {"both", "audio", "video"}
        assert row["parameters"] > 0
        assert row["forward_gflop"] > 0
    assert plain_row["clips_per_second"] > 0
    assert refit_row["clips_per_second"] is None
    stored = json.loads((home / "runs" / "concat" / "seed_1" / "systems.json").read_text())
    assert stored["scores"]["both"]["ua"] == plain_row["seeds"][1]
    monkeypatch.setattr(systems, "train_or_refit", None)  # a call would fail
    assert suite() == [refit_row, plain_row]
    table = systems.format_table([refit_row, plain_row]).splitlines()
    assert len(table) == 4
    assert len({line.count("|") for line in table}) == 1
    other = System("concat", "concat", {**TINY, "model.fusion.head_dropout": 0.1})
    with pytest.raises(
        ValueError, match=r"was made with fields.model.fusion.head_dropout=0.3, expected 0.1; remove"
    ):
        suite((other,))


def test_an_unknown_name_is_named(suite):
    with pytest.raises(ValueError, match=r"--systems: 'cat', expected names of both-refit, concat"):
        suite(only=["cat"])


def test_seconds_of_a_stopped_run_are_kept(tmp_path):
    def stop():
        raise KeyboardInterrupt

    (tmp_path / "seconds").write_text("100.0")
    with pytest.raises(KeyboardInterrupt):
        systems.measure_core_seconds(str(tmp_path), stop)
    assert systems.measure_core_seconds(str(tmp_path), lambda: None) >= 100.0
