"""Speed, pitch, noise and rooms: what each does to a known spectrogram."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emofuse_jax import settings
from emofuse_jax.data.augment import audio_effects
from tests.support.small_models import SPEC, small_model


def make_audio_batch(audio, mask=None):
    """Clips with this sound [b t f]."""
    model, *_ = small_model("concat")
    fake_batch = jax.tree.map(jnp.asarray, model.fake_batch(len(audio)))
    mask = np.ones(audio.shape[:2], bool) if mask is None else mask
    audio = np.where(mask[..., None], audio, 0)
    return dataclasses.replace(
        fake_batch, audio=jnp.asarray(audio, jnp.float32), audio_mask=jnp.asarray(mask)
    )


def test_a_window_lies_inside_the_audio():
    ramp = np.broadcast_to(np.arange(100.0)[:, None], (200, 100, 2))
    mask = np.arange(100) < np.where(np.arange(200) < 100, 60, 20)[:, None]
    out = audio_effects.crop_time(make_audio_batch(ramp, mask), jax.random.key(0), 40)
    audio, length = np.asarray(out.audio)[..., 0], np.asarray(out.audio_mask).sum(1)
    assert audio.shape == (200, 40)
    assert (length == np.where(np.arange(200) < 100, 40, 20)).all()
    np.testing.assert_array_equal(audio[:100], audio[:100, :1] + np.arange(40))
    assert {*audio[:100, 0]} == {*range(21)}
    assert (audio[100:, :20] == np.arange(20)).all()
    with pytest.raises(ValueError, match=r"augment\.crop=101: expected at most 100"):
        audio_effects.crop_time(make_audio_batch(ramp, mask), jax.random.key(0), 101)


def test_speed_changes_the_duration_and_not_the_content():
    ramp = np.broadcast_to(np.arange(100.0)[:, None], (64, 100, 5))
    mask = np.broadcast_to(np.arange(100) < 60, (64, 100))
    out = audio_effects.change_speed(make_audio_batch(ramp, mask), jax.random.key(0), 0.3)
    length, audio = np.asarray(out.audio_mask).sum(1), np.asarray(out.audio)
    assert length.min() < 50 < 70 < length.max() <= 80
    for row, n in zip(audio, length, strict=True):
        rate = row[1, 0]
        assert n == pytest.approx(59 / rate + 1, abs=1)
        np.testing.assert_allclose(row[:n, 0], rate * np.arange(n), rtol=1e-4)
        assert not row[n:].any()


def test_speed_of_a_clip_without_audio_is_nothing():
    out = audio_effects.change_speed(
        make_audio_batch(np.ones((3, 20, 4)), np.zeros((3, 20), bool)), jax.random.key(0), 0.2
    )
    assert not np.asarray(out.audio_mask).any()
    assert np.isfinite(np.asarray(out.audio)).all()


def test_pitch_moves_a_tone():
    tone = np.zeros((64, 10, 80))
    tone[:, :, 40] = 1.0
    out = np.asarray(audio_effects.shift_pitch(make_audio_batch(tone), jax.random.key(0), 0.2).audio)
    peaks = out[:, 0].argmax(1)
    assert 31 <= peaks.min() < 36
    assert 44 < peaks.max() <= 50
    assert (out == out[:, :1]).all()


def test_styles_are_mixed_and_the_course_in_time_stays():
    rng = np.random.default_rng(0)
    audio = rng.normal(size=(200, 30, 4)) * rng.uniform(0.5, 2, (200, 1, 4)) + rng.normal(size=(200, 1, 4))
    mask = np.ones((200, 30), bool)
    mask[:, 20:], mask[7] = False, False
    out = np.asarray(
        audio_effects.mix_style(make_audio_batch(audio, mask), jax.random.key(0), 0.6).audio, np.float64
    )
    before, after = np.where(mask[..., None], audio, 0)[:, :20], out[:, :20]

    def standardize(x):
        return (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)

    has_audio = np.arange(200) != 7
    np.testing.assert_allclose(standardize(after[has_audio]), standardize(before[has_audio]), atol=1e-3)
    is_changed = (np.abs(after - before) > 1e-3).any((1, 2))
    assert 0.4 < is_changed.mean() < 0.75
    assert not is_changed[[7, 192]].any()
    mixed_fraction = ((after - before[::-1]).mean(1) / (before - before[::-1]).mean(1))[is_changed]
    np.testing.assert_allclose(
        mixed_fraction, np.broadcast_to(mixed_fraction[:, :1], mixed_fraction.shape), atol=1e-2
    )
    assert mixed_fraction.min() > -1e-3
    assert mixed_fraction.max() < 1 + 1e-3


def test_an_equalizer_moves_bins_of_a_clip_alike_over_time_and_smoothly():
    audio = np.random.default_rng(0).normal(size=(64, 9, 41))
    out = audio_effects.equalize(make_audio_batch(audio), jax.random.key(0), 1.5)
    curve = np.asarray(out.audio) - audio
    np.testing.assert_allclose(curve, np.broadcast_to(curve[:, :1], curve.shape), atol=1e-5)
    assert 1.3 < np.abs(curve).max() <= 1.5 + 1e-5
    bends = np.abs(np.diff(curve[:, 0], n=2)).max(0)
    assert (np.flatnonzero(bends > 1e-4) + 1).tolist() == [10, 20, 30]


@pytest.mark.parametrize("neper", [1.0, 2.0, 8.686])
def test_noise_has_the_requested_power(neper):
    power = np.random.default_rng(0).exponential(size=(4, 400, 60))
    batch, snr = make_audio_batch(np.log(power) * neper / 2), jnp.array([-5.0, 0.0, 10.0, 20.0])
    noisy = audio_effects.noisy_spectrogram(
        batch, jax.random.key(1), snr, jnp.array([-2.0, 0, 0, 2]), units_per_neper=neper
    )
    noise_power = np.exp(np.asarray(noisy, np.float64) * 2 / neper) - power
    expected = power.mean((1, 2)) * 10 ** (-np.asarray(snr) / 10)
    np.testing.assert_allclose(noise_power.mean((1, 2)), expected, rtol=0.05)
    slope = np.log10(noise_power.mean(1)[:, -1] / noise_power.mean(1)[:, 0])
    np.testing.assert_allclose(slope, [-2, 0, 0, 2], atol=0.2)


def test_noise_and_rooms_are_as_frequent_as_requested():
    batch = make_audio_batch(np.random.default_rng(0).normal(size=(400, 30, 6)))
    for augment, options in (
        (audio_effects.add_noise, {"snr_range_db": (0.0, 10.0)}),
        (audio_effects.reverberate, {"steps": 40}),
    ):
        out = augment(batch, jax.random.key(2), 0.25, units_per_neper=2.0, **options)
        is_changed = (np.asarray(out.audio) != np.asarray(batch.audio)).any((1, 2))
        assert 0.17 < is_changed.mean() < 0.33


def test_a_room_adds_a_tail_that_falls_by_60_db_in_its_time():
    """An impulse comes back as `g a^k`, with the sum of it 0 to 15 dB below."""
    power = np.full((200, 120, 1), 1e-12)
    power[:, 10] = 1.0
    out = audio_effects.reverberate(
        make_audio_batch(np.log(power)), jax.random.key(0), 1.0, steps=60, units_per_neper=2.0
    )
    tail = np.exp(np.asarray(out.audio, np.float64))[:, 11:, 0]
    slope = np.log10(tail[:, 3] / tail[:, 2])  # bels a step
    assert -6 / 9 < slope.min() < -0.3
    assert -0.14 < slope.max() < -6 / 61
    tail_db = 10 * np.log10(tail.sum(1))
    assert -15.2 < tail_db.min() < -10 < -5 < tail_db.max() < 0.1
    before = np.exp(np.asarray(out.audio, np.float64))[:, :11]
    np.testing.assert_allclose(before, power[:, :11], rtol=1e-5, atol=1e-11)


def test_all_of_them_together_are_finite_and_keep_padding():
    config = settings.experiment.augment_defaults()
    config.update(
        {"crop": 100, "speed": 0.1, "pitch": 0.1, "reverb": 0.5, "noise": 0.5, "equalizer": 0.5, "style": 0.5}
    )
    rng = np.random.default_rng(0)
    mask = np.arange(SPEC.t) < rng.integers(0, SPEC.t, 32)[:, None]
    batch = make_audio_batch(rng.normal(-8, 4, (32, SPEC.t, SPEC.f)), mask)
    batch = dataclasses.replace(batch, audio=batch.audio.astype(jnp.float16))
    out = jax.jit(lambda b, k: audio_effects.augment_audio(b, k, config, units_per_neper=2.0))(
        batch, jax.random.key(0)
    )
    assert out.audio.dtype == jnp.float16
    assert np.isfinite(np.asarray(out.audio, np.float32)).all()
    assert not np.asarray(out.audio)[~np.asarray(out.audio_mask)].any()
    assert out.audio.shape[1] == 100
    assert (np.asarray(out.audio_mask).any(1) == mask.any(1)).all()
