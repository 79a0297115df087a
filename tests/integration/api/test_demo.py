"""The whole thread, small: from nothing to a prediction, by the real commands in their own processes."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

SMALL_DEMO_FLAGS = ["--clips_per_speaker=3", "--epochs=1"]


def run(verb, *arguments, cwd):
    script = os.path.join(ROOT, "launch", f"{verb}.py")
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_NUM_CPU_DEVICES": "1",
        "XLA_FLAGS": "",
    }  # as users run it
    return subprocess.run(
        [sys.executable, script, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=900
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("thread")


@pytest.fixture(scope="module")
def demo(home):
    done = run("demo", "--output=demo", *SMALL_DEMO_FLAGS, cwd=home)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_it_ends_in_a_table_a_report_and_a_prediction(home, demo):
    for number in range(1, 8):
        assert f"[{number}/7]" in demo
    for row in ("voice", "face", "both", "weighted F1"):
        assert row in demo
    assert "best possible accuracy on these clips as made: voice" in demo
    assert "report: demo/report.html" in demo
    probabilities = [float(line.split()[1]) for line in demo.split("made as 'angry':\n")[1].split("\n")[:6]]
    assert sum(probabilities) == pytest.approx(1.0, abs=0.01)


def test_its_results_have_the_form_that_others_read(home, demo):
    results = json.loads((home / "demo" / "results.json").read_text())
    assert set(results) == {"voice", "face", "both", "ceilings", "seconds"}
    for name in ("voice", "face", "both"):
        for measure in ("ua", "wa", "wf1"):
            low, high = results[name][f"{measure}_interval"]
            assert 0 <= low <= results[name][measure] <= high <= 1
    ceilings = results["ceilings"]
    assert 0.2 < ceilings["voice"] < ceilings["face"] < ceilings["additive"] < ceilings["both"] <= 1
    assert (home / "demo" / "report.html").stat().st_size > 100_000
    assert "SYNTHETIC" in (home / "demo" / "report.html").read_text()
    score = f"{100 * results['both']['ua']:.1f} ["
    for folder in ("bundle", "both/evaluation/test"):
        card = (home / "demo" / folder / "MODEL_CARD.md").read_text()
        assert "SYNTHETIC" in card
        assert score in card
    for folder in ("bundle", "both", "both/evaluation/test"):
        assert "SYNTHETIC" in (home / "demo" / folder / "DATA_CARD.md").read_text()


def test_the_bundle_answers_in_another_process(home, demo):
    done = run("predict", "--bundle=demo/bundle", "demo/new_clip.mp4", cwd=home)
    assert done.returncode == 0, done.stderr[-2000:]
    prediction = json.loads(done.stdout)
    assert prediction["path"] == "demo/new_clip.mp4"
    assert prediction["audio_ok"]
    assert prediction["video_ok"]
    assert prediction["voice_weight"] + prediction["face_weight"] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.long
def test_started_again_it_makes_nothing_anew(home, demo):
    files = [home / "demo" / name for name in ("clips/demo.csv", "records/prep.json", "both/metrics.jsonl")]
    before = [path.read_bytes() for path in files]
    done = run("demo", "--output=demo", *SMALL_DEMO_FLAGS, cwd=home)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [path.read_bytes() for path in files] == before


def test_the_records_of_the_demo_can_be_measured_against_tfds(home, demo):
    done = run("benchmark", "--data=demo/records", "--output=rows.json", cwd=home)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {row["case"]: row for row in json.loads((home / "rows.json").read_text())["rows"]}
    assert set(rows) == {"decode", "read and decode"}
    assert rows["decode"]["peer_name"] == "tfds"
    assert rows["decode"]["ratio"] > 1  # how much: test_tfds.py, without the noise of other work
