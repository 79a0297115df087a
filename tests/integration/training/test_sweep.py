"""A sweep: its replicas are trainings of their own, grouped by program, resumed, blind to the test part."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks.feature_records import write_features
from emofuse_jax.training.crossval import replica_groups, stacked_replicas
from emofuse_jax.training.crossval.search_space import apply_trial
from emofuse_jax.training.crossval.sweep import (
    can_trace_field,
    find_varying_fields,
    group_trials_by_program,
    open_trial,
    sweep,
)
from emofuse_jax.training.experiment import open_experiment
from emofuse_jax.training.metric_writer import read_epoch_rows
from emofuse_jax.training.train import train
from tests.support.paths import ROOT
from tests.support.read_tensorboard import read_values
from tests.support.training_runs import FEATURE_SPEC, small_config

TRIALS = [
    {"optimizer.learning_rate": 0.003, "model.fusion.width": 8},
    {"optimizer.learning_rate": 0.00003, "model.fusion.width": 8},
    {"optimizer.learning_rate": 0.003, "model.fusion.width": 4},
]


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return write_features(str(tmp_path_factory.mktemp("records")), FEATURE_SPEC)


@pytest.fixture(scope="module")
def sweep_run(records, tmp_path_factory):
    """The search, and which parts it looked at."""
    workdir, parts, original_predict_split = (
        str(tmp_path_factory.mktemp("sweep")),
        set(),
        stacked_replicas.predict_split,
    )

    def predict_and_record_split(context, replica_ids, model, part):
        parts.add(part)
        return original_predict_split(context, replica_ids, model, part)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stacked_replicas, "predict_split", predict_and_record_split)
        results = sweep(small_config(records), workdir, TRIALS, folds=[0, 1], seeds=1)
    return workdir, results, parts


def test_a_replica_is_a_training_of_its_own(sweep_run, records, tmp_path):
    workdir, results, _ = sweep_run
    for number, trial in enumerate(TRIALS[:1]):
        config = apply_trial(small_config(records), trial)
        config.data.fold = 1
        tracker = train(open_experiment(config), str(tmp_path / str(number)))
        (row,) = [row for row in results["trials"] if row["number"] == number]
        (run,) = [run for run in row["runs"] if run["fold"] == 1]
        assert run["validation_ua"] == pytest.approx(tracker.best_ua, abs=1e-6)
        with open(os.path.join(workdir, "trials", f"{number:03d}", "fold_1_seed_0.json")) as file:
            history = json.load(file)["history"]
        epochs_alone = read_epoch_rows(str(tmp_path / str(number)))
        for ours, theirs in zip(history, epochs_alone, strict=True):
            assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-4)


def test_it_ranks_by_validation_and_never_looks_at_the_test_part(sweep_run):
    _, results, parts = sweep_run
    assert parts == {"validation"}
    scores = [row["validation_ua"] for row in results["trials"]]
    assert scores == sorted(scores, reverse=True)
    assert results["trials"][-1]["number"] == 1  # hardly learns
    for row in results["trials"]:
        assert row["fields"] == TRIALS[row["number"]]
        assert row["validation_ua"] == pytest.approx(sum(run["validation_ua"] for run in row["runs"]) / 2)


def test_started_again_it_trains_nothing_anew(sweep_run, records, monkeypatch):
    workdir, results, _ = sweep_run
    monkeypatch.setattr(replica_groups, "train_replicas", None)
    assert sweep(small_config(records), workdir, TRIALS, folds=[0, 1], seeds=1) == results
    with pytest.raises(ValueError, match="was started with other trials"):
        sweep(small_config(records), workdir, [*TRIALS[:2], TRIALS[1]], folds=[0, 1], seeds=1)
    with pytest.raises(ValueError, match="was started with other folds or seeds"):
        sweep(small_config(records), workdir, TRIALS, folds=[0], seeds=1)


def test_what_differs_in_numbers_of_the_step_shares_a_program(records):
    trials = [
        {"optimizer.weight_decay": 0.1},
        {"optimizer.weight_decay": 0.2, "optimizer.learning_rate": 0.01},
        {"optimizer.ema": 0.9},
        {"data.batch_size": 16},
        {"data.batch_size": 16, "loss.smoothing": 0.2},
    ]
    base = open_experiment(small_config(records))
    experiments = [open_trial(base, trial) for trial in trials]
    assert group_trials_by_program(experiments, trials) == [[0, 1], [2], [3, 4]]
    assert find_varying_fields(experiments[:2]) == ("optimizer.learning_rate", "optimizer.weight_decay")
    assert can_trace_field(base, "optimizer.warmup")
    assert not can_trace_field(base, "optimizer.ema")  # an average or none: another state
    assert not can_trace_field(base, "optimizer.accumulate")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer.rate": 1}, r"config\.optimizer\.rate: there is no such field"),
        ({"data.hold_out": False}, r"config\.data\.hold_out=False: a search needs validation clips"),
        ({"optimizer.ema": 50.0}, r"config\.optimizer\.ema=50.0: expected a number in \[0, 1\)"),
    ],
)
def test_an_invalid_field_is_refused_before_any_training(records, tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        sweep(small_config(records), str(tmp_path), [{}, fields], folds=[0], seeds=1)
    assert not os.listdir(tmp_path)


def test_the_command(records, tmp_path):
    arguments = [
        f"--config.data.path={records}",
        "--config.data.audio_steps=16",
        "--config.data.batch_size=8",
        "--config.model.audio.embedding=16",
        "--config.model.video.embedding=16",
        "--config.model.fusion.width=16",
        "--config.model.fusion.factors=2",
        "--config.train.epochs=2",
        f"--workdir={tmp_path}",
        "--count=2",
        "--space=optimizer.learning_rate=log:1e-4:1e-2",
    ]
    command_line = [sys.executable, ROOT / "launch" / "sweep.py", "--config=features", *arguments]
    completed = subprocess.run(command_line, capture_output=True, text=True, timeout=300)
    assert completed.returncode == 0, completed.stderr
    assert "validation UA" in completed.stdout
    rows = json.loads((tmp_path / "sweep.json").read_text())["trials"]
    assert {row["number"] for row in rows} == {0, 1}
    trial_folders = sorted(path.name for path in (tmp_path / "tensorboard").iterdir() if path.is_dir())
    assert trial_folders == ["000", "001"]
    (score,) = [row for row in rows if row["number"] == 0]
    tensorboard_values = read_values(tmp_path / "tensorboard" / "000")
    assert tensorboard_values["validation_ua"][0].simple_value == pytest.approx(score["validation_ua"])
    assert "_hparams_/session_start_info" in tensorboard_values
