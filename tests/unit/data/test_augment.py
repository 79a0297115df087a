import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emofuse_jax import settings
from emofuse_jax.data.augment import apply, audio_effects
from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.data.pipeline import load_batch
from emofuse_jax.types import InputSpec


@pytest.fixture
def batch(fake_dataset):
    spec = InputSpec(t=120, f=70, s=4, h=16, w=16, classes=3)
    clips = np.append(np.arange(31), -1)
    return jax.tree.map(jnp.asarray, load_batch(open_dataset(fake_dataset), clips, spec))


def test_all_together_keep_shapes_masks_and_padding(batch):
    config = settings.experiment.augment_defaults()
    config.frames = 2
    out = jax.jit(lambda b, k: apply.augment(b, k, config))(batch, jax.random.key(0))
    assert out.faces.shape == (32, 2, 16, 16, 3)
    assert out.faces.dtype == jnp.uint8
    assert out.audio.dtype == batch.audio.dtype
    assert np.isfinite(np.asarray(out.audio, np.float32)).all()
    assert not np.asarray(out.audio, np.float32)[~np.asarray(batch.audio_mask)].any()
    assert not out.face_mask[-1].any()
    for name in ("label", "weight", "clip", "speaker"):
        np.testing.assert_array_equal(getattr(out, name), getattr(batch, name))


def test_zeros_turn_everything_off(batch):
    config = settings.experiment.augment_defaults()
    for name in config:
        config[name] = type(config[name])(0)
    out = apply.augment(batch, jax.random.key(0), config)
    jax.tree.map(np.testing.assert_array_equal, out, batch)


def test_sampled_frames_come_one_from_each_part_and_carry_their_mask(batch):
    numbered_faces = jnp.broadcast_to(jnp.arange(4, dtype=jnp.uint8)[:, None, None, None], batch.faces.shape)
    sampled_frames = set()
    for seed in range(20):
        out = apply.sample_frames(dataclasses.replace(batch, faces=numbered_faces), jax.random.key(seed), 2)
        chosen = np.asarray(out.faces[:, :, 0, 0, 0])
        assert (chosen[:, 0] < 2).all()
        assert (chosen[:, 1] >= 2).all()
        rows = np.arange(32)[:, None]
        np.testing.assert_array_equal(out.face_mask, np.asarray(batch.face_mask)[rows, chosen])
        sampled_frames |= set(chosen.ravel().tolist())
    assert sampled_frames == {0, 1, 2, 3}


def test_more_frames_than_there_are_is_named(batch):
    with pytest.raises(ValueError, match=r"augment\.frames=9"):
        apply.sample_frames(batch, jax.random.key(0), 9)


def test_flip_mirrors_all_frames_of_about_half_of_the_clips(batch):
    out = apply.flip_faces(batch, jax.random.key(1))
    is_mirrored = (np.asarray(out.faces) == np.asarray(batch.faces)[:, :, :, ::-1]).all((1, 2, 3, 4))
    is_unchanged = (np.asarray(out.faces) == np.asarray(batch.faces)).all((1, 2, 3, 4))
    assert (is_mirrored | is_unchanged).all()
    assert 6 < (is_mirrored & ~is_unchanged).sum() < 26


def test_shift_moves_all_frames_of_a_clip_alike(batch):
    square = jnp.zeros_like(batch.faces).at[:, :, 6:10, 6:10].set(255)
    out = np.asarray(apply.shift_faces(dataclasses.replace(batch, faces=square), jax.random.key(2), 3).faces)
    assert (out == out[:, :1]).all()
    assert (out.reshape(32, -1).sum(1) == out[0].sum()).all()
    assert len({out[i].tobytes() for i in range(32)}) > 10


def test_stripes_stay_inside_the_audio(batch):
    length = jnp.array([0, 5, 50, 100])
    stripes = np.asarray(audio_effects.random_intervals(jax.random.key(3), 4, 100, length, 3, 20))
    for row, n in enumerate(length):
        assert not stripes[row, int(n) :].any()
    assert stripes[3].any()
    assert stripes.sum(1).max() <= 60


def test_modality_dropout_takes_one_stream_never_both(batch):
    large_batch = jax.tree.map(lambda x: jnp.concatenate([x[:31]] * 40), batch)
    out = apply.modality_dropout(large_batch, jax.random.key(4), audio_rate=0.3, video_rate=0.2)
    no_audio = ~np.asarray(out.audio_mask).any(1)
    no_video = ~np.asarray(out.face_mask).any(1)
    assert not (no_audio & no_video).any()
    assert abs(no_audio.mean() - 0.3) < 0.05
    assert abs(no_video.mean() - 0.2) < 0.05


def test_modality_dropout_leaves_a_clip_the_only_stream_it_has(batch):
    large_batch = jax.tree.map(lambda x: jnp.concatenate([x[:31]] * 8), batch)
    silent = dataclasses.replace(large_batch, audio_mask=jnp.zeros_like(large_batch.audio_mask))
    out = apply.modality_dropout(silent, jax.random.key(4), audio_rate=0.3, video_rate=0.6)
    np.testing.assert_array_equal(out.face_mask, silent.face_mask)
    faceless = dataclasses.replace(large_batch, face_mask=jnp.zeros_like(large_batch.face_mask))
    out = apply.modality_dropout(faceless, jax.random.key(4), audio_rate=0.3, video_rate=0.6)
    np.testing.assert_array_equal(out.audio_mask, faceless.audio_mask)
