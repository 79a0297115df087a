"""Generated vectors: like their class, only in training, and the checkpoint is an ordinary one."""

import dataclasses

import jax
import numpy as np
import pytest

from emofuse_jax import settings
from emofuse_jax.api.evaluation import evaluate_workdir, load_trained_experiment
from emofuse_jax.models.feature_gan import LabelledVectors, choose_labels_to_generate, train_gan
from emofuse_jax.training.experiment import open_experiment
from emofuse_jax.training.refit_fusion import pool_vectors, refit
from emofuse_jax.training.train import train
from emofuse_jax.utils.locks import lock_directory
from tests.support.fakes import tiny_config, write_dataset


def small_config(**fields):
    config = settings.load_shipped("gan")
    config.gan.update(hidden=32, noise=8, common=4, steps=20, batch_size=32)
    config.refit.update(epochs=3, batch_size=8)
    config.update_from_flattened_dict(fields)
    return config


def make_clusters(n=240, classes=3, seed=0):
    """Pairs around a centre of their class, each stream its own."""
    rng = np.random.default_rng(seed)
    centres = [rng.normal(0, 3, (classes, width)) for width in (5, 4)]
    label = rng.integers(0, classes, n).astype(np.int32)
    audio, video = ((c[label] + rng.normal(0, 0.5, (n, c.shape[1]))).astype(np.float32) for c in centres)
    return LabelledVectors(audio, video, label), centres


def test_missing_labels_fill_up_to_the_most_frequent_class():
    label = np.array([0, 0, 0, 1, 2, 2], np.int32)
    assert choose_labels_to_generate(label, 3).tolist() == [1, 1, 2]
    assert choose_labels_to_generate(np.array([0, 1], np.int32), 2).tolist() == []


def test_generated_pairs_lie_nearest_to_the_centre_of_their_class():
    pairs, centres = make_clusters()
    generate, losses = train_gan(
        pairs,
        3,
        small_config(**{"gan.steps": 1500, "gan.hidden": 64, "gan.learning_rate": 1e-3}).gan,
        jax.random.key(0),
    )
    labels = np.repeat(np.arange(3), 40).astype(np.int32)
    generated = generate(jax.random.key(1), labels)
    assert generated.label.tolist() == labels.tolist()
    for vectors, centre in zip((generated.audio, generated.video), centres, strict=True):
        distance = np.linalg.norm(vectors[:, None] - centre[None], axis=-1)
        assert (distance.argmin(1) == labels).mean() > 0.9
        assert vectors[labels == 0].std(0).mean() > 0.05  # not one point
    assert all(np.isfinite(value) for value in losses.values())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained concat run in which one class is rare."""
    home = tmp_path_factory.mktemp("refit")
    config = tiny_config(write_dataset(str(home / "records"), num_clips=60), "concat", **{"train.epochs": 1})
    train(open_experiment(config), str(home / "run"))
    return home


def test_the_fusion_alone_is_fitted_and_the_checkpoint_can_be_scored(run):
    experiment, params, state, metadata = load_trained_experiment(str(run / "run"), "best", "")
    real = pool_vectors(experiment, params, state, "train")
    assert len(real.label) == len(experiment.clips["train"])
    hidden_rows = (real.label == 0).nonzero()[0][2:]  # the labels of all but two clips of a class are hidden
    labels = real.label.copy()
    labels[hidden_rows] = -1
    partly_labelled = dataclasses.replace(experiment, labels=labels)
    summary = refit(partly_labelled, params, state, metadata, small_config(), str(run / "out"))
    assert summary["generated"] >= len(hidden_rows) > 0
    assert summary["real"] == len(labels) - len(hidden_rows)
    results, _ = evaluate_workdir(str(run / "out"), example_count=0)
    assert results["config"] == "gan"
    assert set(results["modalities"]) == {"both", "audio", "video"}
    _, params_after, state_after, metadata_after = load_trained_experiment(str(run / "out"), "best", "")
    for name in ("audio", "video"):
        jax.tree.map(np.testing.assert_array_equal, params[name], params_after[name])
    jax.tree.map(np.testing.assert_array_equal, state, state_after)
    assert metadata_after["refit"]["generated"] == summary["generated"]


def test_without_generated_pairs_only_real_ones_are_seen(run):
    summary = refit(
        *load_trained_experiment(str(run / "run"), "best", ""),
        small_config(generate=False),
        str(run / "real"),
    )
    assert summary["generated"] == 0
    assert 0 <= summary["epoch"] <= 3


def test_hidden_labels_stay_hidden(run):
    experiment, params, state, _ = load_trained_experiment(str(run / "run"), "best", "")
    labels = np.where(np.arange(len(experiment.clips["train"])) < 6, 1, -1)
    partly_labelled = dataclasses.replace(experiment, labels=labels)
    assert len(pool_vectors(partly_labelled, params, state, "train").label) == 6
    assert len(pool_vectors(partly_labelled, params, state, "validation").label) == len(
        experiment.clips["validation"]
    )


def test_a_workdir_that_holds_a_run_is_refused(run):
    with pytest.raises(ValueError, match=r"run: already contains a run; choose another --workdir"):
        refit(*load_trained_experiment(str(run / "run"), "best", ""), small_config(), str(run / "run"))


def test_a_second_process_is_refused(run):
    with (
        lock_directory(str(run / "busy")),
        pytest.raises(ValueError, match="another process is using it"),
    ):
        refit(*load_trained_experiment(str(run / "run"), "best", ""), small_config(), str(run / "busy"))


def test_other_clips_than_the_run_had_are_refused(run):
    experiment, *rest = load_trained_experiment(str(run / "run"), "best", "")
    experiment.clips["train"] = experiment.clips["train"][1:]
    with pytest.raises(ValueError, match=r"training_clips_sha256 differ from those of the checkpoint"):
        refit(experiment, *rest, small_config(), str(run / "other"))


def test_a_fusion_of_parts_is_refused(run):
    experiment = open_experiment(tiny_config(str(run / "records"), "am_fbp"))
    with pytest.raises(ValueError, match=r"fusion 'am_fbp': expected a fusion of one pooled vector"):
        refit(experiment, {}, {}, {}, small_config(), str(run / "no"))
