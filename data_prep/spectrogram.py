"""The audio frontends: sound to a spectrogram on a logarithmic scale."""

import functools
import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Complex, Float

from data_prep.settings import AudioSettings

SILENCE_RMS = 1e-4
"""Root mean square below which there is nothing to hear: -80 dB of full scale."""
TRIM_MARGIN_SECONDS = 0.1
"""Seconds that stay before and after what is trimmed to."""
BLOCK_FRAMES = 256
"""Spectrogram frames computed at once, so that memory does not grow with the clip's samples."""
UNITS_PER_BEL = {
    "log_spectrogram_v1": math.log(10) / 2,
    "log_mel_v1": math.log(10),
    "db_spectrogram_v1": 10.0,
}
"""What a frontend's numbers rise by when the sound has ten times the power."""


def log_spectrogram(
    audio: Float[np.ndarray, " n"] | Iterable[Float[np.ndarray, " n"]], settings: AudioSettings
) -> tuple[Float[np.ndarray, "t f"], float]:
    """The spectrogram and the sound's root mean square; frame i is centred on second i * hop.

    ``X[i, j] = sum_m w[m] x[i hop + m - dft/2] exp(-2 pi i j m / dft)``, t = 1 + n // hop; outside the sound
    there are zeros, so that a single sample gives a frame. By `settings.frontend`:

    - ``log_spectrogram_v1``: ``log(|X| + floor)``, nepers
    - ``log_mel_v1``: ``log(M |X|^2 + floor)``, M the area-normalised Slaney mel filters up to half the rate
    - ``db_spectrogram_v1``: ``20 log10(|X| + floor)``, decibels

    Args:
        audio: mono samples at `settings.sample_rate`, whole or block by block.
        settings: window and hop in ms, DFT length, number of lowest bins kept, or of mel filters.

    Returns:
        float16 [t f], and the root mean square.

    Raises:
        ValueError: on a frontend of another name.
    """
    if settings.frontend not in FRONTENDS:
        raise ValueError(f"audio frontend {settings.frontend!r}: expected one of {', '.join(FRONTENDS)}")
    blocks = [audio] if isinstance(audio, np.ndarray) else audio
    hop = round(settings.sample_rate * settings.hop_ms / 1000)
    padding = np.zeros(settings.dft // 2, np.float32)
    # frame_bytes grows in place: half an hour is 72 MB
    buffered_samples, frame_bytes, energy, num_samples = padding, bytearray(), 0.0, 0
    for block in blocks:
        energy += float(np.square(block, dtype=np.float64).sum())
        num_samples += len(block)
        buffered_samples = np.concatenate([buffered_samples, block])
        while len(buffered_samples) >= BLOCK_FRAMES * hop + settings.dft:
            frame_bytes += _spectrogram_frames(
                buffered_samples[: (BLOCK_FRAMES - 1) * hop + settings.dft], settings, hop
            ).tobytes()
            buffered_samples = buffered_samples[BLOCK_FRAMES * hop :]
    frame_bytes += _spectrogram_frames(np.concatenate([buffered_samples, padding]), settings, hop).tobytes()
    rms = float(np.sqrt(energy / max(num_samples, 1)))
    return np.frombuffer(frame_bytes, np.float16).reshape(-1, settings.bins), rms


def loud_span(spectrogram: Float[np.ndarray, "t f"], settings: AudioSettings) -> slice:
    """Returns the frames from TRIM_MARGIN_SECONDS before the first loud one to as long after the last.

    A frame is loud when its level is within `trim_db` of the loudest frame's. Its level is that of its
    bins' powers together. Where `trim_db` is 0, all frames stay.

    Args:
        spectrogram: of `log_spectrogram`.
        settings: of it.
    """
    if not settings.trim_db:
        return slice(0, len(spectrogram))
    bels = spectrogram.astype(np.float64) / UNITS_PER_BEL[settings.frontend]
    level_db = 10 * np.log10(np.sum(10**bels, axis=1))
    loud_frames = np.flatnonzero(level_db >= level_db.max() - settings.trim_db)
    margin_frames = round(1000 * TRIM_MARGIN_SECONDS / settings.hop_ms)
    return slice(
        max(int(loud_frames[0]) - margin_frames, 0),
        min(int(loud_frames[-1]) + margin_frames + 1, len(spectrogram)),
    )


def _spectrogram_frames(samples: Float[np.ndarray, " n"], settings: AudioSettings, hop: int):
    """The spectrogram of the frames that lie wholly in `samples`."""
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
    return FRONTENDS[settings.frontend](spectrum, settings).T.astype(np.float16)


def _log_magnitude(spectrum: Complex[np.ndarray, "j t"], settings: AudioSettings) -> Float[np.ndarray, "f t"]:
    return np.log(np.abs(spectrum[: settings.bins]) + settings.floor)


def _log_mel(spectrum: Complex[np.ndarray, "j t"], settings: AudioSettings) -> Float[np.ndarray, "f t"]:
    power = np.square(np.abs(spectrum), dtype=np.float64)  # float32 has no room for the square of 1e20
    return np.log(mel_filters(settings.sample_rate, settings.dft, settings.bins) @ power + settings.floor)


def _magnitude_db(spectrum: Complex[np.ndarray, "j t"], settings: AudioSettings) -> Float[np.ndarray, "f t"]:
    return 20 / math.log(10) * _log_magnitude(spectrum, settings)


@functools.lru_cache(maxsize=4)
def mel_filters(sample_rate: int, dft: int, num_filters: int) -> Float[np.ndarray, "f j"]:
    """Triangles of equal area between 0 Hz and half the rate, on Slaney's mel scale."""
    import librosa

    return librosa.filters.mel(
        sr=sample_rate,
        n_fft=dft,
        n_mels=num_filters,
        fmin=0.0,
        fmax=sample_rate / 2,
        htk=False,
        norm="slaney",
    )


FRONTENDS = {"log_spectrogram_v1": _log_magnitude, "log_mel_v1": _log_mel, "db_spectrogram_v1": _magnitude_db}
"""Function of each frontend, from the spectrum [j t] to the spectrogram [f t]."""
