"""Features of frozen encoders: on disk, in a batch, and under augmentation."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_prep.settings import PrepSettings
from emofuse_jax import settings
from emofuse_jax.data import records
from emofuse_jax.data.augment import apply
from emofuse_jax.data.collate import empty_batch, fill_row
from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.data.feature_shapes import feature_spec_fields, spectrogram_steps, window_seconds
from emofuse_jax.data.modality_mask import keep_only_modality
from emofuse_jax.data.pipeline import load_batch
from emofuse_jax.types import InputSpec
from tests.support.fakes import make_record

SHAPE = records.RecordShape(f=70, h=16, w=16, audio_features=5, face_features=7)
FULL_SPEC = InputSpec(
    t=100, f=70, s=4, h=16, w=16, classes=3, feature_steps=20, audio_features=5, face_features=7
)
FEATURES_ONLY_SPEC = dataclasses.replace(FULL_SPEC, t=0, h=0, w=0)
SETTINGS = {
    "audio": {"hop_ms": 10.0},
    "features": {"tensors": "keep", "audio": {"layout": {"hop_ms": 40.0}}, "face": None},
}


def make_feature_record(i, num_steps=12, **changes):
    rng, record = np.random.default_rng(i), make_record(i)
    return dataclasses.replace(
        record,
        audio_features=rng.normal(size=(num_steps, 5)).astype(np.float16),
        face_features=rng.normal(size=(4, 7)).astype(np.float16) * record.face_valid[:, None],
        **changes,
    )


def drop_tensors(record):
    return dataclasses.replace(record, spectrogram=record.spectrogram[:0], faces=record.faces[:, :0, :0])


@pytest.mark.parametrize("shape", [SHAPE, dataclasses.replace(SHAPE, h=0, w=0)])
def test_features_survive_the_disk_bit_for_bit(shape):
    record = make_feature_record(3) if shape.h else drop_tensors(make_feature_record(3))
    decoded = records.decode(records.encode(record), shape)
    for field in ("audio_features", "face_features", "spectrogram", "faces", "face_valid"):
        assert getattr(decoded, field).dtype == getattr(record, field).dtype
        np.testing.assert_array_equal(getattr(decoded, field), getattr(record, field))


def test_records_of_before_are_the_same_bytes_and_still_read():
    encoded = records.encode(make_record(3))
    assert b"features" not in encoded
    decoded = records.decode(encoded, records.RecordShape(f=70, h=16, w=16))
    assert decoded.audio_features is None
    assert decoded.face_features is None
    with pytest.raises(ValueError, match="field audio_features has 0 values"):
        records.decode(encoded, SHAPE)


def test_what_is_wrong_on_disk_is_named():
    with pytest.raises(ValueError, match="clip003: field audio_features is float32, expected float16"):
        records.encode(
            dataclasses.replace(make_feature_record(3), audio_features=np.zeros((2, 5), np.float32))
        )
    with pytest.raises(ValueError, match="clip003: field face_features"):
        records.decode(records.encode(make_feature_record(3)), dataclasses.replace(SHAPE, face_features=6))


def test_a_row_holds_features_beside_tensors():
    batch, record = empty_batch(2, FULL_SPEC), make_feature_record(3)
    fill_row(batch, 0, record)
    np.testing.assert_array_equal(batch.audio_features[0, :12], record.audio_features)
    assert not batch.audio_features[0, 12:].any()
    np.testing.assert_array_equal(batch.audio_features_mask, [np.arange(20) < 12, np.zeros(20, bool)])
    np.testing.assert_array_equal(batch.face_features[0], record.face_features)
    np.testing.assert_array_equal(batch.faces[0], record.faces)
    assert batch.audio_mask[0].any()
    assert batch.audio_features.dtype == batch.face_features.dtype == np.float16


def test_long_features_are_cut_to_the_middle_as_sound_is():
    batch, record = empty_batch(1, FULL_SPEC), make_feature_record(3, num_steps=31)
    fill_row(batch, 0, record)
    np.testing.assert_array_equal(batch.audio_features[0], record.audio_features[5:25])
    assert batch.audio_features_mask.all()


def test_a_row_of_features_alone():
    batch = empty_batch(1, FEATURES_ONLY_SPEC)
    assert batch.audio.shape == (1, 0, 70)
    assert batch.faces.shape == (1, 4, 0, 0, 3)
    record = drop_tensors(make_feature_record(3))
    fill_row(batch, 0, record)
    assert batch.audio_features_mask.sum() == 12
    np.testing.assert_array_equal(batch.face_mask[0], record.face_valid)
    batch_without_audio = empty_batch(1, FEATURES_ONLY_SPEC)
    fill_row(batch_without_audio, 0, dataclasses.replace(record, audio_ok=False))
    assert not batch_without_audio.audio_features_mask.any()
    assert not batch_without_audio.audio_features.any()


def test_features_of_an_encoder_that_failed_are_masked():
    record = dataclasses.replace(make_feature_record(3), audio_features=np.zeros((0, 5), np.float16))
    decoded = records.decode(records.encode(record), SHAPE)
    assert decoded.audio_features.shape == (0, 5)
    batch = empty_batch(1, FULL_SPEC)
    fill_row(batch, 0, decoded)
    assert not batch.audio_features_mask.any()
    assert batch.audio_mask.any()
    np.testing.assert_array_equal(batch.face_mask[0], record.face_valid)


@pytest.mark.parametrize(
    ("spec", "record", "field"),
    [
        (FULL_SPEC, make_record(3), "audio_features"),
        (dataclasses.replace(FULL_SPEC, audio_features=0), make_record(3), "face_features"),
        (FULL_SPEC, drop_tensors(make_feature_record(3)), "spectrogram"),
        (dataclasses.replace(FULL_SPEC, t=0), drop_tensors(make_feature_record(3)), "faces"),
    ],
)
def test_what_a_record_does_not_hold_is_named(spec, record, field):
    with pytest.raises(ValueError, match=f"clip003: field {field} is empty: the records were prepared"):
        fill_row(empty_batch(1, spec), 0, record)


def test_a_dataset_without_features_gives_none(fake_dataset):
    batch = load_batch(open_dataset(fake_dataset), np.arange(3), InputSpec(100, 70, 4, 16, 16, 3))
    assert batch.audio_features is batch.audio_features_mask is batch.face_features is None


def test_steps_cover_the_same_seconds():
    assert feature_spec_fields(SETTINGS, SHAPE, 400) == {
        "feature_steps": 100,
        "audio_features": 5,
        "face_features": 7,
    }
    assert feature_spec_fields(SETTINGS, SHAPE, 1)["feature_steps"] == 1
    assert feature_spec_fields({}, records.RecordShape(70, 16, 16), 400) == {
        "feature_steps": 0,
        "audio_features": 0,
        "face_features": 0,
    }
    settings_without_tensors = json.loads(json.dumps(SETTINGS))
    settings_without_tensors["features"]["tensors"] = "drop"
    assert spectrogram_steps(SETTINGS, 400) == spectrogram_steps(PrepSettings().to_dict(), 400) == 400
    assert spectrogram_steps(settings_without_tensors, 400) == 0
    settings_without_tensors["features"]["audio"] = None
    assert spectrogram_steps(settings_without_tensors, 400) == 400
    assert window_seconds(SETTINGS, 400, 100) == window_seconds(SETTINGS, 0, 100) == 4.0


# Augmentation


def make_feature_batch(spec, rows=32):
    batch = empty_batch(rows, spec)
    for row in range(rows - 1):  # the last stays padding
        record = make_feature_record(row)
        fill_row(batch, row, record if spec.t else drop_tensors(record))
    return jax.tree.map(jnp.asarray, batch)


@pytest.mark.parametrize("spec", [FULL_SPEC, FEATURES_ONLY_SPEC])
def test_augmentation_takes_batches_with_and_without_tensors(spec):
    config, batch = settings.experiment.augment_defaults(), make_feature_batch(spec)
    config.frames, config.audio_dropout, config.video_dropout = 2, 0.3, 0.3
    out = jax.jit(lambda b, k: apply.augment(b, k, config))(batch, jax.random.key(0))
    assert out.face_features.shape == (32, 2, 7)
    assert out.faces.shape == (32, 2, spec.h, spec.w, 3)
    assert out.audio_features.shape == batch.audio_features.shape
    has_audio, has_video = out.audio_features_mask.any(1), out.face_mask.any(1)
    assert 0 < has_audio.sum() < 31
    assert 0 < has_video.sum() < 31
    assert not (has_audio | has_video)[-1]
    if spec.t:
        np.testing.assert_array_equal(has_audio, out.audio_mask.any(1))
    assert (has_audio | has_video | (batch.face_mask.sum(1) < 4))[:-1].all()  # never both


def test_sampled_features_are_those_of_the_sampled_frames():
    batch = make_feature_batch(FULL_SPEC)
    numbered_faces = jnp.broadcast_to(jnp.arange(4, dtype=jnp.uint8)[:, None, None, None], batch.faces.shape)
    numbered_features = jnp.broadcast_to(jnp.arange(4, dtype=jnp.float16)[:, None], batch.face_features.shape)
    batch = dataclasses.replace(batch, faces=numbered_faces, face_features=numbered_features)
    out = apply.sample_frames(batch, jax.random.key(1), 3)
    sampled_frames = np.asarray(out.faces[:, :, 0, 0, 0])
    assert len(np.unique(sampled_frames)) == 4
    np.testing.assert_array_equal(out.face_features[:, :, 0], sampled_frames)


def test_one_modality_can_be_kept():
    batch = make_feature_batch(FULL_SPEC)
    video_batch, audio_batch = keep_only_modality(batch, "video"), keep_only_modality(batch, "audio")
    assert not video_batch.audio_features_mask.any()
    assert not video_batch.audio_mask.any()
    assert video_batch.face_mask.any()
    assert audio_batch.audio_features_mask.any()
    assert not audio_batch.face_mask.any()
    batch_without_features = dataclasses.replace(
        batch, audio_features=None, audio_features_mask=None, face_features=None
    )
    assert keep_only_modality(batch_without_features, "video").audio_features_mask is None
