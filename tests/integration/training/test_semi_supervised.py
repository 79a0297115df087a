"""Training with few labels: a hidden one reaches neither the loss nor a metric."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from emofuse_jax.training.batch_source import make_train_batches
from emofuse_jax.training.experiment import make_metadata, open_experiment
from emofuse_jax.training.optimizer import make_optimizer
from emofuse_jax.training.step import init_state, make_train_step
from tests.support import fakes

FIELDS = {
    "data.recipe": "fbp",
    "data.labelled_fraction": 0.4,
    "data.labelled_share": 0.0,
    "model.audio.segment_steps": 16,
    "model.audio.widths": (4, 6),
    "model.fusion.segments": 4,
    "augment.frames": 2,
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return fakes.write_dataset(str(tmp_path_factory.mktemp("semi") / "records"))


@pytest.fixture(scope="module")
def experiment(path):
    return open_experiment(fakes.tiny_config(path, "hgr_semi", **FIELDS))


@pytest.fixture(scope="module")
def step(experiment):
    tx = make_optimizer(experiment.config.optimizer, 10)
    state = init_state(experiment.model, tx, jax.random.key(0), experiment.statistics)
    jitted = jax.jit(make_train_step(experiment.model, tx, experiment.config))

    def run(experiment):
        """State and metrics after two steps on its batches."""
        batches, current_state, metrics = make_train_batches(experiment), state, []
        for _ in range(2):
            current_state, values = jitted(current_state, next(batches))
            metrics.append(values)
        return jax.tree.map(np.asarray, (current_state, metrics))

    return run


def with_other_labels(experiment, path, monkeypatch, changed):
    """The experiment on records in which the labels of some clips differ; its manifest is as it was."""
    original_make_record = fakes.make_record

    def make_relabelled_record(i):
        record = original_make_record(i)
        return dataclasses.replace(record, label=(record.label + 1) % 3) if i in changed else record

    monkeypatch.setattr(fakes, "make_record", make_relabelled_record)
    other = fakes.write_dataset(f"{path}-{len(changed)}-{min(changed)}")
    shutil.copy(f"{path}/manifest.csv", f"{other}/manifest.csv")
    config = experiment.config.copy_and_resolve_references()
    config.data.path = other
    return open_experiment(config)


def test_hidden_labels_change_nothing_bit_for_bit(experiment, step, path, monkeypatch):
    train, labels = experiment.clips["train"], experiment.labels
    hidden, labelled = set(train[labels < 0].tolist()), train[labels >= 0].tolist()
    assert len(hidden) == 12
    before = step(experiment)
    changed = with_other_labels(experiment, path, monkeypatch, hidden)
    assert {changed.dataset.read(i).label == experiment.dataset.read(i).label for i in hidden} == {False}
    jax.tree.map(np.testing.assert_array_equal, step(changed), before)
    counted_clips = [int(values["confusion"].sum()) for values in before[1]]
    assert 0 < sum(counted_clips) <= len(labelled)
    assert all(np.isfinite(values["loss"]) for values in before[1])
    other = with_other_labels(experiment, path, monkeypatch, set(labelled))
    losses = [[float(values["levels"]) for values in run[1]] for run in (step(other), before)]
    assert losses[0] != losses[1]


def test_the_checkpoint_names_the_clips_that_were_used(experiment, path):
    config = experiment.config.copy_and_resolve_references()
    config.data.keep_unlabelled = False
    alone = open_experiment(config)
    digests = {
        make_metadata(e)["training_clips_sha256"] for e in (experiment, alone, open_experiment(config))
    }
    assert len(digests) == 2
    assert len(alone.clips["train"]) == 6


def test_balanced_batches_of_an_experiment(experiment):
    config = experiment.config.copy_and_resolve_references()
    config.data.update(labelled_fraction=1.0, balanced=True, batch_size=6)
    batches = make_train_batches(open_experiment(config))
    for _ in range(4):
        assert np.bincount(next(batches).label, minlength=3).tolist() == [2, 2, 2]


def test_a_share_of_each_batch_has_labels(experiment):
    config = experiment.config.copy_and_resolve_references()
    config.data.update(labelled_share=0.5, batch_size=6)
    batches = make_train_batches(open_experiment(config))
    for _ in range(6):
        assert next(batches).label_mask.sum() == 3
