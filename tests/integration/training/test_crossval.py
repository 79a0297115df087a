"""Cross-validation as one program: each replica is `emofuse train` of its fold and seed."""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks.feature_records import write_features
from emofuse_jax import settings
from emofuse_jax.api.evaluation import evaluate_workdir
from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.data.prepared_files import read_json
from emofuse_jax.parallel.preemption import Preempted
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.crossval.crossval import crossval, make_context
from emofuse_jax.training.crossval.plan import read_or_make_plan
from emofuse_jax.training.crossval.replica_packing import (
    estimate_device_bytes,
    has_convolutions,
    lower_train_steps,
    should_vmap,
)
from emofuse_jax.training.experiment import flatten_fields, open_experiment, with_fold_and_seed
from emofuse_jax.training.metric_writer import read_epoch_rows
from emofuse_jax.training.nan_guard import are_replicas_finite
from emofuse_jax.training.train import train
from tests.support.fakes import add_folds, tiny_config, write_dataset
from tests.support.report_inputs import Page
from tests.support.training_runs import FEATURE_SPEC, small_config

COMPARED_METRICS = ("train_loss", "train_ua", "validation_loss", "validation_ua", "validation_wa")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("crossval")


@pytest.fixture(scope="module")
def records(home):
    return write_features(str(home / "records"), FEATURE_SPEC)


@pytest.mark.long
def test_without_clips_held_out_all_but_the_test_clips_are_trained_on(records, home):
    fields = {"data.hold_out": False, "train.temperature": 0.7, "train.epochs": 2}
    config = small_config(records, **fields)
    results = crossval(config, str(home / "all_trained"), seeds=1, folds=[0])
    (run,) = results["runs"]
    experiment = with_fold_and_seed(open_experiment(config), 0, 0)
    experiment_with_validation = with_fold_and_seed(open_experiment(small_config(records)), 0, 0)
    parts = [experiment_with_validation.clips[part] for part in ("train", "validation")]
    assert sorted(experiment.clips["train"]) == sorted(np.concatenate(parts))
    assert not set(experiment.clips["train"]) & set(experiment.clips["test"])
    steps = 2 * (sum(map(len, parts)) // 8)  # the last epoch's
    assert (run["validation"], run["best_step"], run["temperature"]) == ({"ua": None}, steps, 0.7)
    tracker = train(experiment, str(home / "all_trained_alone"))
    assert (tracker.best_ua, tracker.best_step, tracker.temperature) == (None, steps, 0.7)
    evaluation, _ = evaluate_workdir(str(home / "all_trained_alone"), example_count=0)
    np.testing.assert_allclose(run["probabilities"], evaluation["probabilities"], atol=2e-4)
    assert "validation_ua" not in read_epoch_rows(str(home / "all_trained_alone"))[0]
    assert train(experiment, str(home / "all_trained_alone")) == tracker  # as it was saved
    with pytest.raises(ValueError, match=r"validation is empty \(config\.data\.hold_out=False"):
        evaluate_workdir(str(home / "all_trained_alone"), split="validation", example_count=0)


@pytest.mark.parametrize(
    ("fusion", "fields", "message"),
    [("am_fbp", {"train.patience": 3}, "patience=3"), ("f_score", {}, "fusion 'f_score'")],
)
def test_what_needs_clips_held_out_says_so(records, fusion, fields, message):
    with pytest.raises(
        ValueError, match=rf"config\.data\.hold_out=False: .*{message} needs validation clips"
    ):
        open_experiment(small_config(records, fusion, **{"data.hold_out": False, **fields}))


def test_of_stacked_replicas_the_one_that_is_not_finite_is_found():
    params = {"kernel": np.ones((3, 2, 2), np.float32), "bias": np.zeros((3, 2), np.float32)}
    params["bias"][1, 1] = np.inf
    assert are_replicas_finite(params).tolist() == [True, False, True]


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_none_is_refused(records, temperature):
    with pytest.raises(ValueError, match=r"config\.train\.temperature=.*: expected a number above 0"):
        open_experiment(small_config(records, **{"train.temperature": temperature}))


@pytest.fixture(scope="module")
def tensors(home):
    path = write_dataset(str(home / "tensors"), num_clips=48)
    add_folds(path, num_clips=48)
    return path


def train_alone(config, workdir, fold, seed):
    config = type(config)(config.to_dict())
    config.data.fold, config.seed = fold, seed
    tracker = train(open_experiment(config), str(workdir))
    return tracker, read_epoch_rows(str(workdir))


def check_same(config, home, workdir, results, fold, seed):
    """The run of a cross-validation, and the same fold and seed by `emofuse train` and `evaluate`."""
    tracker, rows = train_alone(config, home, fold, seed)
    run = next(run for run in results["runs"] if (run["fold"], run["seed"]) == (fold, seed))
    our_rows = read_epoch_rows(os.path.join(workdir, "runs", f"fold_{fold}_seed_{seed}"))
    assert len(our_rows) == len(rows) == run["epochs"]
    for our_row, row in zip(our_rows, rows, strict=True):
        np.testing.assert_allclose(
            [our_row[k] for k in COMPARED_METRICS], [row[k] for k in COMPARED_METRICS], rtol=2e-3
        )
    assert run["best_step"] == tracker.best_step
    assert run["validation"]["ua"] == pytest.approx(tracker.best_ua)
    evaluation, _ = evaluate_workdir(str(home), example_count=0)
    assert run["clips"] == evaluation["clips"]
    assert run["labels"] == evaluation["labels"]
    np.testing.assert_allclose(run["probabilities"], evaluation["probabilities"], atol=2e-3)


@pytest.fixture(scope="module")
def crossval_results(home, records):
    return crossval(small_config(records), str(home / "crossed"), seeds=3)


def test_a_replica_is_a_training_of_its_own(home, records, crossval_results):
    assert [(run["fold"], run["seed"]) for run in crossval_results["runs"]] == [
        (f, s) for f in range(3) for s in range(3)
    ]
    check_same(small_config(records), home / "alone", home / "crossed", crossval_results, 2, 1)


def test_what_is_written_of_a_run_evaluates_to_its_result(home, crossval_results):
    for run in crossval_results["runs"][::4]:
        directory = home / "crossed" / "runs" / f"fold_{run['fold']}_seed_{run['seed']}"
        evaluation, _ = evaluate_workdir(str(directory), example_count=0)
        assert evaluation["clips"] == run["clips"]
        np.testing.assert_allclose(evaluation["probabilities"], run["probabilities"], atol=1e-5)
        assert evaluation["modalities"]["both"]["ua"] == pytest.approx(run["test"]["ua"])


def test_pooled_scores_are_those_of_all_answers(crossval_results):
    runs = crossval_results["runs"]
    labels = np.concatenate([run["labels"] for run in runs])
    predicted = np.concatenate([np.argmax(run["probabilities"], -1) for run in runs])
    recall = [np.mean(predicted[labels == c] == c) for c in range(3)]
    assert crossval_results["pooled"]["ua"] == pytest.approx(np.mean(recall))
    assert crossval_results["pooled"]["wa"] == pytest.approx(np.mean(predicted == labels))
    low, high = crossval_results["pooled"]["ua_interval"]
    assert 0 <= low <= crossval_results["pooled"]["ua"] <= high <= 1
    uas = [run["test"]["ua"] for run in runs]
    assert crossval_results["mean"]["ua"] == pytest.approx(np.mean(uas))
    assert crossval_results["sd"]["ua"] == pytest.approx(np.std(uas, ddof=1))
    assert crossval_results["leaky"] is False
    tested_clips = sorted(clip for run in runs if run["seed"] == 0 for clip in run["clips"])
    assert tested_clips == [f"clip{i:05d}" for i in range(FEATURE_SPEC.clips)]


@pytest.fixture(scope="module")
def loop_results(home, records):
    return crossval(small_config(records, **{"crossval.mode": "loop"}), str(home / "looped"), seeds=3)


def test_one_after_the_other_gives_the_same(loop_results, crossval_results):
    for mine, theirs in zip(loop_results["runs"], crossval_results["runs"], strict=True):
        assert mine["best_step"] == theirs["best_step"]
        np.testing.assert_allclose(mine["probabilities"], theirs["probabilities"], atol=2e-3)


def test_when_preempted_it_saves_within_an_epoch_and_resumes(home, records, loop_results, monkeypatch):
    """Nine runs on eight devices are two groups of 24 steps; it asks before each step, and after a group."""
    workdir, config = str(home / "told"), small_config(records, **{"crossval.mode": "loop"})
    for call, progress in ((9, "at step 9"), (15, "1 of 2 replica groups"), (5, "at step 4")):
        call_count = itertools.count()
        watcher = contextlib.nullcontext(lambda call_count=call_count, call=call: next(call_count) == call)
        monkeypatch.setattr(
            "emofuse_jax.training.crossval.crossval.watch_preemption", lambda watcher=watcher: watcher
        )
        with pytest.raises(Preempted, match=f"saved.* {progress}"):
            crossval(config, workdir, seeds=3)
    monkeypatch.undo()
    assert crossval(config, workdir, seeds=3)["runs"] == loop_results["runs"]
    history = "runs/fold_1_seed_0/metrics.jsonl"
    assert (home / "told" / history).read_text() == (home / "looped" / history).read_text()


def test_replicas_that_do_not_fit_are_split(home, records, crossval_results, capfd):
    base = open_experiment(small_config(records))
    one_replica_bytes, two_replica_bytes = (
        estimate_device_bytes(make_context({(0, 0): base}), replica_count) / 1e9 for replica_count in (1, 2)
    )
    assert one_replica_bytes < two_replica_bytes
    memory_limit = {"crossval.memory": (one_replica_bytes + two_replica_bytes) / 2}
    split = crossval(small_config(records, **memory_limit), str(home / "split"), seeds=3)
    stderr = " ".join(capfd.readouterr().err.split())
    assert "9 replicas on 8 cpu devices, 1 at a time on each" in stderr
    assert read_json(str(home / "split" / "crossval.json"))["replicas"] == 5
    for mine, theirs in zip(split["runs"], crossval_results["runs"], strict=True):
        np.testing.assert_allclose(mine["probabilities"], theirs["probabilities"], atol=2e-3)
    with pytest.raises(ValueError, match=r"a replica needs 0\.\d\d GB, but a device has 0\.00 GB"):
        crossval(small_config(records, **{"crossval.memory": 1e-6}), str(home / "none"), seeds=3)


def test_early_stopping_is_each_replicas_own(home, records):
    config = small_config(
        records, **{"train.patience": 1, "train.epochs": 8, "optimizer.learning_rate": 0.02}
    )
    results = crossval(config, str(home / "patient"), seeds=2)
    lengths = {run["epochs"] for run in results["runs"]}
    assert len(lengths) > 1
    shortest = min(results["runs"], key=lambda run: run["epochs"])
    check_same(config, home / "impatient", home / "patient", results, shortest["fold"], shortest["seed"])


@pytest.mark.long
@pytest.mark.parametrize(
    ("fusion", "fields"),
    [
        ("f_score", {"data.balanced": True, "optimizer.ema": 0.9}),
        ("hgr", {"data.labelled_fraction": 0.5, "optimizer.ema": 0.9, "optimizer.accumulate": 2}),
    ],
)
def test_of_other_kinds_of_training_too(home, records, fusion, fields):
    config = small_config(records, fusion, **fields)
    name = f"{fusion}_{len(fields)}"
    results = crossval(config, str(home / name), seeds=2, folds=[1, 2])
    check_same(config, home / f"{name}_alone", home / name, results, 1, 1)


@pytest.mark.long
def test_networks_with_convolutions_run_one_a_device(home, tensors, capfd):
    fields = {"data.protocol": "fake_folds", "train.epochs": 2, "optimizer.learning_rate": 1e-3}
    config = tiny_config(tensors, **fields)  # a high rate carries rounding into the second digit
    results = crossval(config, str(home / "convolved"), seeds=2, folds=[0, 2])
    stderr = " ".join(capfd.readouterr().err.split())
    assert "1 at a time on each, one after the other" in stderr
    check_same(config, home / "convolved_alone", home / "convolved", results, 2, 1)


def test_the_mode_is_chosen_by_convolutions(records, tensors):
    for config, is_vmapped in ((small_config(records), True), (tiny_config(tensors), False)):
        config.data.protocol = "made_folds" if is_vmapped else "fake_folds"
        model = open_experiment(config).model
        batch = model.fake_batch(2)
        assert has_convolutions(model, batch) is not is_vmapped
        assert should_vmap("auto", model, batch) is is_vmapped
        assert should_vmap("vmap", model, batch)
        assert not should_vmap("loop", model, batch)
        with pytest.raises(ValueError, match=r"crossval.mode='fast': expected one of auto, vmap, loop"):
            should_vmap("fast", model, batch)


def test_a_finished_one_is_not_done_again(home, records, crossval_results):
    before = {p: p.stat().st_mtime_ns for p in (home / "crossed" / "runs").rglob("*") if p.is_file()}
    again = crossval(small_config(records), str(home / "crossed"), seeds=3)
    assert {p: p.stat().st_mtime_ns for p in (home / "crossed" / "runs").rglob("*") if p.is_file()} == before
    assert again["runs"] == crossval_results["runs"]
    assert not (home / "crossed" / "checkpoints").exists()


def test_what_a_killed_run_left_of_a_finished_chunk_is_in_nobodys_way(home, records, crossval_results):
    workdir = str(home / "left")
    store.save_items(workdir, "replicas", 99, {"states": np.zeros(2)}, {"runs": [[7, 7]]})
    again = crossval(small_config(records), workdir, seeds=3, folds=[0])
    assert os.listdir(os.path.join(workdir, "checkpoints")) == []
    assert [run["test"] for run in again["runs"]] == [run["test"] for run in crossval_results["runs"][:3]]


def test_the_command_prints_and_writes_what_the_runs_reached(home, records, crossval_results):
    """Of the finished one: its config by flags."""
    fields = flatten_fields(small_config(records).to_dict())
    before = flatten_fields(settings.with_features().to_dict())
    changed = [f"--config.{k}={v}" for k, v in fields.items() if before[k] != v]
    arguments = ["crossval", "--config=features", *changed, f"--workdir={home / 'crossed'}", "--seeds=3"]
    program = (
        "import sys; from emofuse_jax.cli import main; sys.argv = ['emofuse', *sys.argv[1:]]; main.main()"
    )
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "8"}

    def command(*more_arguments):
        command_line = [sys.executable, "-c", program, *arguments, *more_arguments]
        return subprocess.run(command_line, env=env, capture_output=True, text=True, timeout=200)

    done = command()
    assert done.returncode == 0, done.stderr
    assert read_json(str(home / "crossed" / "results.json"))["pooled"] == crossval_results["pooled"]
    for run in crossval_results["runs"]:
        assert f"{100 * run['test']['ua']:.1f}" in done.stdout
    spread = f"{100 * crossval_results['mean']['ua']:.1f} +- {100 * crossval_results['sd']['ua']:.1f}"
    assert spread in done.stdout
    head, rule, row = (home / "crossed" / "row.md").read_text().splitlines()
    assert head.count("|") == rule.count("|") == row.count("|") == 9
    low, high = (100 * x for x in crossval_results["pooled"]["ua_interval"])
    assert f"| 3 x 3 | 6 | {100 * crossval_results['pooled']['ua']:.1f} [{low:.1f}, {high:.1f}] |" in row
    assert f"{spread} |" in row
    check_report(home / "crossed", crossval_results)
    other = command("--protocol=nowhere")
    assert other.returncode == 2
    assert "no such fold; choose another fold, or one of the protocols made_folds" in other.stderr


def check_report(folder, results):
    """The page has every run, the conditions that features allow, and its command; pictures lie beside it."""
    page = Page((folder / "report.html").read_text())
    assert page.open == []
    assert not [reference for reference in page.references if not reference.startswith(("#", "data:"))]
    for run in results["runs"]:
        assert f"{100 * run['test']['ua']:.1f}" in page.text
    assert f"{100 * results['ensemble']['ua']:.1f}" in page.text
    assert "emofuse crossval --config=features" in page.text
    robustness = read_json(str(folder / "robustness.json"))
    assert set(robustness) == {"lost", "without"}  # features: no spectrogram to add noise to
    assert robustness["lost"][0]["ua"] == pytest.approx(results["pooled"]["ua"], abs=1e-6)
    assert robustness["lost"][-1] == robustness["without"][1] | {"at": 1.0}
    names = {path.name for path in (folder / "figures").iterdir()}
    assert {"learning_ua.png", "confusion.png", "reliability.png", "robustness_lost.png"} <= names


def test_another_config_or_other_runs_are_refused(home, records, crossval_results):
    with pytest.raises(ValueError, match=r"config.optimizer.learning_rate=0.003, this one has 0.1"):
        crossval(small_config(records, **{"optimizer.learning_rate": 0.1}), str(home / "crossed"), seeds=3)
    with pytest.raises(ValueError, match="was started with other folds or seeds"):
        crossval(small_config(records), str(home / "crossed"), seeds=2)
    runs = [(fold, seed) for fold in range(3) for seed in range(3)]
    plan = read_or_make_plan(
        str(home / "crossed"), small_config(records, **{"crossval.save_seconds": 1.0}), runs
    )
    assert plan["replicas"] == 9
    del plan["config"]["augment"]["mixup"]  # as an emofuse without this field writes it
    os.makedirs(home / "older")
    (home / "older" / "crossval.json").write_text(json.dumps(plan))
    with pytest.raises(ValueError, match=r"crossval\.json: .*config\.augment\.mixup: this field is missing"):
        read_or_make_plan(str(home / "older"), small_config(records), runs)


def test_a_test_speaker_in_training_is_refused(home, records, tmp_path):
    leaky = str(tmp_path / "leaky")
    shutil.copytree(records, leaky)
    name = os.path.join(leaky, "splits", "made_folds", "fold_1.json")
    lists = read_json(name)
    dataset = open_dataset(records)
    speaker = dataset.speaker_of[lists["test"][0]]
    moved = [clip for clip in lists["test"] if dataset.speaker_of[clip] == speaker][:1]
    lists["train"] += moved
    with open(name, "w") as file:
        json.dump(lists, file)
    with pytest.raises(ValueError, match=f"test speaker '{speaker}' was used in training"):
        crossval(small_config(leaky), str(tmp_path / "run"), seeds=1)
    with pytest.raises(ValueError, match=r"fold 0: \d+ training clips, fewer than data.batch_size=100"):
        crossval(small_config(leaky, **{"data.batch_size": 100}), str(tmp_path / "run"), seeds=1)
    with pytest.raises(ValueError, match=r"config\.data\.batch_size=0: expected at least 1"):
        crossval(small_config(leaky, **{"data.batch_size": 0}), str(tmp_path / "run"), seeds=1)
    lists["test"] = []
    with open(name, "w") as file:
        json.dump(lists, file)
    with pytest.raises(ValueError, match="made_folds, fold 1: no test clips"):
        crossval(small_config(leaky), str(tmp_path / "run"), seeds=1)


def test_a_fold_starts_from_the_run_of_its_own_fold(records):
    config = small_config(records)
    config.init.audio = "runs/fold_{fold}_seed_{seed}"
    experiment = with_fold_and_seed(open_experiment(config), 2, 7)
    assert experiment.config.init.audio == "runs/fold_2_seed_7"
    assert experiment.config.data.fold == 2
    assert config.init.audio == "runs/fold_{fold}_seed_{seed}"


def test_no_replica_waits_for_another(records):
    """The compiled epoch of eight devices holds no collective."""
    base = open_experiment(small_config(records))
    context = make_context({(0, seed): with_fold_and_seed(base, 0, seed) for seed in range(8)})
    hlo_text = lower_train_steps(context, 1).compile().as_text()
    assert not [
        operation for operation in ("all-reduce", "all-gather", "collective-permute") if operation in hlo_text
    ]
    assert context.mesh.shape["replica"] == jax.device_count() == 8
