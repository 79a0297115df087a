"""F-score fusion in the loop: weights from validation clips, before the score, kept by checkpoints."""

import json
import os
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from emofuse_jax.api.evaluation import evaluate_workdir, load_trained_experiment
from emofuse_jax.models.fusions.f_score import FScore
from emofuse_jax.models.registry import get_calibrator
from emofuse_jax.parallel.mesh import make_mesh
from emofuse_jax.scoring import predict
from emofuse_jax.training import train
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.experiment import open_experiment
from emofuse_jax.training.fusion_state import compute_fusion_state
from emofuse_jax.training.metric_writer import read_epoch_rows
from emofuse_jax.training.step import jit_eval_step, level_probabilities
from tests.support.fakes import tiny_config, write_dataset


def class_f_score(level, labels, c):
    """One class's F, counted clip by clip."""
    hits = sum(1 for p, y in zip(level, labels, strict=True) if p.argmax() == c == y)
    total = sum(int(p.argmax() == c) + int(y == c) for p, y in zip(level, labels, strict=True))
    return 2 * hits / total if total else 0.0


def test_clips_without_the_stream_or_a_label_do_not_count():
    rng = np.random.default_rng(0)
    levels, labels = rng.dirichlet(np.ones(3), (40, 2)), rng.integers(0, 3, 40)
    levels[:10, 1], labels[10:15] = 0.0, -1
    state = FScore.calibrate({"class_weights": np.ones((2, 3), np.float32), "other": 1}, levels, labels)
    assert state["other"] == 1
    for m, start in ((0, 0), (1, 10)):
        rows = [i for i in range(start, 40) if not 10 <= i < 15]
        expected = [class_f_score(levels[rows, m], labels[rows], c) for c in range(3)]
        np.testing.assert_allclose(state["class_weights"][m], expected, rtol=1e-6)


def test_what_raises():
    labels = np.zeros(2, int)
    state = {"class_weights": np.ones((2, 3), np.float32)}
    with pytest.raises(ValueError, match="calibrate needs level_logits"):
        compute_fusion_state(state, FScore.calibrate, None, labels)
    with pytest.raises(ValueError, match="fusion: calibrate returned"):
        compute_fusion_state(state, lambda *_: {"class_weights": np.ones(3)}, np.ones((2, 2, 3)), labels)
    assert get_calibrator("late") is None


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("calibrate")


@pytest.fixture(scope="module")
def config(home):
    return tiny_config(write_dataset(str(home / "records"), num_clips=60), "f_score", **{"train.epochs": 2})


@pytest.fixture(scope="module")
def uninterrupted(home, config):
    """A run of two epochs; `stopped` beside it is what its workdir was after the first."""
    workdir, stopped, save = str(home / "straight"), home / "stopped", store.save

    def save_and_copy(workdir, kind, *rest):
        save(workdir, kind, *rest)
        if kind == "last" and not stopped.exists():
            shutil.copytree(workdir, stopped)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "save", save_and_copy)
        train.train(open_experiment(config), workdir)
    return workdir


def test_the_weights_are_the_f_scores_on_the_validation_clips(uninterrupted):
    experiment, params, model_state, _ = load_trained_experiment(uninterrupted, "last", "")
    mesh = make_mesh(experiment.config.mesh)
    clips = experiment.clips["validation"]
    batches = predict.sharded_batches(experiment.dataset, clips, experiment.choose_spec, mesh, batch_size=8)
    predictions = predict.predict(jit_eval_step(experiment.model, mesh), params, model_state, batches)
    weights = np.asarray(model_state["fusion"]["class_weights"])
    assert not np.all(weights == 1)
    for m in range(2):
        expected = [class_f_score(predictions.levels[:, m], predictions.labels, c) for c in range(3)]
        np.testing.assert_allclose(weights[m], expected, rtol=1e-6)
    # The score that selects the checkpoint is that of the calibrated answer.
    assert (
        read_epoch_rows(uninterrupted)[-1]["validation_ua"]
        == predict.score_predictions(predictions, with_intervals=False)["ua"]
    )


def test_stopped_after_an_epoch_and_resumed_equals_straight(home, config, uninterrupted):
    workdir = str(home / "stopped")
    before = load_trained_experiment(workdir, "last", "")[2]["fusion"]["class_weights"]
    train.train(open_experiment(config), workdir)
    for kind in ("last", "best"):
        both = [
            jax.tree.map(np.asarray, load_trained_experiment(w, kind, "")[1:3])
            for w in (workdir, uninterrupted)
        ]
        jax.tree.map(np.testing.assert_array_equal, *both)
    assert (
        read_epoch_rows(workdir)[-1]["validation_loss"]
        == read_epoch_rows(uninterrupted)[-1]["validation_loss"]
    )
    assert before.shape == (2, 3)


def test_a_checkpoint_gives_both_and_each_alone(uninterrupted):
    results, _ = evaluate_workdir(uninterrupted, example_count=1)
    assert list(results["modalities"]) == ["both", "audio", "video"]
    for scores in results["modalities"].values():
        assert 0 <= scores["ua"] <= 1


CALIBRATE = """
import sys, jax, numpy as np
from emofuse_jax.parallel import distributed
distributed.initialize(sys.argv[2], 2, int(sys.argv[1]))
from ml_collections import ConfigDict
from emofuse_jax.models.fusions.f_score import FScore
from emofuse_jax.training.fusion_state import compute_fusion_state, replace_fusion_state
from emofuse_jax.parallel.mesh import make_mesh, replicated
from emofuse_jax.types import TrainState
mesh = make_mesh(ConfigDict({"data": -1}))
before = jax.device_put(np.ones((2, 3), np.float32), replicated(mesh))
rng = np.random.default_rng(0)
levels = rng.dirichlet(np.ones(3), (20, 2))
labels = rng.integers(0, 3, 20)
state = TrainState(0, {}, {"fusion": {"class_weights": before}}, None)
fusion_state = compute_fusion_state({"class_weights": np.asarray(before)}, FScore.calibrate, levels, labels)
state = replace_fusion_state(state, fusion_state)
after = state.model_state["fusion"]["class_weights"]
assert after.sharding == before.sharding and jax.process_count() == 2 and len(after.sharding.device_set) == 4
expected = FScore.calibrate({}, levels, labels)["class_weights"]
np.testing.assert_array_equal(np.asarray(after), expected)
"""


def test_two_processes_hold_the_same_weights():
    run_two_processes(["-c", CALIBRATE], devices=2)


@pytest.mark.long
def test_two_processes_train_to_the_same_weights(home, config, uninterrupted):
    workdir = str(home / "pair")
    run_two_processes(
        ["-m", "tests.support.run_train", workdir, json.dumps(config.to_dict())], devices=4, count=["2"]
    )
    weights = [
        load_trained_experiment(w, "last", "")[2]["fusion"]["class_weights"] for w in (workdir, uninterrupted)
    ]
    np.testing.assert_allclose(*map(np.asarray, weights), atol=1e-6)


def run_two_processes(arguments, *, devices, count=()):
    """Two processes on this machine, each with its number (and their count) and their address."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
    commands = [[sys.executable, *arguments, str(i), *count, address] for i in range(2)]
    processes = [subprocess.Popen(command, env=env, stderr=subprocess.PIPE) for command in commands]
    try:
        for process in processes:
            assert process.wait(240) == 0, process.stderr.read()[-3000:].decode()
    finally:
        for process in processes:
            process.kill()


def test_levels_without_a_mask_are_refused():
    assert level_probabilities({}) is None
    with pytest.raises(ValueError, match="returns level_logits without level_mask"):
        level_probabilities({"level_logits": np.zeros((1, 2, 3))})
