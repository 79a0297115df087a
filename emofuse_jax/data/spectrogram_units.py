"""What the numbers and the bins of a spectrogram mean, by recipe and frontend (data_prep/settings.py)."""

import math

import numpy as np
from jaxtyping import Float

DECIBELS_PER_NEPER = 20 / math.log(10)
"""Of one neper."""

UNITS_PER_NEPER = {
    "fbp": 1.0,
    "features": 1.0,
    "hgr": 2.0,
    "cross_attention": DECIBELS_PER_NEPER,
    "speech": 2.0,
    "voice": 2.0,
}
"""What a recipe's numbers rise by when the sound is e times as loud: log magnitude, log energy, decibels."""

LOG_MEL_FRONTEND = "log_mel_v1"


def units_per_neper(recipe: str) -> float:
    """One neper in the unit of a recipe's spectrogram; ValueError on an unknown recipe."""
    if recipe not in UNITS_PER_NEPER:
        raise ValueError(f"data.recipe: {recipe!r}, expected one of {', '.join(UNITS_PER_NEPER)}")
    return UNITS_PER_NEPER[recipe]


def frequency_axis(audio_settings: dict) -> dict:
    """`max_hz`, the upper end of the axis; `bin_centers_hz`, the middles of bins that are not even in Hz, or
    None."""
    is_mel = audio_settings["frontend"] == LOG_MEL_FRONTEND
    max_hz = (
        audio_settings["sample_rate"] / 2
        if is_mel
        else audio_settings["bins"] * audio_settings["sample_rate"] / audio_settings["dft"]
    )
    return {"max_hz": max_hz, "bin_hz": bin_centers_hz(audio_settings) if is_mel else None}


def bin_centers_hz(audio_settings: dict) -> Float[np.ndarray, " f"]:
    """The middle of each bin in Hz, from the audio settings of prep.json.

    DFT bins lie at ``j rate / dft``; `log_mel_v1` has the peaks of its filters, even on Slaney's scale
    (linear to 1 kHz, then 27 to a factor of 6.4) between 0 Hz and half the rate.
    """
    bin_count, sample_rate = audio_settings["bins"], audio_settings["sample_rate"]
    if audio_settings["frontend"] != LOG_MEL_FRONTEND:
        return np.arange(bin_count) * sample_rate / audio_settings["dft"]
    mels = np.linspace(0, _hz_to_mel(sample_rate / 2), bin_count + 2)[1:-1]
    return np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))


def _hz_to_mel(hz: float) -> float:
    """Slaney's scale: 200/3 Hz a mel up to 1 kHz, then 27 mels to a factor of 6.4."""
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)
