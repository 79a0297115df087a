"""Data of one clip in the gallery of a report."""

from typing import NotRequired, TypedDict

import numpy as np


class GalleryClip(TypedDict):
    """Inputs, prediction and attention of one clip; None for an input that the clip or the records lack."""

    clip_id: str
    label: str
    """Name of the true class."""
    prediction: str
    """Name of the predicted class."""
    probabilities: dict[str, float]
    """Probability by class."""
    spectrogram: np.ndarray | None
    """Valid steps only [t f]."""
    seconds: float
    """Length of the spectrogram."""
    max_hz: float
    """Upper end of the frequency axis."""
    bin_hz: NotRequired[np.ndarray | None]
    """Centre frequencies of the bins [f] if they are not evenly spaced in Hz."""
    audio_attention: np.ndarray | None
    """Attention [t' f'] or [t'] over the same seconds and frequencies."""
    faces: np.ndarray | None
    """uint8 [s h w 3]."""
    face_mask: np.ndarray | None
    """bool [s]; True for frames with a face."""
    face_time: np.ndarray | None
    """Time of each frame in seconds [s]."""
    video_attention: np.ndarray | None
    """Attention [l] over groups of frames; l divides s."""
    voice_weight: float | None
    """Weight of the audio, from 0 to 1."""
    face_weight: float | None
    """Weight of the video, from 0 to 1."""
    no_sound: NotRequired[str]
    """Message in place of the spectrogram."""
    no_faces: NotRequired[str]
    """Message in place of the faces."""
    aux: NotRequired[dict[str, np.ndarray]]
    """Intermediate outputs of the model for this clip, by name."""
