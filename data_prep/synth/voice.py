"""Synthesizes voices with a source-filter model: glottal pulses and breath noise through moving formants.

The state s_v of the demo corpus is the way of speaking. In state 0, the pitch falls, the voice is breathy,
and vowels glide to the back of the mouth. In state 1, the pitch rises, the voice is tense, and vowels glide
to the front. The times and mouth openings of the syllables do not depend on the state, so the lips, which
follow them, contain no information about it.
"""

import dataclasses

import numpy as np
from jaxtyping import Complex, Float
from scipy import fft, signal

from data_prep.settings import SAMPLE_RATE

CONTROL_RATE_HZ = 200
"""Rate in Hz at which pitch, formants and energy change."""
_HOP_SAMPLES = SAMPLE_RATE // CONTROL_RATE_HZ
_BLOCK_SAMPLES = 2 * _HOP_SAMPLES
_FFT_SIZE = 8 * _HOP_SAMPLES  # long enough for a formant to decay
_HEADROOM = 0.5
_UPPER_FORMANTS_HZ = (3500.0, 4500.0)
_BANDWIDTHS_HZ = np.array([70.0, 90.0, 130.0, 200.0, 250.0])


@dataclasses.dataclass(frozen=True)
class Voice:
    """Properties of a speaker's voice, equal in all clips."""

    pitch_hz: float
    """Mean pitch in Hz."""
    formant_scale: float
    """Factor on all formants; above 1 for a short vocal tract."""
    syllables_per_second: float
    """Syllables per second."""
    breath: float
    """Level of breath noise relative to the glottal pulses."""
    tilt: float
    """Pole of the low-pass filter of the source; 0 sounds bright, 1 dull."""


@dataclasses.dataclass(frozen=True)
class Style:
    """Way of speaking in one state of the voice."""

    glide_octaves: float
    """Change of the pitch within a syllable, in octaves."""
    phrase_octaves: float
    """Change of the pitch over a phrase, in octaves."""
    breath: float
    """Factor on the breath noise."""
    tilt: float
    """Value added to the pole of the low-pass filter of the source."""
    open_fraction: float
    """Fraction of a period in which the glottis is open."""
    second_formant_hz: tuple[float, float]
    """Second formant at the beginning and end of a syllable."""
    third_formant_hz: float
    peak_position: float
    """Position of the energy peak in a syllable, 0 to 1."""


STYLES = (
    Style(-0.35, -0.25, 2.5, 0.25, 0.75, (1150.0, 800.0), 2450.0, 0.7),
    Style(0.4, 0.3, 0.5, -0.25, 0.45, (1750.0, 2350.0), 2950.0, 0.25),
)


@dataclasses.dataclass(frozen=True)
class Syllables:
    """Times and mouth openings of the `k` syllables of a clip, used for both voice and lips."""

    start_seconds: Float[np.ndarray, " k"]
    """Start in the clip, in seconds."""
    length_seconds: Float[np.ndarray, " k"]
    openness: Float[np.ndarray, " k"]
    """Openness of the vowel, 0 (closed) to 1 (open)."""
    loudness: Float[np.ndarray, " k"]
    phrase_position: Float[np.ndarray, " k"]
    """Position in the sequence of syllables of the clip, 0 to 1."""


def draw_voice(speaker: int, seed: int) -> Voice:
    """Draws the voice of speaker 1, 2, ...; odd speakers are male, as in RAVDESS.

    It has `pitch_hz`, the mean pitch in Hz; `formant_scale`, a factor on all formants;
    `syllables_per_second`; `breath`, the level of breath noise relative to the glottal pulses; and `tilt`,
    the pole of the low-pass filter of the source. Raises ValueError if `speaker` or `seed` is negative.
    """
    rng = np.random.default_rng([seed, 21, speaker])
    is_male = speaker % 2 == 1
    return Voice(
        pitch_hz=rng.uniform(95, 140) if is_male else rng.uniform(170, 240),
        formant_scale=rng.uniform(0.9, 1.0) if is_male else rng.uniform(1.02, 1.14),
        syllables_per_second=rng.uniform(3.2, 4.8),
        breath=rng.uniform(0.02, 0.06),
        tilt=rng.uniform(0.35, 0.6),
    )


def draw_syllables(voice: Voice, clip_seconds: float, rng: np.random.Generator) -> Syllables:
    """Draws the syllables of a clip, in one or two phrases with a pause before, between and after them.

    `clip_seconds` must be above 0.55, because shorter clips have no room between the pauses (not checked).
    The result has arrays [k] for k syllables: `start_seconds` and `length_seconds`, `openness` of the vowel
    (0: closed, 1: open), `loudness` (0.6 to 1), and `phrase_position`, which rises from 0 at the first
    syllable of the clip to at most 1 at the last.
    """
    begin, end = rng.uniform(0.08, 0.25), clip_seconds - rng.uniform(0.1, 0.3)
    slot_seconds = 1 / (voice.syllables_per_second * rng.uniform(0.85, 1.15))
    slot_count = max(3, int((end - begin) / slot_seconds))
    pause = rng.integers(2, slot_count) if slot_count > 6 and rng.random() < 0.7 else -1
    index = np.flatnonzero(np.arange(slot_count) != pause)
    k = len(index)
    start = begin + (index + rng.uniform(-0.08, 0.08, k)) * (end - begin) / slot_count
    length = (end - begin) / slot_count * rng.uniform(0.75, 0.98, k)
    phrase_position = index / (slot_count - 1)
    return Syllables(start.clip(0.03), length, rng.random(k), rng.uniform(0.6, 1.0, k), phrase_position)


def _syllable_envelopes(
    syllables: Syllables, times: Float[np.ndarray, " n"], peak_position: float
) -> Float[np.ndarray, "k n"]:
    """Returns a smooth envelope from 0 to 1 for each of k syllables at each of n times in seconds.

    The maximum is at the fraction `peak_position` (above 0, below 1) of the syllable's length; outside the
    syllable, the envelope is 0.
    """
    fraction = (times - syllables.start_seconds[:, None]) / syllables.length_seconds[:, None]  # k n
    phase = (
        np.where(
            fraction < peak_position,
            fraction / peak_position,
            1 + (fraction - peak_position) / (1 - peak_position),
        )
        / 2
    )
    return np.where((fraction > 0) & (fraction < 1), np.sin(np.pi * np.clip(phase, 0, 1)) ** 1.5, 0)


def compute_lip_opening(syllables: Syllables, times: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Computes the opening of the lips, 0 to 1, at each of the `times`, in seconds of the clip.

    The opening is equal for both states of the voice. Raises ValueError if there are no syllables.
    """
    envelopes = _syllable_envelopes(syllables, times, 0.5)
    return (envelopes * (0.3 + 0.7 * syllables.openness[:, None]) * syllables.loudness[:, None]).max(0)


def synthesize(
    voice: Voice, state: int, syllables: Syllables, sample_count: int, rng: np.random.Generator
) -> Float[np.ndarray, " n"]:
    """Synthesizes speech-like audio, float32 from -1 to 1 at 16 kHz.

    The source is the KLGLOTT88 pulse, whose flow derivative is `2 q - 3 q^2` if q, the phase divided by
    the open fraction of a period, is below 1, and otherwise 0, with breath noise and a one-pole low-pass
    filter. The filter is a cascade of five second-order resonators (Klatt & Klatt, JASA 87(2), 1990), whose
    frequencies change 200 times per second.

    Args:
      voice: the speaker's voice.
      state: state of the voice, 0 or 1.
      syllables: the syllables of the clip.
      sample_count: number n of samples to return, at least 480.
      rng: generator of all random variation.

    Raises:
      ValueError: `sample_count` is below the random delay of the echo (160 to 479), there are no syllables,
        or one begins just after the last sample.
      IndexError: `state` is neither 0 nor 1.
    """
    style = STYLES[state]
    times = np.arange(-(-sample_count // _HOP_SAMPLES)) / CONTROL_RATE_HZ
    envelopes = (
        _syllable_envelopes(syllables, times, style.peak_position) * syllables.loudness[:, None]
    )  # k n
    pitch, formants = _pitch_and_formant_tracks(voice, style, syllables, times, envelopes, rng)
    source = _glottal_source(voice, style, pitch, envelopes.sum(0), sample_count, rng)
    waveform = _apply_formants(source, formants) + _consonant_noise(syllables, sample_count, rng)
    return _simulate_recording(waveform, rng)


def _pitch_and_formant_tracks(
    voice: Voice,
    style: Style,
    syllables: Syllables,
    times: Float[np.ndarray, " n"],
    envelopes: Float[np.ndarray, "k n"],
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n 3"]]:
    """Returns the pitch [n] and the first three formants [n 3] in Hz at n times, with random variation.

    `times` are seconds of the clip; `envelopes` has the loudness of each of k syllables at these times.
    `style` is the way of speaking in one state of the voice: `glide_octaves` and `phrase_octaves` (change of
    the pitch within a syllable and over the clip), and `second_formant_hz` (at its beginning and end) and
    `third_formant_hz` of a syllable, before the factor of the speaker. Raises ValueError if there are no
    syllables.
    """
    k = len(syllables.start_seconds)
    nearest_syllable = np.abs(
        times - (syllables.start_seconds + syllables.length_seconds / 2)[:, None]
    ).argmin(0)  # n
    fraction = (
        (times - syllables.start_seconds[nearest_syllable]) / syllables.length_seconds[nearest_syllable]
    ).clip(0, 1)
    octaves = style.glide_octaves * (fraction - 0.5) + style.phrase_octaves * (
        syllables.phrase_position[nearest_syllable] - 0.5
    )
    octaves += rng.uniform(-0.06, 0.06, k)[nearest_syllable] + rng.uniform(-0.12, 0.12)
    octaves += 0.012 * np.sin(2 * np.pi * rng.uniform(4, 6) * times)
    first_formant = 290 + 480 * syllables.openness[nearest_syllable] * (
        0.5 + 0.5 * envelopes.sum(0).clip(0, 1)
    )
    begin, end = style.second_formant_hz
    second_formant = (begin + (end - begin) * fraction) * rng.uniform(0.92, 1.08, k)[nearest_syllable]
    third_formant = np.maximum(
        style.third_formant_hz * rng.uniform(0.96, 1.04, k)[nearest_syllable], second_formant + 350
    )
    formants = (
        np.stack([_smooth_track(f) for f in (first_formant, second_formant, third_formant)], -1)
        * voice.formant_scale
    )
    return voice.pitch_hz * 2 ** _smooth_track(octaves), formants


def _smooth_track(track: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    kernel = np.hanning(9)[1:-1]
    padded = np.pad(track, 3, mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")


def _interpolate_track(track: Float[np.ndarray, " n"], sample_count: int) -> Float[np.ndarray, " m"]:
    return np.interp(np.arange(sample_count) / _HOP_SAMPLES, np.arange(len(track)), track)


def _glottal_source(
    voice: Voice,
    style: Style,
    pitch: Float[np.ndarray, " n"],
    energy: Float[np.ndarray, " n"],
    sample_count: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, " m"]:
    jitter = 1 + 0.01 * rng.standard_normal(len(pitch))
    phase = np.cumsum(_interpolate_track(pitch * jitter, sample_count) / SAMPLE_RATE) % 1
    fraction = phase / style.open_fraction
    voiced = np.where(fraction < 1, 2 * fraction - 3 * fraction**2, 0)
    breath = voice.breath * style.breath * rng.standard_normal(sample_count) * (0.4 + 0.6 * (fraction < 1))
    pole = np.clip(voice.tilt + style.tilt + rng.uniform(-0.06, 0.06), 0.05, 0.92)
    source = signal.lfilter([1 - pole], [1, -pole], voiced + breath)
    return source * _interpolate_track(energy, sample_count)


def _apply_formants(
    source: Float[np.ndarray, " n"], formants: Float[np.ndarray, "m 3"]
) -> Float[np.ndarray, " n"]:
    """Filters overlapping windows of the source by their formants, adds them, and scales the peak to 1.

    `source` has n samples at 16 kHz; `formants` has the first three formants in Hz, 200 times per second
    (CONTROL_RATE_HZ), so m is n / 80, rounded up. Returns n samples.
    """
    formants = formants[:: _BLOCK_SAMPLES // _HOP_SAMPLES]
    padded = np.zeros((len(formants) + 1) * _BLOCK_SAMPLES + _FFT_SIZE)
    padded[_BLOCK_SAMPLES : _BLOCK_SAMPLES + len(source)] = source
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _BLOCK_SAMPLES)[::_BLOCK_SAMPLES][
        : len(formants) + 1
    ]
    formants = np.concatenate([formants, formants[-1:]])
    spectra = fft.rfft(windows * signal.windows.hann(2 * _BLOCK_SAMPLES, sym=False), _FFT_SIZE, axis=1)
    filtered_blocks = fft.irfft(spectra * _formant_response(formants), axis=1)  # m _FFT_SIZE
    output = np.zeros_like(padded)
    for i in range(0, _FFT_SIZE, _BLOCK_SAMPLES):  # each filtered window covers several blocks
        block_samples = filtered_blocks[:, i : i + _BLOCK_SAMPLES].reshape(-1)  # m block -> m*block
        output[i : i + len(block_samples)] += block_samples
    output = output[_BLOCK_SAMPLES : _BLOCK_SAMPLES + len(source)]
    return output / max(np.abs(output).max(), 1e-9)


def _formant_response(formants: Float[np.ndarray, "m 3"]) -> Complex[np.ndarray, "m bins"]:
    """Computes the complex frequency response of five resonators in series at each DFT bin.

    There is one row for each of m windows, whose first three formants in Hz are in `formants`, and one column
    for each of 321 bins from 0 to 8000 Hz. Each resonator is `(1 + b + c) / (1 + b z^-1 + c z^-2)`; b and c
    follow from its frequency and bandwidth.
    """
    upper = np.broadcast_to(_UPPER_FORMANTS_HZ, (len(formants), 2))
    centres = np.concatenate([formants, upper], 1).T  # 5 m
    radius = np.exp(-np.pi * _BANDWIDTHS_HZ / SAMPLE_RATE)[:, None]
    b, c = -2 * radius * np.cos(2 * np.pi * centres / SAMPLE_RATE), radius**2
    delay = np.exp(-2j * np.pi * np.arange(_FFT_SIZE // 2 + 1) / _FFT_SIZE).astype(np.complex64)
    response: np.ndarray = (1 + b + c).prod(0).astype(np.float32)[:, None]
    for b_i, c_i in zip(b.astype(np.float32), c.astype(np.float32), strict=True):
        response = response / (1 + b_i[:, None] * delay + c_i * delay**2)
    return response


def _consonant_noise(
    syllables: Syllables, sample_count: int, rng: np.random.Generator
) -> Float[np.ndarray, " n"]:
    """Generates `sample_count` samples: short noise at the beginning of some syllables, else about zero.

    The samples are at 16 kHz; the noise is between about 2 and 6.5 kHz, with a level of 0.02 to 0.08, for a
    random half of the syllables. Raises ValueError if one of these begins just after the last sample.
    """
    output = np.zeros(sample_count)
    filter_sections = signal.butter(
        2, [rng.uniform(1800, 2600), 6500], "bandpass", fs=SAMPLE_RATE, output="sos"
    )
    for start in syllables.start_seconds[rng.random(len(syllables.start_seconds)) < 0.5]:
        length = int(rng.uniform(0.03, 0.08) * SAMPLE_RATE)
        start_index = max(0, int(start * SAMPLE_RATE) - length // 2)
        burst = rng.standard_normal(length) * np.hanning(length) * rng.uniform(0.02, 0.08)
        output[start_index : start_index + length] += burst[: sample_count - start_index]
    return signal.sosfilt(filter_sections, output)


def _simulate_recording(
    waveform: Float[np.ndarray, " n"], rng: np.random.Generator
) -> Float[np.ndarray, " n"]:
    """Simulates a room and a microphone: adds an echo, a spectral tilt and noise, and sets a random level.

    `waveform` has at least 480 samples at 16 kHz; raises ValueError if it has fewer than the random delay of
    the echo. Returns as many float32 samples, from -1 to 1.
    """
    delay = rng.integers(int(0.01 * SAMPLE_RATE), int(0.03 * SAMPLE_RATE))
    waveform = waveform + rng.uniform(0, 0.25) * np.concatenate([np.zeros(delay), waveform[:-delay]])
    waveform = signal.lfilter([1, rng.uniform(-0.3, 0.3)], [1], waveform)
    waveform /= max(np.abs(waveform).max(), 1e-9)
    noise = signal.lfilter([1], [1, -rng.uniform(0, 0.9)], rng.standard_normal(len(waveform)))
    waveform = waveform + noise / noise.std() * 10 ** rng.uniform(-3.0, -2.0)
    return (waveform * _HEADROOM * 10 ** rng.uniform(-0.4, 0.15)).astype(np.float32)
