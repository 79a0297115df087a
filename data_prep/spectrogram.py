"""Computes logarithmic spectrograms from audio, with one of three frontends."""

import functools
import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Complex, Float, Float16

from data_prep.settings import AudioSettings

SILENCE_RMS = 1e-4
"""Root mean square below which audio counts as silent: -80 dB of full scale."""
TRIM_MARGIN_SECONDS = 0.1
"""Seconds that are left before the first and after the last loud frame when a clip is trimmed."""
BLOCK_FRAMES = 256
"""Number of spectrogram frames computed at once; it bounds the memory for long clips."""
UNITS_PER_BEL = {
    "log_spectrogram_v1": math.log(10) / 2,
    "log_mel_v1": math.log(10),
    "db_spectrogram_v1": 10.0,
}
"""Increase of the spectrogram values, by frontend, if the power of the audio is ten times higher."""


def log_spectrogram(
    audio: Float[np.ndarray, " n"] | Iterable[Float[np.ndarray, " n"]], settings: AudioSettings
) -> tuple[Float[np.ndarray, "t f"], float]:
    """Computes the spectrogram and the root mean square of audio.

    Frame i is centred on the time i * hop. There are t = 1 + n // hop frames:

    ``X[i, j] = sum_m w[m] x[i hop + m - dft/2] exp(-2 pi i j m / dft)``

    Here x are the samples, w is the window, j is the number of the bin, and hop is the time step in samples.
    The audio is padded with zeros on both sides, so one sample is enough for a frame. The values depend on
    `settings.frontend`:

    - ``log_spectrogram_v1``: ``log(|X| + floor)``, in nepers
    - ``log_mel_v1``: ``log(M |X|^2 + floor)``; M: Slaney mel filters of equal area up to half the rate
    - ``db_spectrogram_v1``: ``20 log10(|X| + floor)``, in decibels

    Args:
        audio: mono samples from -1 to 1 at `settings.sample_rate`, as one array or as an iterable of blocks.
            Without samples, the result is one frame.
        settings: the frontend; `window`, such as `hamming` or `hann` (a name of scipy.signal.get_window);
            window and hop in ms; the even DFT length; number of bins or mel filters; and `floor`.

    Returns:
        The spectrogram, float16 [t f] with f = `settings.bins`, and the root mean square of the samples, a
        float, 0 without samples.

    Raises:
        ValueError: the frontend or window is unknown, `bins` is below 1, or above `dft // 2 + 1` without mel
            filters, or the samples are not mono. Errors of the iterable, such as MediaError, pass through.
        librosa.ParameterError: samples are not finite, `hop_ms` is below one sample, or the window is longer
            than the DFT.
        ModuleNotFoundError: librosa is not installed.
    """
    _check_frontend(settings)
    blocks = [audio] if isinstance(audio, np.ndarray) else audio
    hop = round(settings.sample_rate * settings.hop_ms / 1000)
    padding = np.zeros(settings.dft // 2, np.float32)
    # a bytearray grows in place; half an hour of frames takes 72 MB
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
    """Returns the slice of frames from 0.1 s before the first loud frame to 0.1 s after the last one.

    A frame is loud if its level, the sum of the powers of its bins, is at most `settings.trim_db` dB below
    the level of the loudest frame. If `trim_db` is 0, the slice includes all frames. The slice never reaches
    outside the spectrogram.

    Args:
      spectrogram: the spectrogram that `log_spectrogram` returned.
      settings: the settings that it was computed with.

    Raises:
      ValueError: `trim_db` is not 0, and the frontend is unknown or the spectrogram has no frames.
    """
    if not settings.trim_db:
        return slice(0, len(spectrogram))
    _check_frontend(settings)
    bels = spectrogram.astype(np.float64) / UNITS_PER_BEL[settings.frontend]
    level_db = 10 * np.log10(np.sum(10**bels, axis=1))
    loud_frames = np.flatnonzero(level_db >= level_db.max() - settings.trim_db)
    margin_frames = round(1000 * TRIM_MARGIN_SECONDS / settings.hop_ms)
    return slice(
        max(int(loud_frames[0]) - margin_frames, 0),
        min(int(loud_frames[-1]) + margin_frames + 1, len(spectrogram)),
    )


def _check_frontend(settings: AudioSettings) -> None:
    """Raises ValueError if the frontend of the settings is unknown; returns nothing."""
    if settings.frontend not in FRONTENDS:
        raise ValueError(
            f"audio frontend {settings.frontend!r}: expected one of {', '.join(FRONTENDS)}; correct"
            " audio.frontend in the settings of the preparation"
        )


def _spectrogram_frames(
    samples: Float[np.ndarray, " n"], settings: AudioSettings, hop: int
) -> Float16[np.ndarray, "t f"]:
    """Computes the spectrogram, float16 [t f], of all frames that are completely inside `samples`.

    The values are those of `log_spectrogram` for `settings.frontend`. `hop` is the step between frames in
    samples. t is 0 if there are fewer samples than the length of the DFT. Raises ValueError if the window is
    unknown, KeyError if the frontend is, librosa.ParameterError if samples are not finite, `hop` is 0 or the
    window is longer than the DFT, ModuleNotFoundError if librosa is not installed.
    """
    import librosa  # takes a second, at the first call

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
    power = np.square(np.abs(spectrum), dtype=np.float64)  # the square of 1e20 overflows float32
    return np.log(mel_filters(settings.sample_rate, settings.dft, settings.bins) @ power + settings.floor)


def _magnitude_db(spectrum: Complex[np.ndarray, "j t"], settings: AudioSettings) -> Float[np.ndarray, "f t"]:
    return 20 / math.log(10) * _log_magnitude(spectrum, settings)


@functools.lru_cache(maxsize=4)
def mel_filters(sample_rate: int, dft: int, num_filters: int) -> Float[np.ndarray, "f j"]:
    """Returns triangular mel filters of equal area from 0 Hz to half the sample rate, on Slaney's scale.

    `sample_rate` is in Hz. The array is float32 [f j]: one row for each of the f = `num_filters` filters, by
    ascending frequency, and one column for each of the j = `dft // 2 + 1` bins of the spectrum. Raises
    ModuleNotFoundError if librosa is not installed.
    """
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
"""Functions, by frontend, that compute the spectrogram [f t] from the spectrum [j t]."""
