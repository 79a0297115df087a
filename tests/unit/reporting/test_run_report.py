"""The report: one page that stands alone, shows the numbers it was given, and survives what is missing."""

import base64
import copy
import re
import subprocess
import sys

import numpy as np
import pytest

from emofuse_jax.reporting import run_report
from tests.support.report_inputs import (
    decode_png,
    make_example,
    make_results,
    make_scores,
    write_page,
)

SECTIONS = (
    "provenance",
    "results",
    "comparison",
    "learning",
    "confusion",
    "speakers",
    "mistakes",
    "examples",
)


@pytest.fixture(scope="module")
def full_report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return folder, *write_page(folder)


def test_page_is_complete_and_stands_alone(full_report):
    _, markup, page = full_report
    assert not page.open
    assert "script" not in page.tags
    assert set(SECTIONS) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    for reference in page.references:
        assert reference.startswith("data:image/png;base64,") or reference[1:] in page.ids
    plain = re.sub(r"base64,[A-Za-z0-9+/=]+", "", markup)
    assert not re.search(r"https?://|url\(|@import", plain)


def test_pictures_decode_have_alternative_text_and_both_themes(full_report):
    folder, _, page = full_report
    assert len(page.images) == 7
    assert all(len(image["alt"]) > 30 for image in page.images)
    uris = [reference for reference in page.references if reference.startswith("data:")]
    assert len(uris) == 14
    brightness = [decode_png(base64.b64decode(uri.split(",")[1]))[..., :3].mean() for uri in uris]
    assert all(dark < 0.5 < light for dark, light in zip(brightness[::2], brightness[1::2], strict=True))
    page_images = {base64.b64decode(image["src"].split(",")[1]) for image in page.images}
    files = sorted((folder / "figures").iterdir())
    assert {path.read_bytes() for path in files} == page_images
    assert [path.stem for path in files] == [
        "comparison", "confusion", "example_1", "learning_loss", "learning_ua", "recall", "speakers",
    ]  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == ["figures", "report.html"]


def test_numbers_are_those_given(full_report):
    _, _, page = full_report
    assert "audio and video 76.1 71.1–80.1 81.2 76.2–85.2 75.2 70.2–79.2 74.3 69.3–78.3" in page.text
    assert "audio only 76.1 71.1–80.1 40.1 35.1–44.1" in page.text
    assert "audio network 91.4 31.3 28.0–33.0 90.5 32.5" in page.text
    assert "additive ceiling 82.1" in page.text
    assert "calm 10 80.0 40.0 60.0" in page.text  # recall table
    assert "a 91.2 90.0 2 b<i> 55.0 50.0 2" in page.text
    assert "The chance level is 33.3 %" in page.text
    for fact in ("am_fbp", "demo_fbp", "speakers", "step 540", "2026-11-21", "jax 0.10.2."):
        assert fact in page.text
    assert "private" not in page.text
    alts = " ".join(image["alt"] for image in page.images)
    for part in (
        "audio-visual network 92.3 % (95 % interval 88.0–96.0), ceiling 98.2 %",
        "additive ceiling 82.1 %",
    ):
        assert part in alts
    for part in ("best epoch 2", "happy 64.0 %", "audio 62 %, video 38 %", "3 of 4 frames with a face"):
        assert part in alts


def test_names_are_escaped_and_marks_are_loud(full_report):
    _, markup, page = full_report
    assert "<em>one" not in markup
    assert "<script" not in markup
    assert "<b>&</b>" not in markup
    assert "Report <em>one</em>" in page.text  # as text
    assert "a-1 <script>$x$: calm, predicted as happy" in page.text
    assert "SYNTHETIC: drawn <faces>" in page.text
    assert "[SYNTHETIC] [LEAKY] Report" in page.text
    assert markup.index('class="marks"') < markup.index("<h1>")


def test_missing_parts(tmp_path):
    results = make_results()
    for name in (
        "per_speaker",
        "clips",
        "labels",
        "speakers",
        "probabilities",
        "versions",
        "dataset",
        "date",
        "fold",
    ):
        del results[name]
    results["modalities"] = {"video": results["modalities"]["video"]}
    _, page = write_page(tmp_path, results=results, history=[], examples=[], comparison=None, marks=())
    assert not page.open
    assert "comparison" not in page.ids
    assert "audio and video" not in page.text
    assert "video only 76.1" in page.text
    assert "This network uses one modality" in page.text
    for sentence in ("No learning curves were recorded", "No clips were selected", "No scores by speaker"):
        assert sentence in page.text
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"confusion.png", "recall.png"}


@pytest.mark.parametrize("absent", [float("nan"), None])
def test_absent_class_is_a_dash(tmp_path, absent):
    results = make_results()
    row = make_scores([[8, 1, 1], [2, 7, 1], [1, 1, 1]])
    row["confusion"][2] = [0, 0, 0]
    row["recall"][2] = absent  # None: as metrics.py says it
    results["modalities"] = {"both": row | {"mf1": float("nan"), "mf1_interval": [float("nan")] * 2}}
    results["per_speaker"]["a"]["ua"] = float("nan")
    _, page = write_page(tmp_path, results=results, examples=[])
    assert "nan" not in page.text.lower().replace("provenance", "")
    assert "75.2 70.2–79.2 –" in page.text
    assert any("sad <b>&</b> – %" in image["alt"] for image in page.images if "Recall by" in image["alt"])
    assert "sad <b>&</b> 0 –" in page.text
    assert "b<i> 55.0 50.0 2 a – 90.0 2" in page.text


def test_arrays_are_welcome(tmp_path):
    results = make_results()
    for name in ("labels", "probabilities"):
        results[name] = np.array(results[name])
    both = results["modalities"]["both"]
    results["modalities"]["both"] = {name: np.array(value)[()] for name, value in both.items()}
    _, page = write_page(tmp_path, results=results, examples=[])
    assert "audio and video 76.1 71.1–80.1 81.2" in page.text


def test_a_second_report_replaces_the_first_and_its_pictures(tmp_path):
    write_page(tmp_path, examples=[make_example(), make_example()])
    (tmp_path / "figures" / "mine.png").write_bytes(b"keep")
    write_page(tmp_path, examples=[], comparison=None)
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert "mine.png" in names
    assert not names & {"example_1.png", "example_2.png", "comparison.png"}


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr(run_report.os, "replace", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_page(tmp_path, examples=[])
    assert path.read_text() == "old"
    assert not [name for name in tmp_path.rglob(".*")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("classes"), r"results\['classes'\] is missing"),
        (lambda r: r.update(modalities={}), r"results\['modalities'\] is missing or empty"),
        (lambda r: r["modalities"].update(smell={}), "'smell'.* is not a modality; expected one of both"),
        (
            lambda r: r["modalities"]["both"]["recall"].pop(),
            "recall.* has length 2, expected 3, one entry for each class",
        ),
        (
            lambda r: r["modalities"]["both"]["confusion"][0].pop(),
            r"rows of lengths \[2, 3, 3\], expected 3 x 3",
        ),
        (lambda r: r["labels"].pop(), r"have lengths \[4, 3, 4, 4\]"),
        (lambda r: r["probabilities"][1].pop(), r"\[1\] has length 2, expected 3, one probability"),
    ],
)
def test_wrong_results_are_one_clear_line(tmp_path, change, message):
    results = copy.deepcopy(make_results())
    change(results)
    with pytest.raises(ValueError, match=message) as caught:
        write_page(tmp_path, results=results)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_wrong_examples_are_one_clear_line(tmp_path):
    with pytest.raises(
        ValueError, match="video_attention has length 3, expected 4, one weight for each face"
    ):
        write_page(tmp_path, examples=[make_example(video_attention=np.ones(3))])
    with pytest.raises(ValueError, match="face_mask is missing, expected 4 booleans"):
        write_page(tmp_path, examples=[make_example(face_mask=None)])


def test_import_is_light_and_drawing_leaves_pyplot_alone(tmp_path):
    code = """
import sys
from emofuse_jax.reporting import run_report
assert "matplotlib" not in sys.modules
from emofuse_jax.reporting.figures import curves
curves.loss_picture([{"epoch": 1, "train_loss": 1.0}])
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
import matplotlib
assert matplotlib.rcParams["text.parse_math"]
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
