"""The audio frontend: sound to a log-magnitude spectrogram."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from data_prep.settings import AudioSettings

SILENCE = 1e-4
"""Root mean square below which there is nothing to hear: -80 dB of full scale."""
BLOCK = 256
"""Spectrogram frames computed at once, so that memory does not grow with the clip's samples."""


def log_spectrogram(
    sound: Float[np.ndarray, " n"] | Iterable[Float[np.ndarray, " n"]], settings: AudioSettings
) -> tuple[Float[np.ndarray, "t f"], float]:
    """Log magnitudes and the sound's root mean square; frame i is centred on second i * hop.

    ``S[i, j] = log(|sum_m w[m] x[i hop + m - dft/2] exp(-2 pi i j m / dft)| + floor)``,
    t = 1 + n // hop; outside the sound there are zeros, so that a single sample gives a frame.

    Args:
        sound: mono samples at `settings.sample_rate`, whole or block by block.
        settings: window and hop in ms, DFT length, number of lowest bins kept.

    Returns:
        float16 [t f], and the root mean square.

    Raises:
        ValueError: on a frontend of another name.
    """
    if settings.frontend != "log_spectrogram_v1":
        raise ValueError(f"audio frontend {settings.frontend!r}: expected 'log_spectrogram_v1'")
    blocks = [sound] if isinstance(sound, np.ndarray) else sound
    hop = round(settings.sample_rate * settings.hop_ms / 1000)
    edge = np.zeros(settings.dft // 2, np.float32)
    held, parts, energy, count = edge, [], 0.0, 0
    for block in blocks:
        energy += float(np.square(block, dtype=np.float64).sum())
        count += len(block)
        held = np.concatenate([held, block])
        while len(held) >= BLOCK * hop + settings.dft:
            parts.append(_frames(held[: (BLOCK - 1) * hop + settings.dft], settings, hop))
            held = held[BLOCK * hop :]
    parts.append(_frames(np.concatenate([held, edge]), settings, hop))
    return np.concatenate(parts), float(np.sqrt(energy / max(count, 1)))


def _frames(samples: Float[np.ndarray, " n"], settings: AudioSettings, hop: int):
    """Log magnitudes of the frames that lie wholly in `samples`."""
    import librosa  # its first call takes a second

    if len(samples) < settings.dft:
        return np.zeros((0, settings.bins), np.float16)
    spectrum = librosa.stft(
        samples,
        n_fft=settings.dft,
        hop_length=hop,
        win_length=round(settings.sample_rate * settings.window_ms / 1000),
        window=settings.window,
        center=False,
    )
    return np.log(np.abs(spectrum[: settings.bins]) + settings.floor).T.astype(np.float16)
