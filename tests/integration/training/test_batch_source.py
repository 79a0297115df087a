"""Resident data gives the training that streamed data gives, whatever the number of steps in a call."""

import jax
import numpy as np
import pytest

from benchmarks.feature_records import write_features
from emofuse_jax.parallel.mesh import make_mesh
from emofuse_jax.scoring.predict import predict
from emofuse_jax.training import batch_source
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.crossval.crossval import crossval
from emofuse_jax.training.experiment import open_experiment
from emofuse_jax.training.metric_writer import read_epoch_rows, read_metric_rows
from emofuse_jax.training.step import jit_eval_step
from emofuse_jax.training.train import train
from tests.support.fakes import tiny_config, write_dataset
from tests.support.training_runs import FEATURE_SPEC, small_config

COMPARED_METRICS = ("train_loss", "train_ua", "validation_loss", "validation_ua", "validation_wa")


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return write_features(str(tmp_path_factory.mktemp("feed") / "records"), FEATURE_SPEC)


def run(records, workdir, **fields):
    config = small_config(records, **fields)
    config.train.log_every = 4
    train(open_experiment(config), str(workdir))
    rows = read_epoch_rows(str(workdir))
    steps = [
        row["step"] for row in read_metric_rows(str(workdir / "metrics.jsonl")) if row["split"] == "step"
    ]
    return np.array([[row[name] for name in COMPARED_METRICS] for row in rows]), steps, rows


HALF_OF_LABELS_HIDDEN = pytest.param({"data.labelled_fraction": 0.5}, marks=pytest.mark.long)


@pytest.mark.parametrize("hidden", [{}, HALF_OF_LABELS_HIDDEN])
def test_resident_equals_streamed(records, tmp_path, hidden):
    streamed, steps, rows = run(records, tmp_path / "stream", **hidden, **{"data.mode": "stream"})
    resident, same_steps, _ = run(records, tmp_path / "resident", **hidden, **{"data.mode": "resident"})
    fields = {"data.mode": "resident", "train.steps_per_call": 5}
    fused, fused_steps, _ = run(records, tmp_path / "fused", **hidden, **fields)
    np.testing.assert_allclose(resident, streamed, rtol=1e-4)
    np.testing.assert_allclose(fused, streamed, rtol=1e-4)
    assert steps == same_steps
    assert len(fused_steps) == len([s for s in fused_steps if s % 4 < 5]) > 1
    assert all(0 <= row["waiting"] <= 1 for row in rows)


@pytest.mark.long
def test_the_kind_may_change_when_a_run_goes_on(records, tmp_path):
    uninterrupted, _, _ = run(records, tmp_path / "straight", **{"data.mode": "stream"})
    experiment = open_experiment(small_config(records, **{"data.mode": "stream"}))
    validation_calls, original_validation = [], batch_source.StreamedBatchSource.validation_batches

    def stop_after_two(self):
        validation_calls.append(1)
        if len(validation_calls) == 3:
            raise KeyboardInterrupt
        return original_validation(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_source.StreamedBatchSource, "validation_batches", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            train(experiment, str(tmp_path / "changed"))
    changed, _, _ = run(records, tmp_path / "changed", **{"data.mode": "resident", "train.steps_per_call": 3})
    np.testing.assert_allclose(changed, uninterrupted, rtol=1e-4)


def test_the_mode_goes_by_the_memory_of_accelerators(records, monkeypatch):
    experiment = open_experiment(small_config(records))
    mesh = make_mesh(experiment.config.mesh)
    assert isinstance(batch_source.make_batch_source(experiment, mesh), batch_source.StreamedBatchSource)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    for memory, fits in ((1e9, True), (1e3, False)):
        monkeypatch.setattr(batch_source, "usable_device_bytes", lambda memory=memory: memory)
        assert batch_source.fits_in_device_memory(experiment, mesh) is fits
    experiment.config.data.mode = "cached"
    with pytest.raises(ValueError, match=r"data.mode='cached': expected one of auto, stream, resident"):
        batch_source.make_batch_source(experiment, mesh)


@pytest.fixture(scope="module")
def varied_records(tmp_path_factory):
    """Sounds of 90 to 129 steps."""
    return write_dataset(str(tmp_path_factory.mktemp("spread") / "records"), num_clips=60)


@pytest.mark.long
def test_length_buckets_compile_nothing_after_the_first_epoch(varied_records, tmp_path, monkeypatch):
    compile_events, compile_counts = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: (
            compile_events.append(name) if name.endswith("backend_compile_duration") else None
        )
    )
    save, step, length_counts = store.save, batch_source.StreamedBatchSource.step, []

    def save_and_count(*arguments):
        save(*arguments)
        compile_counts.append(len(compile_events))

    def step_and_count(self, *arguments):
        length_counts.append(len(self._compiled_steps))
        return step(self, *arguments)

    monkeypatch.setattr(store, "save", save_and_count)
    monkeypatch.setattr(batch_source.StreamedBatchSource, "step", step_and_count)
    experiment = open_experiment(tiny_config(varied_records, **{"data.buckets": 2, "data.mode": "stream"}))
    train(experiment, str(tmp_path))
    assert length_counts == [2] * 12
    assert compile_counts[0] > 2
    assert len(compile_counts) >= 4
    assert len(set(compile_counts)) == 1  # from the first save on, which ends the first epoch
    rows = read_epoch_rows(str(tmp_path))
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


def test_validation_in_buckets_has_the_same_answers(varied_records):
    predictions_by_bucket_count = []
    for count in (1, 3):
        fields = {"data.buckets": count, "data.mode": "stream"}
        experiment = open_experiment(tiny_config(varied_records, "ag_fbp", **fields))
        mesh = make_mesh(experiment.config.mesh)
        params, model_state = experiment.model.init(jax.random.key(0))
        source = batch_source.StreamedBatchSource(experiment, mesh)
        predictions = predict(
            jit_eval_step(experiment.model, mesh), params, model_state, source.validation_batches()
        )
        assert len({batch.audio.shape[1] for batch in source.validation_batches()}) == min(count, 2)
        order = np.argsort(predictions.clips)
        predictions_by_bucket_count.append((predictions.clips[order], predictions.probabilities[order]))
    np.testing.assert_array_equal(predictions_by_bucket_count[0][0], predictions_by_bucket_count[1][0])
    np.testing.assert_allclose(
        predictions_by_bucket_count[0][1], predictions_by_bucket_count[1][1], atol=1e-5
    )


def test_buckets_are_of_streamed_batches(varied_records, tmp_path):
    config = tiny_config(varied_records, **{"data.buckets": 3, "data.mode": "resident"})
    with pytest.raises(ValueError, match=r"config.data.buckets=3: expected 1, because resident clips"):
        batch_source.make_batch_source(open_experiment(config), make_mesh(config.mesh))
    with pytest.raises(
        ValueError, match=r"config.data.buckets=3: expected 1, .*; or set config.crossval.mode=single"
    ):
        crossval(config, str(tmp_path), seeds=1)
    config.data.buckets = 0
    with pytest.raises(ValueError, match=r"config.data.buckets=0: expected a number from 1 to 255"):
        open_experiment(config).buckets  # noqa: B018


@pytest.mark.parametrize("mode", ["stream", "resident"])
def test_fewer_clips_than_a_batch_are_one_line(varied_records, tmp_path, mode):
    config = tiny_config(varied_records, **{"data.batch_size": 64, "data.mode": mode})
    with pytest.raises(
        ValueError, match=r"fake_1fold, fold 0: \d+ training clips, fewer than data.batch_size=64"
    ):
        train(open_experiment(config), str(tmp_path / mode))
