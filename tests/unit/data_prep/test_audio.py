"""The audio frontends against their formulas in plain NumPy."""

import dataclasses

import numpy as np
import pytest

from data_prep.settings import RECIPES, AudioSettings
from data_prep.spectrogram import BLOCK_FRAMES, FRONTENDS, UNITS_PER_BEL, log_spectrogram, loud_span
from emofuse_jax.data.spectrogram_units import bin_centers_hz, units_per_neper

SETTINGS = AudioSettings()
MEL_SETTINGS, DECIBEL_SETTINGS = RECIPES["hgr"].audio, RECIPES["cross_attention"].audio


def spectrogram_formula(audio, frame):
    """One frame by the definition: a Hamming window of 640 in the middle of 800 samples, a plain DFT."""
    window = np.zeros(800)
    window[80:720] = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(640) / 640)
    padded = np.pad(audio.astype(np.float64), 400)
    segment = padded[frame * 160 : frame * 160 + 800] * window
    angles = -2j * np.pi * np.outer(np.arange(200), np.arange(800)) / 800
    return np.log(np.abs(np.exp(angles) @ segment) + SETTINGS.floor)


def slaney_filters():
    """94 triangles over a DFT of 1024 points; their corners are even in mel between 0 and 8 kHz."""
    top = 15 + 27 * np.log(8) / np.log(6.4)
    mel = np.arange(96) * top / 95
    corners = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))
    hz = np.arange(513) * 16_000 / 1024
    filters = np.zeros((94, 513))
    for i, (low, peak, high) in enumerate(zip(corners, corners[1:], corners[2:], strict=False)):
        rising, falling = (hz - low) / (peak - low), (high - hz) / (high - peak)
        filters[i] = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return filters


def mel_formula(audio, frame):
    """A Hann window of 640 in the middle of 1024 samples, a plain DFT, filters of its energies."""
    window = np.zeros(1024)
    window[192:832] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(640) / 640)
    segment = np.pad(audio.astype(np.float64), 512)[frame * 160 : frame * 160 + 1024] * window
    spectrum = np.exp(-2j * np.pi * np.outer(np.arange(513), np.arange(1024)) / 1024) @ segment
    return np.log(slaney_filters() @ np.abs(spectrum) ** 2 + 1e-10)


def decibel_formula(audio, frame):
    """A Hamming window of 512 samples, a plain DFT of which the lowest 256 bins are kept."""
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(512) / 512)
    segment = np.pad(audio.astype(np.float64), 256)[frame * 160 : frame * 160 + 512] * window
    spectrum = np.exp(-2j * np.pi * np.outer(np.arange(256), np.arange(512)) / 512) @ segment
    return 20 * np.log10(np.abs(spectrum) + 1e-5)


@pytest.mark.parametrize(
    ("settings", "formula", "bins"),
    [(MEL_SETTINGS, mel_formula, 94), (DECIBEL_SETTINGS, decibel_formula, 256)],
)
def test_other_frontends_follow_their_formulas(settings, formula, bins):
    audio = np.random.default_rng(0).normal(0, 0.1, 5000).astype(np.float32)
    audio[2000:3000] = 0
    spectrogram, _ = log_spectrogram(audio, settings)
    assert spectrogram.shape == (1 + 5000 // 160, bins)
    assert spectrogram.dtype == np.float16
    for frame in (0, 1, 12, 16, 31):
        np.testing.assert_allclose(spectrogram[frame], formula(audio, frame), rtol=2e-3, atol=4e-3)
    silent = np.log(1e-10) if settings is MEL_SETTINGS else -100
    np.testing.assert_allclose(spectrogram[16], silent, rtol=1e-3)


@pytest.mark.parametrize("name", ["fbp", "hgr", "cross_attention"])
def test_a_neper_of_a_recipe(name):
    """Sound that is e times as loud raises every number by one neper, in the recipe's own unit."""
    audio = np.random.default_rng(0).normal(0, 0.02, 5000).astype(np.float32)
    soft, loud = (log_spectrogram(factor * audio, RECIPES[name].audio)[0] for factor in (1, np.e))
    np.testing.assert_allclose(loud.astype(float) - soft, units_per_neper(name), rtol=0.01, atol=0.03)
    bel = UNITS_PER_BEL[RECIPES[name].audio.frontend]
    assert bel == pytest.approx(units_per_neper(name) * np.log(10) / 2)


def test_every_recipe_has_a_unit_and_an_unknown_one_is_an_error():
    assert all(units_per_neper(name) > 0 for name in RECIPES)
    with pytest.raises(ValueError, match=r"data.recipe: 'mine', expected one of arrays, fbp"):
        units_per_neper("mine")


@pytest.mark.parametrize("name", ["fbp", "hgr", "cross_attention"])
def test_a_tone_is_in_the_bin_that_has_its_frequency(name):
    settings = RECIPES[name].audio
    hz = bin_centers_hz(dataclasses.asdict(settings))
    for tone_hz in (300.0, 1000.0, 3000.0):
        audio = np.sin(2 * np.pi * tone_hz * np.arange(16_000) / 16_000).astype(np.float32)
        spectrogram, _ = log_spectrogram(audio, settings)
        assert (spectrogram[5:-5].argmax(1) == np.abs(hz - tone_hz).argmin()).all()


def test_frames_follow_the_formula():
    audio = np.random.default_rng(0).normal(0, 0.1, 5000).astype(np.float32)
    spectrogram, level = log_spectrogram(audio, SETTINGS)
    assert spectrogram.shape == (1 + 5000 // 160, 200)
    assert spectrogram.dtype == np.float16
    for frame in (0, 1, 15, 31):
        np.testing.assert_allclose(
            spectrogram[frame], spectrogram_formula(audio, frame), rtol=2e-3, atol=2e-3
        )
    assert level == pytest.approx(np.sqrt(np.mean(audio.astype(np.float64) ** 2)), rel=1e-6)


def test_a_tone_is_in_its_bin():
    audio = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
    spectrogram, _ = log_spectrogram(audio, SETTINGS)
    assert (spectrogram[5:-5].argmax(1) == 50).all()  # 1000 Hz / (16000 Hz / 800)


@pytest.mark.parametrize("settings", [MEL_SETTINGS, DECIBEL_SETTINGS], ids=lambda settings: settings.frontend)
def test_blocks_of_other_frontends_equal_one_pass(settings):
    audio = np.random.default_rng(1).normal(0, 0.1, (BLOCK_FRAMES + 77) * 160 + 31).astype(np.float32)
    in_one_pass, _ = log_spectrogram(audio, settings)
    in_blocks, _ = log_spectrogram(iter(np.array_split(audio, 23)), settings)
    assert len(in_one_pass) == 1 + len(audio) // 160
    np.testing.assert_array_equal(in_one_pass, in_blocks)


def test_blocks_equal_one_pass():
    audio = np.random.default_rng(1).normal(0, 0.1, (2 * BLOCK_FRAMES + 77) * 160 + 31).astype(np.float32)
    in_one_pass, level = log_spectrogram(audio, SETTINGS)
    cuts = np.sort(np.random.default_rng(2).integers(0, len(audio), 40))
    in_blocks, level_of_blocks = log_spectrogram(iter(np.split(audio, cuts)), SETTINGS)
    assert len(in_one_pass) == 1 + len(audio) // 160
    np.testing.assert_array_equal(in_one_pass, in_blocks)
    assert level == pytest.approx(level_of_blocks)
    for frame in (BLOCK_FRAMES - 1, BLOCK_FRAMES, 2 * BLOCK_FRAMES):  # at the seams too
        np.testing.assert_allclose(
            in_one_pass[frame], spectrogram_formula(audio, frame), rtol=2e-3, atol=2e-3
        )


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 800])
def test_short_sound_gives_frames(samples):
    spectrogram, _ = log_spectrogram(np.full(samples, 0.1, np.float32), SETTINGS)
    assert spectrogram.shape == (1 + samples // 160, 200)
    assert np.isfinite(spectrogram).all()


@pytest.mark.parametrize(
    "settings", [SETTINGS, MEL_SETTINGS, DECIBEL_SETTINGS], ids=lambda settings: settings.frontend
)
@pytest.mark.parametrize("value", [0.0, 1.0, 1e20])
def test_float16_holds_the_softest_and_the_loudest(value, settings):
    spectrogram, _ = log_spectrogram(np.full(4000, value, np.float32), settings)
    assert np.isfinite(spectrogram).all()


def test_unknown_frontend():
    with pytest.raises(ValueError, match=f"'mel': expected one of {', '.join(FRONTENDS)}"):
        log_spectrogram(np.zeros(1000, np.float32), AudioSettings(frontend="mel"))
    with pytest.raises(ValueError, match="audio frontend 'mel': expected one of"):
        loud_span(np.zeros((3, 200), np.float16), AudioSettings(frontend="mel", trim_db=30.0))
    with pytest.raises(ValueError, match="window='x'"):
        log_spectrogram(np.zeros(1000, np.float32), AudioSettings(window="x"))
