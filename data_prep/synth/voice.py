"""A source-filter voice: glottal pulses and breath through moving formants.

The state s_v of the demo corpus is how something is said: 0 falls in pitch, is breathy and glides to the back
of the mouth; 1 rises, is tense and glides to the front. When syllables come and how far they open the mouth
does not depend on the state, so that the lips, which follow them, tell nothing about it.
"""

import dataclasses

import numpy as np
from jaxtyping import Float
from scipy import fft, signal

from data_prep.settings import SAMPLE_RATE

CONTROL_RATE = 200
"""Pitch, formants and energy are set this often per second."""
_HOP = SAMPLE_RATE // CONTROL_RATE
_BLOCK = 2 * _HOP
_TRANSFORM = 8 * _HOP  # long enough for a formant to ring off
_HEADROOM = 0.5
_UPPER_FORMANTS = (3500.0, 4500.0)
_BANDWIDTHS = np.array([70.0, 90.0, 130.0, 200.0, 250.0])


@dataclasses.dataclass(frozen=True)
class Voice:
    """What stays the same in every clip of one speaker."""

    pitch: float
    """Hz."""
    formants: float
    """Factor on all formants: a short vocal tract is above 1."""
    tempo: float
    """Syllables per second."""
    breath: float
    """Level of breath noise in the source."""
    tilt: float
    """Pole of the source's low-pass: 0 is bright, 1 dull."""


@dataclasses.dataclass(frozen=True)
class Style:
    """How a state of the voice sounds."""

    glide: float
    """Octaves that the pitch moves within a syllable."""
    span: float
    """Octaves that the pitch moves over a phrase."""
    breath: float
    """Factor on the breath noise."""
    tilt: float
    """Added to the pole of the source's low-pass."""
    open_share: float
    """Share of a period in which the glottis is open."""
    second_formant: tuple[float, float]
    """Hz at the beginning and end of a syllable."""
    third_formant: float
    peak: float
    """Where in a syllable its energy peaks, 0 to 1."""


STYLES = (
    Style(-0.35, -0.25, 2.5, 0.25, 0.75, (1150.0, 800.0), 2450.0, 0.7),
    Style(0.4, 0.3, 0.5, -0.25, 0.45, (1750.0, 2350.0), 2950.0, 0.25),
)


@dataclasses.dataclass(frozen=True)
class Syllables:
    """When the mouth opens and how far: shared by voice and lips."""

    start: Float[np.ndarray, " k"]
    """Seconds."""
    length: Float[np.ndarray, " k"]
    height: Float[np.ndarray, " k"]
    """Openness of the vowel: 0 closed, 1 open."""
    level: Float[np.ndarray, " k"]
    place: Float[np.ndarray, " k"]
    """Position in the phrase, 0 to 1."""


def draw_voice(speaker: int, seed: int) -> Voice:
    """The voice of speaker 1, 2, ...; odd speakers are male, as in RAVDESS."""
    rng = np.random.default_rng([seed, 21, speaker])
    male = speaker % 2 == 1
    return Voice(
        pitch=rng.uniform(95, 140) if male else rng.uniform(170, 240),
        formants=rng.uniform(0.9, 1.0) if male else rng.uniform(1.02, 1.14),
        tempo=rng.uniform(3.2, 4.8),
        breath=rng.uniform(0.02, 0.06),
        tilt=rng.uniform(0.35, 0.6),
    )


def draw_syllables(voice: Voice, seconds: float, rng: np.random.Generator) -> Syllables:
    """One or two phrases of syllables within a clip, with a pause before, between and after."""
    begin, end = rng.uniform(0.08, 0.25), seconds - rng.uniform(0.1, 0.3)
    step = 1 / (voice.tempo * rng.uniform(0.85, 1.15))
    slots = max(3, int((end - begin) / step))
    pause = rng.integers(2, slots) if slots > 6 and rng.random() < 0.7 else -1
    index = np.flatnonzero(np.arange(slots) != pause)
    k = len(index)
    start = begin + (index + rng.uniform(-0.08, 0.08, k)) * (end - begin) / slots
    length = (end - begin) / slots * rng.uniform(0.75, 0.98, k)
    place = index / (slots - 1)
    return Syllables(start.clip(0.03), length, rng.random(k), rng.uniform(0.6, 1.0, k), place)


def _envelopes(syllables: Syllables, times: Float[np.ndarray, " n"], peak: float) -> Float[np.ndarray, "k n"]:
    """A smooth bump per syllable, its maximum 1 at share `peak` of its length."""
    share = (times - syllables.start[:, None]) / syllables.length[:, None]  # k n
    warped = np.where(share < peak, share / peak, 1 + (share - peak) / (1 - peak)) / 2
    return np.where((share > 0) & (share < 1), np.sin(np.pi * np.clip(warped, 0, 1)) ** 1.5, 0)


def lip_opening(syllables: Syllables, times: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """How far speech opens the lips at `times` (seconds), 0 to 1; the same for both states of the voice."""
    bumps = _envelopes(syllables, times, 0.5)
    return (bumps * (0.3 + 0.7 * syllables.height[:, None]) * syllables.level[:, None]).max(0)


def synthesize(
    voice: Voice, state: int, syllables: Syllables, samples: int, rng: np.random.Generator
) -> Float[np.ndarray, " n"]:
    """Speech-like sound, float32 in -1 to 1 at 16 kHz.

    The source is the KLGLOTT88 pulse, `u' = 2 q - 3 q^2` for `q = phase / open share < 1`, with breath noise,
    dulled by a one-pole low-pass; the filter a cascade of five second-order resonators (Klatt & Klatt,
    JASA 87(2), 1990) whose frequencies change 200 times a second.
    """
    style = STYLES[state]
    times = np.arange(-(-samples // _HOP)) / CONTROL_RATE
    bumps = _envelopes(syllables, times, style.peak) * syllables.level[:, None]  # k n
    pitch, formants = _tracks(voice, style, syllables, times, bumps, rng)
    source = _source(voice, style, pitch, bumps.sum(0), samples, rng)
    sound = _filter(source, formants) + _consonants(syllables, samples, rng)
    return _record(sound, rng)


def _tracks(voice: Voice, style: Style, syllables: Syllables, times, bumps, rng: np.random.Generator):
    """Pitch [n] and the first three formants [n 3], in Hz."""
    k = len(syllables.start)
    nearest = np.abs(times - (syllables.start + syllables.length / 2)[:, None]).argmin(0)  # n
    share = ((times - syllables.start[nearest]) / syllables.length[nearest]).clip(0, 1)
    octaves = style.glide * (share - 0.5) + style.span * (syllables.place[nearest] - 0.5)
    octaves += rng.uniform(-0.06, 0.06, k)[nearest] + rng.uniform(-0.12, 0.12)
    octaves += 0.012 * np.sin(2 * np.pi * rng.uniform(4, 6) * times)
    first = 290 + 480 * syllables.height[nearest] * (0.5 + 0.5 * bumps.sum(0).clip(0, 1))
    begin, end = style.second_formant
    second = (begin + (end - begin) * share) * rng.uniform(0.92, 1.08, k)[nearest]
    third = np.maximum(style.third_formant * rng.uniform(0.96, 1.04, k)[nearest], second + 350)
    formants = np.stack([_smooth(f) for f in (first, second, third)], -1) * voice.formants
    return voice.pitch * 2 ** _smooth(octaves), formants


def _smooth(track: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    kernel = np.hanning(9)[1:-1]
    padded = np.pad(track, 3, mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")


def _stretch(track: Float[np.ndarray, " n"], samples: int) -> Float[np.ndarray, " m"]:
    return np.interp(np.arange(samples) / _HOP, np.arange(len(track)), track)


def _source(voice: Voice, style: Style, pitch, energy, samples: int, rng: np.random.Generator):
    jitter = 1 + 0.01 * rng.standard_normal(len(pitch))
    phase = np.cumsum(_stretch(pitch * jitter, samples) / SAMPLE_RATE) % 1
    share = phase / style.open_share
    voiced = np.where(share < 1, 2 * share - 3 * share**2, 0)
    breath = voice.breath * style.breath * rng.standard_normal(samples) * (0.4 + 0.6 * (share < 1))
    pole = np.clip(voice.tilt + style.tilt + rng.uniform(-0.06, 0.06), 0.05, 0.92)
    source = signal.lfilter([1 - pole], [1, -pole], voiced + breath)
    return source * _stretch(energy, samples)


def _filter(source: Float[np.ndarray, " n"], formants: Float[np.ndarray, "m 3"]) -> Float[np.ndarray, " n"]:
    """Overlapping windows of the source, each times the response of its formants, added up again."""
    formants = formants[:: _BLOCK // _HOP]
    padded = np.zeros((len(formants) + 1) * _BLOCK + _TRANSFORM)
    padded[_BLOCK : _BLOCK + len(source)] = source
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _BLOCK)[::_BLOCK][: len(formants) + 1]
    formants = np.concatenate([formants, formants[-1:]])
    spectra = fft.rfft(windows * signal.windows.hann(2 * _BLOCK, sym=False), _TRANSFORM, axis=1)
    pieces = fft.irfft(spectra * _response(formants), axis=1)  # m _TRANSFORM
    out = np.zeros_like(padded)
    for i in range(0, _TRANSFORM, _BLOCK):  # each window reaches over a few blocks
        part = pieces[:, i : i + _BLOCK].reshape(-1)  # m _BLOCK -> m*_BLOCK
        out[i : i + len(part)] += part
    out = out[_BLOCK : _BLOCK + len(source)]
    return out / max(np.abs(out).max(), 1e-9)


def _response(formants: Float[np.ndarray, "m 3"]):
    """Product of the resonators `(1 + b + c) / (1 + b z^-1 + c z^-2)` on the DFT's frequencies, [m bins]."""
    upper = np.broadcast_to(_UPPER_FORMANTS, (len(formants), 2))
    centres = np.concatenate([formants, upper], 1).T  # 5 m
    radius = np.exp(-np.pi * _BANDWIDTHS / SAMPLE_RATE)[:, None]
    b, c = -2 * radius * np.cos(2 * np.pi * centres / SAMPLE_RATE), radius**2
    delay = np.exp(-2j * np.pi * np.arange(_TRANSFORM // 2 + 1) / _TRANSFORM).astype(np.complex64)
    response = np.float32((1 + b + c).prod(0))[:, None]
    for one, two in zip(np.float32(b), np.float32(c), strict=True):
        response = response / (1 + one[:, None] * delay + two * delay**2)
    return response


def _consonants(syllables: Syllables, samples: int, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Hissing at the onset of some syllables."""
    out = np.zeros(samples)
    taps = signal.butter(2, [rng.uniform(1800, 2600), 6500], "bandpass", fs=SAMPLE_RATE, output="sos")
    for start in syllables.start[rng.random(len(syllables.start)) < 0.5]:
        length = int(rng.uniform(0.03, 0.08) * SAMPLE_RATE)
        first = max(0, int(start * SAMPLE_RATE) - length // 2)
        burst = rng.standard_normal(length) * np.hanning(length) * rng.uniform(0.02, 0.08)
        out[first : first + length] += burst[: samples - first]
    return signal.sosfilt(taps, out)


def _record(sound: Float[np.ndarray, " n"], rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """What a room and a microphone add: an echo, a tilt, noise and a level."""
    delay = rng.integers(int(0.01 * SAMPLE_RATE), int(0.03 * SAMPLE_RATE))
    sound = sound + rng.uniform(0, 0.25) * np.concatenate([np.zeros(delay), sound[:-delay]])
    sound = signal.lfilter([1, rng.uniform(-0.3, 0.3)], [1], sound)
    sound /= max(np.abs(sound).max(), 1e-9)
    hiss = signal.lfilter([1], [1, -rng.uniform(0, 0.9)], rng.standard_normal(len(sound)))
    sound = sound + hiss / hiss.std() * 10 ** rng.uniform(-3.0, -2.0)
    return (sound * _HEADROOM * 10 ** rng.uniform(-0.4, 0.15)).astype(np.float32)
