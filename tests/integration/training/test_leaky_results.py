"""A split that shares speakers: scored for comparison, and every result says so."""

import json
import os

import pytest

from emofuse_jax.api.evaluation import evaluate_workdir, result_marks
from emofuse_jax.training.experiment import open_experiment
from emofuse_jax.training.train import train
from tests.support.fakes import tiny_config, write_dataset


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(workdir, the fold's file) of a run on a split whose first clip is both trained on and tested."""
    home = tmp_path_factory.mktemp("leaky")
    path = write_dataset(str(home / "records"))
    (protocol,) = os.listdir(os.path.join(path, "splits"))
    fold_path = os.path.join(path, "splits", protocol, "fold_0.json")
    with open(fold_path) as file:
        fold = json.load(file)
    fold["test"].append(fold["train"][0])
    with open(fold_path, "w") as file:
        json.dump(fold | {"leaks": ["speaker 'x' is in train and test (1 shared)"]}, file)
    workdir = str(home / "run")
    train(open_experiment(tiny_config(path, "audio_only", **{"train.epochs": 1})), workdir)
    return workdir, fold_path


def test_its_results_are_marked(run):
    results, _ = evaluate_workdir(run[0], example_count=0)
    assert results["leaky"] is True
    assert result_marks(results) == [
        "LEAKY: speaker 'x' is in train and test (1 shared); only for comparison"
    ]


def test_the_mark_is_the_checkpoints_and_a_split_cannot_lose_it(run):
    workdir, fold_path = run
    with open(fold_path) as file:
        fold = json.load(file)
    with open(fold_path, "w") as file:
        json.dump({part: clips for part, clips in fold.items() if part != "leaks"}, file)
    assert evaluate_workdir(workdir, example_count=0)[0]["leaky"] is True


def test_others_are_not(tmp_path):
    path = write_dataset(str(tmp_path / "records"))
    train(open_experiment(tiny_config(path, "audio_only", **{"train.epochs": 1})), str(tmp_path / "run"))
    results, _ = evaluate_workdir(str(tmp_path / "run"), example_count=0)
    assert results["leaky"] is False
    assert result_marks(results) == []
