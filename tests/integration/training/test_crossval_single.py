"""`config.crossval.mode=single`: each replica is `emofuse train` of its fold and seed, bit for bit."""

import itertools
from contextlib import nullcontext

import jax
import numpy as np
import pytest

from benchmarks.feature_records import write_features
from emofuse_jax.api.evaluation import evaluate_workdir
from emofuse_jax.parallel.preemption import Preempted
from emofuse_jax.training.crossval.crossval import crossval
from emofuse_jax.training.crossval.sweep import sweep
from emofuse_jax.training.experiment import open_experiment
from emofuse_jax.training.train import train
from tests.integration.training.test_sweep import TRIALS
from tests.support.checkpoint_damage import flip_bit_of_clip
from tests.support.fakes import add_folds, tiny_config, write_dataset
from tests.support.training_runs import FEATURE_SPEC, final_params, read_untimed_rows, small_config

SINGLE = {"crossval.mode": "single", "train.epochs": 2}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return write_features(str(tmp_path_factory.mktemp("single") / "records"), FEATURE_SPEC)


def check_equal(config, results, workdir, alone, fold):
    """A replica of a cross-validation, and the same by `emofuse train` and `emofuse evaluate`."""
    config = config.copy_and_resolve_references()
    config.data.fold = fold
    tracker = train(open_experiment(config), str(alone))
    replica = workdir / "runs" / f"fold_{fold}_seed_0"
    assert read_untimed_rows(replica) == read_untimed_rows(alone)
    jax.tree.map(np.testing.assert_array_equal, final_params(replica), final_params(alone))
    (run,) = [run for run in results["runs"] if run["fold"] == fold]
    assert (run["best_step"], run["temperature"]) == (tracker.best_step, tracker.temperature)
    evaluation, _ = evaluate_workdir(str(alone), example_count=0)
    assert [run[name] for name in ("clips", "labels", "probabilities")] == [
        evaluation[name] for name in ("clips", "labels", "probabilities")
    ]


def test_replicas_equal_trainings_also_after_a_stop(records, tmp_path, monkeypatch):
    """It stops in the second epoch of the first fold, and after that fold."""
    config, workdir = small_config(records, **SINGLE), tmp_path / "crossval"
    for call, progress in ((8, "at step 8"), (4, "1 of 2 replica groups")):
        call_count = itertools.count()
        monkeypatch.setattr(
            "emofuse_jax.training.crossval.crossval.watch_preemption",
            lambda call_count=call_count, call=call: nullcontext(lambda: next(call_count) == call),
        )
        with pytest.raises(Preempted, match=f"saved.* {progress}"):
            crossval(config, str(workdir), seeds=1, folds=[0, 2])
    monkeypatch.undo()
    results = crossval(config, str(workdir), seeds=1, folds=[0, 2])
    assert [run["epochs"] for run in results["runs"]] == [2, 2]
    check_equal(config, results, workdir, tmp_path / "alone", 2)
    assert crossval(config, str(workdir), seeds=1, folds=[0, 2])["runs"] == results["runs"]


@pytest.mark.long
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"data.buckets": 2, "data.mode": "stream"}, id="buckets"),
        pytest.param({"mesh.fsdp": True, "optimizer.accumulate": 2}, id="fsdp"),
    ],
)
def test_what_train_can_do_it_can_do_too(tmp_path, fields):
    path = write_dataset(str(tmp_path / "records"), num_clips=48)
    add_folds(path, num_clips=48)
    fields = fields | {"data.protocol": "fake_folds", "train.epochs": 1}
    config = tiny_config(path, "concat", **fields)
    with pytest.raises(ValueError, match=r"expected .*, because .*; or set config.crossval.mode=single"):
        crossval(config, str(tmp_path / "crossval"), seeds=1, folds=[0])
    config.crossval.mode = "single"
    results = crossval(config, str(tmp_path / "crossval"), seeds=1, folds=[0])
    check_equal(config, results, tmp_path / "crossval", tmp_path / "alone", 0)


def test_a_damaged_training_clip_is_skipped(tmp_path):
    path = write_features(str(tmp_path / "records"), FEATURE_SPEC)
    config = small_config(path, **{"data.on_corrupt": "skip", "crossval.mode": "single", "train.epochs": 1})
    experiment = open_experiment(config)
    clip = experiment.dataset.clip_ids[experiment.clips["train"][0]]
    flip_bit_of_clip(path, clip)
    with pytest.warns(UserWarning, match=f"damaged clip left out: .*'{clip}'"):
        results = crossval(config, str(tmp_path / "crossval"), seeds=1, folds=[0])
    check_equal(config, results, tmp_path / "crossval", tmp_path / "alone", 0)


@pytest.mark.long
def test_a_sweep_gives_the_same_trials(records, tmp_path):
    fields = {"train.epochs": 2}
    looped = sweep(small_config(records, **fields), str(tmp_path / "a"), TRIALS[:2], folds=[0], seeds=1)
    single = sweep(small_config(records, **SINGLE), str(tmp_path / "b"), TRIALS[:2], folds=[0], seeds=1)
    assert [row["number"] for row in single["trials"]] == [row["number"] for row in looped["trials"]]
    for ours, theirs in zip(single["trials"], looped["trials"], strict=True):
        assert ours["validation_ua"] == pytest.approx(theirs["validation_ua"], abs=1e-6)
        assert ours["last_ua"] == pytest.approx(theirs["last_ua"], abs=1e-6)
