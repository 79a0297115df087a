"""What the numbers and the bins of a spectrogram mean, by recipe and frontend (data_prep/settings.py)."""

import math

import numpy as np
from jaxtyping import Float

DECIBELS = 20 / math.log(10)
"""Of one neper."""

NEPERS = {
    "fbp": 1.0,
    "features": 1.0,
    "hgr": 2.0,
    "cross_attention": DECIBELS,
    "speech": 2.0,
    "voice": 2.0,
}
"""What a recipe's numbers rise by when the sound is e times as loud: log magnitude, log energy, decibels."""

MEL = "log_mel_v1"


def neper(recipe: str) -> float:
    """One neper in the unit of a recipe's spectrogram; ValueError on an unknown recipe."""
    if recipe not in NEPERS:
        raise ValueError(f"data.recipe: {recipe!r}, expected one of {', '.join(NEPERS)}")
    return NEPERS[recipe]


def frequency_axis(audio: dict) -> dict:
    """`max_hz`, the upper end of the axis; `bin_hz`, the middles of bins that are not even in Hz, or None."""
    mel = audio["frontend"] == MEL
    top = audio["sample_rate"] / 2 if mel else audio["bins"] * audio["sample_rate"] / audio["dft"]
    return {"max_hz": top, "bin_hz": bin_hz(audio) if mel else None}


def bin_hz(audio: dict) -> Float[np.ndarray, " f"]:
    """The middle of each bin in Hz, from the audio settings of prep.json.

    DFT bins lie at ``j rate / dft``; `log_mel_v1` has the peaks of its filters, even on Slaney's scale
    (linear to 1 kHz, then 27 to a factor of 6.4) between 0 Hz and half the rate.
    """
    bins, rate = audio["bins"], audio["sample_rate"]
    if audio["frontend"] != MEL:
        return np.arange(bins) * rate / audio["dft"]
    mel = np.linspace(0, _mel(rate / 2), bins + 2)[1:-1]
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def _mel(hz: float) -> float:
    """Slaney's scale: 200/3 Hz a mel up to 1 kHz, then 27 mels to a factor of 6.4."""
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)
