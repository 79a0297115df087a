"""Defines the unit and the frequency axis of a spectrogram by recipe and frontend (data_prep/settings.py)."""

import math
from typing import TypedDict

import numpy as np
from jaxtyping import Float

from emofuse_jax.data.metadata import AudioSettingsDict
from emofuse_jax.data.records import ARRAYS_RECIPE

DECIBELS_PER_NEPER = 20 / math.log(10)
"""Decibels in one neper."""

UNITS_PER_NEPER = {
    ARRAYS_RECIPE: 1.0,
    "fbp": 1.0,
    "features": 1.0,
    "hgr": 2.0,
    "cross_attention": DECIBELS_PER_NEPER,
    "speech": 2.0,
    "voice": 2.0,
}
"""Increase of a recipe's spectrogram values if the amplitude of the audio is multiplied by e: 1 for log
magnitudes, 2 for log energies, 8.69 for decibels."""

LOG_MEL_FRONTEND = "log_mel_v1"
"""Name of the frontend whose bins are mel filters; those of all others are DFT bins."""


def units_per_neper(recipe: str) -> float:
    """Returns one neper in the unit of a recipe's spectrogram.

    It is 1 for log magnitudes (`arrays`, `fbp`, `features`), 2 for log energies (`hgr`, `speech`, `voice`),
    and 8.69 for decibels (`cross_attention`).

    Raises:
      ValueError: The recipe is unknown.
    """
    if recipe not in UNITS_PER_NEPER:
        raise ValueError(f"data.recipe: {recipe!r}, expected one of {', '.join(UNITS_PER_NEPER)}")
    return UNITS_PER_NEPER[recipe]


class FrequencyAxis(TypedDict):
    """Frequency axis of a spectrogram."""

    max_hz: float
    """Upper end of the axis in Hz."""
    bin_hz: Float[np.ndarray, " f"] | None
    """Centre of each mel filter in Hz; None for DFT bins, evenly spaced from 0 to `max_hz`."""


def frequency_axis(audio_settings: AudioSettingsDict) -> FrequencyAxis:
    """Returns the frequency axis of a spectrogram, from the audio settings of prep.json.

    It is a dict: `max_hz` is the upper end of the axis in Hz; `bin_hz` [f] has the centre of each of the f
    mel filters in Hz, or is None if the bins are DFT bins, bin j at `j * max_hz / f`. Of the settings it
    reads `frontend` (`log_mel_v1` has mel filters, all others DFT bins), `sample_rate` in Hz, `bins` (f) and
    `dft`, the length of the DFT in samples.
    """
    is_mel = audio_settings["frontend"] == LOG_MEL_FRONTEND
    max_hz = (
        audio_settings["sample_rate"] / 2
        if is_mel
        else audio_settings["bins"] * audio_settings["sample_rate"] / audio_settings["dft"]
    )
    return {"max_hz": max_hz, "bin_hz": bin_centers_hz(audio_settings) if is_mel else None}


def bin_centers_hz(audio_settings: AudioSettingsDict) -> Float[np.ndarray, " f"]:
    """Returns the centre of each bin in Hz, from the audio settings of prep.json.

    DFT bin j is at ``j * sample_rate / dft``. For the `frontend` `log_mel_v1` the centres are the peaks of
    the filters, evenly spaced on Slaney's mel scale (linear to 1 kHz, then 27 mels to a factor of 6.4)
    between 0 Hz and half the sample rate. Of the settings it reads `frontend`, `sample_rate` in Hz, `bins`
    (f) and `dft`, the length of the DFT in samples.
    """
    bin_count, sample_rate = audio_settings["bins"], audio_settings["sample_rate"]
    if audio_settings["frontend"] != LOG_MEL_FRONTEND:
        return np.arange(bin_count) * sample_rate / audio_settings["dft"]
    mels = np.linspace(0, _hz_to_mel(sample_rate / 2), bin_count + 2)[1:-1]
    return np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))


def _hz_to_mel(hz: float) -> float:
    """Returns the mels of a frequency on Slaney's scale.

    A mel is 200/3 Hz up to 1 kHz; above that, 27 mels are a factor of 6.4.
    """
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)
