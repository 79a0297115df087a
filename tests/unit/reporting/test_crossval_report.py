"""The page of a cross-validation, from results whose numbers are known."""

import json

import numpy as np
import pytest

from emofuse_jax.reporting.crossval_report import (
    calibration_curves,
    pooled_speaker_scores,
    write_crossval_report,
)
from emofuse_jax.scoring.pooled_scores import average_over_seeds
from tests.support.report_inputs import Page

CLASSES = ["calm", "happy", "sad <b>&</b>"]


def make_results(corpus="made", leaks=()):
    """Two folds, two seeds; four clips each. Seed 1 is right everywhere, seed 0 wrong on the first clip."""
    runs = []
    for fold in range(2):
        for seed in range(2):
            labels = [0, 1, 2, 0]
            probabilities = 0.1 + 0.7 * np.eye(3)[labels]
            if seed == 0:
                probabilities[0] = (0.3, 0.6, 0.1)
            runs.append(
                {
                    "fold": fold,
                    "seed": seed,
                    "validation": {"ua": 0.6},
                    "test": {"ua": 0.5 + 0.1 * seed + 0.2 * fold, "wa": 0.5, "wf1": 0.5},
                    "temperature": 1.0 + seed,
                    "clips": [f"c{fold}{i}" for i in range(4)],
                    "speakers": [f"s{fold}{i // 2}" for i in range(4)],
                    "labels": labels,
                    "probabilities": probabilities.tolist(),
                }
            )
    scores = {name: 0.75 for name in ("ua", "wa", "wf1")}
    return {
        "config": "small",
        "corpus": corpus,
        "protocol": "made_2fold",
        "date": "2026-01-01",
        "classes": CLASSES,
        "modalities": ["audio", "video"],
        "leaks": list(leaks),
        "runs": runs,
        "pooled": scores
        | {f"{name}_interval": [0.6, 0.9] for name in scores}
        | {"confusion": [[6, 2, 0], [0, 4, 0], [0, 0, 4]]},
        "mean": scores,
        "sd": {name: 0.0612 for name in scores},
        "ensemble": scores | {"ua": 0.9876},
        "versions": {"jax": "1.2.3"},
    }


HISTORIES = [
    [{"epoch": e, "train_loss": 2.0 / e, "train_ua": 0.3, "validation_loss": 2.0, "validation_ua": u * e}]
    for u in (0.1, 0.2)
    for e in (1, 2)
]
ROBUSTNESS_CURVES = {
    "snr": [{"at": at, "ua": 0.8 - 0.1 * i, "wa": 0.5} for i, at in enumerate((None, 10.0, -5.0))],
    "lost": [{"at": at, "ua": 0.7, "wa": 0.5} for at in (0.0, 1.0)],
    "without": [{"at": "audio", "ua": 0.4321, "wa": 0.2}, {"at": "video", "ua": 0.6, "wa": 0.2}],
}


def write_page(folder, results, robustness=ROBUSTNESS_CURVES, histories=HISTORIES):
    path = folder / "report.html"
    write_crossval_report(
        path, results=results, histories=histories, robustness=robustness, examples=[], command="emofuse x"
    )
    return Page(path.read_text())


def test_the_page_has_the_numbers_and_stands_alone(tmp_path):
    page = write_page(tmp_path, make_results())
    assert page.open == []
    assert not [r for r in page.references if not r.startswith(("#", "data:"))]
    assert all(image["alt"] for image in page.images)
    for words in ("75.0", "60.0–90.0", "98.8", "6.1", "43.2", "without audio", "emofuse x", "sad <b>&</b>"):
        assert words in page.text, words
    figure_names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert figure_names == {
        "learning_loss.png",
        "learning_ua.png",
        "confusion.png",
        "recall.png",
        "speakers.png",
        "reliability.png",
        "robustness_snr.png",
        "robustness_lost.png",
    }


def test_what_is_not_there_leaves_no_gap(tmp_path):
    page = write_page(tmp_path, make_results("demo", ["speaker s1 is in training and test"]), {}, [[]])
    assert "SYNTHETIC" in page.text
    assert "LEAKY" in page.text
    assert "robustness" not in page.ids
    assert "No learning curves were recorded." in page.text


@pytest.mark.parametrize(
    ("ua", "sentence"),
    [
        (0.6, "the epoch with the best score on the validation part"),
        (None, "the model was also trained on the validation part"),
    ],
)
def test_how_the_models_were_chosen_is_stated(tmp_path, ua, sentence):
    results = make_results()
    for run in results["runs"]:
        run["validation"]["ua"] = ua
    assert sentence in write_page(tmp_path, results).text


def test_speakers_are_scored_over_all_seeds():
    rows = pooled_speaker_scores(make_results())
    assert set(rows) == {"s00", "s01", "s10", "s11"}
    assert rows["s00"] == {"ua": pytest.approx(0.75), "wa": pytest.approx(0.75), "clips": 2}
    assert rows["s01"]["ua"] == 1.0


def test_answers_are_averaged_over_seeds_at_their_temperatures():
    averaged = average_over_seeds(make_results())
    assert averaged["clips"] == ["c00", "c01", "c02", "c03", "c10", "c11", "c12", "c13"]
    sharp, soft = np.array([0.3, 0.6, 0.1]), np.sqrt([0.8, 0.1, 0.1])
    np.testing.assert_allclose(averaged["probabilities"][0], (sharp + soft / soft.sum()) / 2)
    assert json.dumps(averaged)


def test_calibration_is_reported_before_and_after_the_temperature():
    rows, errors = calibration_curves(make_results())
    assert set(rows) == set(errors) == {"uncalibrated", "calibrated"}
    # 14 answers at .8 are right, 2 at .6 wrong
    assert errors["uncalibrated"] == pytest.approx((14 * 0.2 + 2 * 0.6) / 16)
    assert errors["calibrated"] != errors["uncalibrated"]
