"""The paired permutation test: its error rate by simulation, its power, and what it refuses."""

import copy
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from emofuse_jax.scoring import metrics
from emofuse_jax.scoring.pooled_scores import read_crossval_results
from emofuse_jax.scoring.significance import (
    compare,
    describe_comparison,
    enumerate_swaps,
    sample_swaps,
    speaker_matrices,
)
from tests.support.paths import ROOT

CLASSES = ["angry", "happy", "sad"]
SCORES = {"ua": 0.5, "wa": 0.5, "wf1": 0.5}


def make_result(accuracies, generator, *, speakers=8, clips=12, seeds=1, labels=None):
    """Answers of two folds, right with a chance of each speaker's own (`accuracies`)."""
    runs = []
    for fold in range(2):
        fold_speakers = [s for s in range(speakers) if s % 2 == fold]
        for seed in range(seeds):
            names = [f"s{s}_{i}" for s in fold_speakers for i in range(clips)]
            true = np.tile(np.arange(clips) % 3, len(fold_speakers))
            is_correct = generator.random(len(true)) < np.repeat(np.asarray(accuracies)[fold_speakers], clips)
            predicted = np.where(is_correct, true, (true + generator.integers(1, 3, len(true))) % 3)
            runs.append(
                {
                    "fold": fold,
                    "seed": seed,
                    "validation": {"ua": None},
                    "test": SCORES,
                    "temperature": 1.0,
                    "clips": names,
                    "speakers": [name.split("_")[0] for name in names],
                    "labels": true.tolist(),
                    "probabilities": np.eye(3)[predicted].tolist(),
                }
            )
    facts = {"classes": CLASSES, "protocol": "made_2fold", "corpus": "made", "leaks": []}
    intervals = {f"{name}_interval": [0.25, 0.75] for name in SCORES}
    return facts | {"runs": runs, "pooled": SCORES | intervals | {"confusion": np.eye(3).tolist()}}


def make_pair(seed, gain=0.0, **sizes):
    generator = np.random.default_rng(seed)
    accuracies = generator.uniform(0.3, 0.8, sizes.get("speakers", 8))
    return make_result(accuracies, generator, **sizes), make_result(
        np.minimum(accuracies + gain, 1), generator, **sizes
    )


@pytest.mark.parametrize("speakers", [8, 16])
def test_a_gain_of_zero_is_told_apart_in_about_one_of_twenty(speakers):
    """Each of 300 simulations has a chance of at most .05: fewer than 28 in all but one of 1,000 tests."""
    comparisons = [compare(*make_pair(i, speakers=speakers), draws=500) for i in range(300)]
    false_positives = sum(x["verdict"] != "no significant difference" for x in comparisons)
    assert 3 <= false_positives <= 27
    assert all(x["verdict"] == "no significant difference" for x in comparisons if x["p"] >= 0.05)


def test_a_real_gain_is_found():
    comparisons = [compare(*make_pair(i, gain=0.2, speakers=12, clips=24), draws=500) for i in range(40)]
    assert sum(x["verdict"] == "worse" for x in comparisons) >= 36
    assert np.mean([x["interval"][0] < -0.17 < x["interval"][1] for x in comparisons]) > 0.7


def test_the_other_way_round_is_the_opposite():
    a, b = make_pair(3, gain=0.25, clips=24, seeds=2)
    one, other = compare(a, b), compare(b, a)
    assert (one["verdict"], other["verdict"]) == ("worse", "better")
    assert one["difference"] == pytest.approx(-other["difference"])
    assert one["p"] == other["p"]
    assert one["effect"] == pytest.approx(-other["effect"])
    assert one["b"] == other["a"]
    assert describe_comparison(other).startswith("A is better than B: +")


def test_p_counts_the_swaps():
    a, b = make_pair(5, speakers=4, gain=0.1)
    ours, theirs = speaker_matrices(a), speaker_matrices(b)
    comparison = compare(a, b)
    observed, differences = (
        metrics.compute_scores(ours.sum(0))["ua"] - metrics.compute_scores(theirs.sum(0))["ua"],
        [],
    )
    for swap in enumerate_swaps(4).astype(bool):
        first = np.where(swap[:, None, None], theirs, ours).sum(0)
        second = np.where(swap[:, None, None], ours, theirs).sum(0)
        differences.append(metrics.compute_scores(first)["ua"] - metrics.compute_scores(second)["ua"])
    assert comparison["difference"] == pytest.approx(observed)
    assert comparison["p"] == np.mean(np.abs(differences) >= abs(observed) - 1e-12)
    assert comparison["p"] >= 2 / 16
    assert "With 4 speakers, p cannot fall below 0.05." in describe_comparison(comparison)


def test_the_same_result_twice_is_not_told_apart():
    a, _ = make_pair(1)
    comparison = compare(a, a)
    assert (comparison["difference"], comparison["p"], comparison["effect"]) == (0.0, 1.0, None)
    assert comparison["verdict"] == "no significant difference"
    assert describe_comparison(comparison).startswith(
        "A and B do not differ significantly: +0.0 points of UA"
    )


def test_drawn_swaps_begin_with_none():
    swaps = sample_swaps(20, 99, seed=0)
    assert swaps.shape == (100, 20)
    assert not swaps[0].any()
    assert 0.4 < swaps.mean() < 0.6
    assert len(np.unique(enumerate_swaps(5), axis=0)) == 32


def test_seeds_are_averaged_and_are_no_new_speakers():
    a, b = make_pair(2, seeds=3)
    matrices = speaker_matrices(a)
    assert matrices.shape == (8, 3, 3)
    np.testing.assert_allclose(matrices.sum((1, 2)), 12)
    assert compare(a, b)["speakers"] == 8


def test_other_clips_are_refused():
    a, b = make_pair(0)
    with pytest.raises(ValueError, match="fold 0 has different clips, speakers or labels"):
        compare(a, {**b, "runs": [{**b["runs"][0], "labels": b["runs"][0]["labels"][::-1]}, b["runs"][1]]})
    with pytest.raises(ValueError, match="fold 1 is in only one of the results"):
        compare(a, {**b, "runs": b["runs"][:1]})
    with pytest.raises(ValueError, match="protocol: 'made_2fold' and 'other'"):
        compare(a, {**b, "protocol": "other"})
    with pytest.raises(ValueError, match="measure: 'uar'"):
        compare(a, b, measure="uar")


@pytest.mark.parametrize("content", ["3", "null", "[]", '"text"'])
def test_a_file_that_is_not_an_object(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError, match=r"results\.json: expected a JSON object, found"):
        read_crossval_results(tmp_path / "results.json")


def delete(section, *names):
    *parents, name = names
    for parent in parents:
        section = section[parent]
    del section[name]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda results: delete(results, "pooled"), "pooled is missing, expected a results.json"),
        (lambda results: results.update(runs=[]), "runs: expected a list of objects, at least one"),
        (lambda results: results.update(runs=[1]), "runs: expected a list of objects, at least one"),
        (lambda results: results.update(classes=[1, 2, 3]), "classes: expected a list of strings"),
        (lambda results: results.update(leaks="none"), "leaks: expected a list of strings"),
        (lambda results: results.update(protocol=1), "protocol: expected str, found int"),
        (lambda results: delete(results, "runs", 1, "seed"), r"runs\[1\].seed: expected int, found NoneType"),
        (lambda results: results["runs"][1]["speakers"].pop(), r"runs\[1\].speakers: expected 48 strings"),
        (lambda results: results["runs"][0].update(labels=[3] * 48), r"runs\[0\].labels: expected -1 to 2"),
        (lambda results: results["runs"][0]["probabilities"].pop(), r"runs\[0\].probabilities: .* \[48, 3\]"),
        (
            lambda results: delete(results, "runs", 0, "temperature"),
            r"runs\[0\].temperature: expected finite",
        ),
        (lambda results: delete(results, "runs", 0, "test", "wa"), r"runs\[0\].test: expected finite"),
        (lambda results: delete(results, "pooled", "ua"), r"pooled.ua: expected finite numbers"),
        (lambda results: results["pooled"].update(wa_interval=[1]), r"pooled.wa_interval: .* \[2\]"),
        (lambda results: results["pooled"]["confusion"].pop(), r"pooled.confusion: .* \[3, 3\]"),
    ],
)
def test_a_damaged_result_is_named(tmp_path, damage, message):
    path = tmp_path / "results.json"
    results = copy.deepcopy(make_pair(0)[0])
    path.write_text(json.dumps(results))
    assert read_crossval_results(path) == results
    damage(results)
    path.write_text(json.dumps(results))
    with pytest.raises(
        ValueError, match=rf"\A{re.escape(str(path))}: field {message}[^\n]*; run the same[^\n]*\Z"
    ):
        read_crossval_results(path)


def run_compare(*arguments):
    """`emofuse compare` in a process of its own."""
    command_line = [sys.executable, ROOT / "launch" / "compare.py", *arguments]
    return subprocess.run(command_line, capture_output=True, text=True, timeout=120)


def test_the_command(tmp_path):
    a, b = make_pair(3, gain=0.25, clips=24)
    paths = [tmp_path / name for name in ("a.json", "b.json", "bad.json", "other.json", "list.json")]
    b["leaks"] = ["speaker s1 is in training and test"]
    contents = (json.dumps(a), json.dumps(b), "{", '{"classes": []}', "[1]")
    for path, content in zip(paths, contents, strict=True):
        path.write_text(content)
    completed = run_compare(*paths[:2], f"--output={tmp_path / 'comparison.json'}")
    assert completed.returncode == 0, completed.stderr
    assert "A is worse than B" in completed.stdout
    assert "LEAKY" in completed.stdout
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    assert comparison["verdict"] == "worse"
    assert comparison["interval"] == compare(a, b)["interval"]
    for files, reason in (
        ((paths[0], paths[2]), "bad.json: not JSON"),
        ((paths[0], paths[3]), "other.json: field protocol is missing"),
        ((paths[0], paths[4]), "list.json: expected a JSON object, found list"),
        ((paths[0],), "usage: emofuse compare"),
    ):
        completed = run_compare(*files)
        assert completed.returncode == 2
        assert reason in completed.stderr
        assert len(completed.stderr.strip().splitlines()) == 1
