"""Speed, pitch, noise and rooms: what each does to a known spectrogram."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emofuse_jax import settings
from emofuse_jax.data.augment import audio_effects
from tests.models.small import SPEC, small_model


def batch_of(audio, mask=None):
    """Clips with this sound [b t f]."""
    model, *_ = small_model("concat")
    made = jax.tree.map(jnp.asarray, model.fake_batch(len(audio)))
    mask = np.ones(audio.shape[:2], bool) if mask is None else mask
    audio = np.where(mask[..., None], audio, 0)
    return dataclasses.replace(made, audio=jnp.asarray(audio, jnp.float32), audio_mask=jnp.asarray(mask))


def test_a_window_lies_inside_the_sound():
    ramp = np.broadcast_to(np.arange(100.0)[:, None], (200, 100, 2))
    mask = np.arange(100) < np.where(np.arange(200) < 100, 60, 20)[:, None]
    out = audio_effects.crop_time(batch_of(ramp, mask), jax.random.key(0), 40)
    audio, length = np.asarray(out.audio)[..., 0], np.asarray(out.audio_mask).sum(1)
    assert audio.shape == (200, 40)
    assert (length == np.where(np.arange(200) < 100, 40, 20)).all()
    np.testing.assert_array_equal(audio[:100], audio[:100, :1] + np.arange(40))
    assert {*audio[:100, 0]} == {*range(21)}
    assert (audio[100:, :20] == np.arange(20)).all()
    with pytest.raises(ValueError, match=r"augment\.crop=101: clips have 100 steps"):
        audio_effects.crop_time(batch_of(ramp, mask), jax.random.key(0), 101)


def test_speed_keeps_what_is_said_and_changes_how_long_it_takes():
    ramp = np.broadcast_to(np.arange(100.0)[:, None], (64, 100, 5))
    mask = np.broadcast_to(np.arange(100) < 60, (64, 100))
    out = audio_effects.change_speed(batch_of(ramp, mask), jax.random.key(0), 0.3)
    length, audio = np.asarray(out.audio_mask).sum(1), np.asarray(out.audio)
    assert length.min() < 50 < 70 < length.max() <= 80
    for row, n in zip(audio, length, strict=True):
        rate = row[1, 0]
        assert n == pytest.approx(59 / rate + 1, abs=1)
        np.testing.assert_allclose(row[:n, 0], rate * np.arange(n), rtol=1e-4)
        assert not row[n:].any()


def test_speed_of_a_clip_without_sound_is_nothing():
    out = audio_effects.change_speed(
        batch_of(np.ones((3, 20, 4)), np.zeros((3, 20), bool)), jax.random.key(0), 0.2
    )
    assert not np.asarray(out.audio_mask).any()
    assert np.isfinite(np.asarray(out.audio)).all()


def test_pitch_moves_a_tone():
    tone = np.zeros((64, 10, 80))
    tone[:, :, 40] = 1.0
    out = np.asarray(audio_effects.shift_pitch(batch_of(tone), jax.random.key(0), 0.2).audio)
    peaks = out[:, 0].argmax(1)
    assert 31 <= peaks.min() < 36
    assert 44 < peaks.max() <= 50
    assert (out == out[:, :1]).all()


def test_styles_are_mixed_and_the_course_in_time_stays():
    rng = np.random.default_rng(0)
    audio = rng.normal(size=(200, 30, 4)) * rng.uniform(0.5, 2, (200, 1, 4)) + rng.normal(size=(200, 1, 4))
    mask = np.ones((200, 30), bool)
    mask[:, 20:], mask[7] = False, False
    out = np.asarray(audio_effects.mix_style(batch_of(audio, mask), jax.random.key(0), 0.6).audio, np.float64)
    before, after = np.where(mask[..., None], audio, 0)[:, :20], out[:, :20]

    def standard(x):
        return (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)

    heard = np.arange(200) != 7
    np.testing.assert_allclose(standard(after[heard]), standard(before[heard]), atol=1e-3)
    changed = (np.abs(after - before) > 1e-3).any((1, 2))
    assert 0.4 < changed.mean() < 0.75
    assert not changed[[7, 192]].any()
    share = ((after - before[::-1]).mean(1) / (before - before[::-1]).mean(1))[changed]
    np.testing.assert_allclose(share, np.broadcast_to(share[:, :1], share.shape), atol=1e-2)
    assert share.min() > -1e-3
    assert share.max() < 1 + 1e-3


def test_an_equalizer_moves_bins_of_a_clip_alike_over_time_and_smoothly():
    audio = np.random.default_rng(0).normal(size=(64, 9, 41))
    out = audio_effects.equalize(batch_of(audio), jax.random.key(0), 1.5)
    curve = np.asarray(out.audio) - audio
    np.testing.assert_allclose(curve, np.broadcast_to(curve[:, :1], curve.shape), atol=1e-5)
    assert 1.3 < np.abs(curve).max() <= 1.5 + 1e-5
    bends = np.abs(np.diff(curve[:, 0], n=2)).max(0)
    assert (np.flatnonzero(bends > 1e-4) + 1).tolist() == [10, 20, 30]


@pytest.mark.parametrize("neper", [1.0, 2.0, 8.686])
def test_noise_has_the_power_that_was_asked_for(neper):
    power = np.random.default_rng(0).exponential(size=(4, 400, 60))
    batch, snr = batch_of(np.log(power) * neper / 2), jnp.array([-5.0, 0.0, 10.0, 20.0])
    noisy = audio_effects.noisy_spectrogram(
        batch, jax.random.key(1), snr, jnp.array([-2.0, 0, 0, 2]), units_per_neper=neper
    )
    found = np.exp(np.asarray(noisy, np.float64) * 2 / neper) - power
    expected = power.mean((1, 2)) * 10 ** (-np.asarray(snr) / 10)
    np.testing.assert_allclose(found.mean((1, 2)), expected, rtol=0.05)
    slope = np.log10(found.mean(1)[:, -1] / found.mean(1)[:, 0])
    np.testing.assert_allclose(slope, [-2, 0, 0, 2], atol=0.2)


def test_noise_and_rooms_come_as_often_as_was_asked_for():
    batch = batch_of(np.random.default_rng(0).normal(size=(400, 30, 6)))
    for function, more in (
        (audio_effects.add_noise, {"snr_range_db": (0.0, 10.0)}),
        (audio_effects.reverberate, {"steps": 40}),
    ):
        out = function(batch, jax.random.key(2), 0.25, units_per_neper=2.0, **more)
        changed = (np.asarray(out.audio) != np.asarray(batch.audio)).any((1, 2))
        assert 0.17 < changed.mean() < 0.33


def test_a_room_adds_a_tail_that_falls_by_60_db_in_its_time():
    """An impulse comes back as `g a^k`, with the sum of it 0 to 15 dB below."""
    power = np.full((200, 120, 1), 1e-12)
    power[:, 10] = 1.0
    out = audio_effects.reverberate(
        batch_of(np.log(power)), jax.random.key(0), 1.0, steps=60, units_per_neper=2.0
    )
    tail = np.exp(np.asarray(out.audio, np.float64))[:, 11:, 0]
    slope = np.log10(tail[:, 3] / tail[:, 2])  # bels a step
    assert -6 / 9 < slope.min() < -0.3
    assert -0.14 < slope.max() < -6 / 61
    returned = 10 * np.log10(tail.sum(1))
    assert -15.2 < returned.min() < -10 < -5 < returned.max() < 0.1
    before = np.exp(np.asarray(out.audio, np.float64))[:, :11]
    np.testing.assert_allclose(before, power[:, :11], rtol=1e-5, atol=1e-11)


def test_all_of_them_together_are_finite_and_keep_padding():
    config = settings.experiment.augment_defaults()
    config.update(
        {"crop": 100, "speed": 0.1, "pitch": 0.1, "reverb": 0.5, "noise": 0.5, "equalizer": 0.5, "style": 0.5}
    )
    rng = np.random.default_rng(0)
    mask = np.arange(SPEC.t) < rng.integers(0, SPEC.t, 32)[:, None]
    batch = batch_of(rng.normal(-8, 4, (32, SPEC.t, SPEC.f)), mask)
    batch = dataclasses.replace(batch, audio=batch.audio.astype(jnp.float16))
    out = jax.jit(lambda b, k: audio_effects.augment_audio(b, k, config, units_per_neper=2.0))(
        batch, jax.random.key(0)
    )
    assert out.audio.dtype == jnp.float16
    assert np.isfinite(np.asarray(out.audio, np.float32)).all()
    assert not np.asarray(out.audio)[~np.asarray(out.audio_mask)].any()
    assert out.audio.shape[1] == 100
    assert (np.asarray(out.audio_mask).any(1) == mask.any(1)).all()
