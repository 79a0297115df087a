"""The audio frontend against the formula in plain NumPy."""

import numpy as np
import pytest

from data_prep.audio import BLOCK, log_spectrogram
from data_prep.settings import AudioSettings

SETTINGS = AudioSettings()


def formula(sound, frame):
    """One frame by the definition: a Hamming window of 640 in the middle of 800 samples, a plain DFT."""
    window = np.zeros(800)
    window[80:720] = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(640) / 640)
    padded = np.pad(sound.astype(np.float64), 400)
    piece = padded[frame * 160 : frame * 160 + 800] * window
    angles = -2j * np.pi * np.outer(np.arange(200), np.arange(800)) / 800
    return np.log(np.abs(np.exp(angles) @ piece) + SETTINGS.floor)


def test_frames_follow_the_formula():
    sound = np.random.default_rng(0).normal(0, 0.1, 5000).astype(np.float32)
    spectrogram, level = log_spectrogram(sound, SETTINGS)
    assert spectrogram.shape == (1 + 5000 // 160, 200)
    assert spectrogram.dtype == np.float16
    for frame in (0, 1, 15, 31):
        np.testing.assert_allclose(spectrogram[frame], formula(sound, frame), rtol=2e-3, atol=2e-3)
    assert level == pytest.approx(np.sqrt(np.mean(sound.astype(np.float64) ** 2)), rel=1e-6)


def test_a_tone_is_in_its_bin():
    sound = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
    spectrogram, _ = log_spectrogram(sound, SETTINGS)
    assert (spectrogram[5:-5].argmax(1) == 50).all()  # 1000 Hz / (16000 Hz / 800)


def test_blocks_give_what_the_whole_gives():
    sound = np.random.default_rng(1).normal(0, 0.1, (2 * BLOCK + 77) * 160 + 31).astype(np.float32)
    whole, level = log_spectrogram(sound, SETTINGS)
    cuts = np.sort(np.random.default_rng(2).integers(0, len(sound), 40))
    parts, level_of_parts = log_spectrogram(iter(np.split(sound, cuts)), SETTINGS)
    assert len(whole) == 1 + len(sound) // 160
    np.testing.assert_array_equal(whole, parts)
    assert level == pytest.approx(level_of_parts)
    for frame in (BLOCK - 1, BLOCK, 2 * BLOCK):  # at the seams too
        np.testing.assert_allclose(whole[frame], formula(sound, frame), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 800])
def test_short_sound_gives_frames(samples):
    spectrogram, _ = log_spectrogram(np.full(samples, 0.1, np.float32), SETTINGS)
    assert spectrogram.shape == (1 + samples // 160, 200)
    assert np.isfinite(spectrogram).all()


@pytest.mark.parametrize("value", [0.0, 1.0, 1e20])
def test_float16_holds_the_softest_and_the_loudest(value):
    spectrogram, _ = log_spectrogram(np.full(4000, value, np.float32), SETTINGS)
    assert np.isfinite(spectrogram).all()


def test_unknown_frontend():
    with pytest.raises(ValueError, match="'mel'"):
        log_spectrogram(np.zeros(1000, np.float32), AudioSettings(frontend="mel"))
