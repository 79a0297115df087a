"""The table of all results below a folder."""

import json
import pathlib
import subprocess
import sys

import pytest

from emofuse_jax.reporting.leaderboard import find_results, write_leaderboard
from tests.support.paths import ROOT
from tests.support.report_inputs import Page, make_results
from tests.unit.reporting.test_crossval_report import make_results as make_crossval


@pytest.fixture
def folder(tmp_path):
    """Two cross-validations of one protocol, a scored model of another, and a file that is no result."""
    contents = {
        "good": make_crossval() | {"config": "good"},
        "bad": make_crossval(leaks=["speaker s1 is in both"]) | {"config": "bad"},
        "single/evaluation/test": make_results() | {"leaks": [], "split": "test"},
        "other": {"both": {}},
    }
    contents["bad"]["pooled"] = contents["bad"]["pooled"] | {"ua": 0.31}
    for name, content in contents.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "results.json").write_text(json.dumps(content))
    return tmp_path


def test_best_first_within_the_same_clips(folder):
    rows, others = find_results(str(folder))
    assert [pathlib.Path(path).parent.name for path in others] == ["other"]
    protocol_rows = [row for row in rows if row["group"][2] == "made_2fold"]
    assert [row["config"] for row in protocol_rows] == ["good", "bad"]
    assert protocol_rows[0]["speakers"] == 4
    assert protocol_rows[0]["clips"] == 8
    assert len({row["group"] for row in rows}) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"runs": []},
        {"runs": [{}]},
        {"pooled": {"ua": 0.5}},
        {"config": 1},
        {"corpus": None},
        {"classes": [0]},
    ],
)
def test_a_damaged_cross_validation_is_skipped(tmp_path, change):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(make_crossval() | change))
    assert find_results(str(tmp_path)) == ([], [str(path)])


@pytest.mark.parametrize(
    "change",
    [
        {"fold": "0"},
        {"split": 1},
        {"speakers": [[]]},
        {"modalities": {}},
        {"modalities": {"both": {"ua": 0.5}}},
    ],
)
def test_a_damaged_evaluation_is_skipped(tmp_path, change):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(make_results() | {"leaks": []} | change))
    assert find_results(str(tmp_path)) == ([], [str(path)])


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"config": "\xff"}', b"[" * 100_000])
def test_what_is_no_result_is_skipped(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    assert find_results(str(tmp_path)) == ([], [str(path)])


def test_the_page_stands_alone(folder):
    path, _, _ = write_leaderboard(str(folder))
    page = Page(pathlib.Path(path).read_text())
    assert page.open == []
    assert not [r for r in page.references if not r.startswith(("#", "data:"))]
    assert page.text.index("good") < page.text.index("bad LEAKY")
    assert "31.0" in page.text
    assert "60.0–90.0" in page.text


def test_the_command(folder, tmp_path_factory):
    def run_leaderboard(*arguments):
        command_line = [sys.executable, ROOT / "launch" / "leaders.py", *arguments]
        return subprocess.run(command_line, capture_output=True, text=True, timeout=120)

    completed = run_leaderboard(folder)
    assert completed.returncode == 0, completed.stderr
    assert "other/results.json: skipped, not a result" in completed.stdout
    assert (folder / "leaders.html").exists()
    for words, reason in (((tmp_path_factory.mktemp("empty"),), "no results.json"), ((), "usage:")):
        completed = run_leaderboard(*words)
        assert completed.returncode == 2
        assert reason in completed.stderr
