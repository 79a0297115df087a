"""Data that the page draws with a prediction: detected faces, the spectrogram, and attention weights."""

import base64
from collections.abc import Mapping
from typing import TypedDict

import numpy as np

from emofuse_jax.data.records import Record
from emofuse_jax.scoring.attention_weights import (
    attended_columns,
    relative_attention,
    relative_frame_attention,
)

MAX_COLUMNS, MAX_ROWS = 240, 96
"""Maximum size (time, frequency) of a spectrogram that is sent."""


class FaceExplanation(TypedDict):
    """One detected face."""

    time: float
    """Seconds from the start of the window."""
    box: list[float]
    """x0, y0, x1 and y1 in pixels."""
    score: float
    """Score of the face detector."""
    attention: float | None
    """Attention relative to uniform attention, which is 1; None if the model has none."""


class AudioExplanation(TypedDict):
    """Spectrogram with its attention."""

    seconds: float
    """Duration in seconds."""
    shape: list[int]
    """Shape of the array in `levels`: time, frequency."""
    levels: str
    """Base64 of uint8: 0 is quietest, 255 is loudest."""
    attention: list[list[float]] | None
    """Attention of the columns relative to uniform attention, which is 1; None if the model has none."""


class Explanation(TypedDict):
    """Attention that the page draws with a prediction; None for a modality that the window lacks."""

    faces: list[FaceExplanation] | None
    sound: AudioExplanation | None


def explain_window(record: Record, output: Mapping[str, np.ndarray], hop_ms: float) -> Explanation:
    """Returns {"faces", "sound"} for JSON: the faces and the spectrogram of one window, with attention.

    `faces` is a list with one {"time", "box", "score", "attention"} per frame with a face: seconds from the
    start of the window, [x0, y0, x1, y1] in pixels from the top left corner of the video frame, score of the
    face detector, and a number. `sound` is {"seconds", "shape", "levels", "attention"}: duration, [columns,
    rows] of the reduced spectrogram, base64 of its uint8 values (column by column in time, each from the
    lowest frequency), and a list with one list for each position in time that the model attends to, of one
    number per frequency band. The positions need not be the columns; without bands, there is one number.
    Attention is relative to uniform attention, which is 1; None if the model has none or no weight is
    positive. `faces` or `sound` is None if the window has no usable face or audio, and `sound` also if the
    record has no spectrogram.

    Args:
      record: Record of the window: one clip as arrays.
      output: the window's row of the bundle's outputs, by name; only `video_attention` and `audio_attention`
        are read, which may be missing.
      hop_ms: hop of the spectrogram in milliseconds.

    Raises:
      ValueError: the number of video frames is not a multiple of the length of `video_attention`, or
        `audio_attention` is empty.
    """
    return {
        "faces": _explain_faces(record, output.get("video_attention")) if record.video_ok else None,
        "sound": _explain_audio(record, output.get("audio_attention"), hop_ms) if record.audio_ok else None,
    }


def _explain_faces(record: Record, attention: np.ndarray | None) -> list[FaceExplanation]:
    """Returns {"time", "box", "score", "attention"} of each valid face, in order of the frames.

    These are seconds from the start of the window, [x0, y0, x1, y1] in pixels from the top left corner of the
    frame, the score of the face detector, and the attention relative to uniform attention, which is 1; None
    if `attention` is None, empty or has no positive weight at a valid frame. `attention` is [l], one weight
    for each of l equal runs of frames. Raises ValueError if the number of frames is not a multiple of l.
    """
    attention_ratio = relative_frame_attention(attention, record.face_valid)
    return [
        {
            "time": round(float(record.face_time[i]), 3),
            "box": [round(float(x), 1) for x in record.face_box[i]],
            "score": round(float(record.face_score[i]), 3),
            "attention": None if attention_ratio is None else round(float(attention_ratio[i]), 3),
        }
        for i in np.flatnonzero(record.face_valid)
    ]


def _explain_audio(record: Record, attention: np.ndarray | None, hop_ms: float) -> AudioExplanation | None:
    """Returns {"seconds", "shape", "levels", "attention"} of the spectrogram; None if it is empty.

    `seconds` is its duration, `shape` is [columns, rows] (time, frequency) after averaging to at most 240 x
    96 (MAX_COLUMNS, MAX_ROWS), `levels` is the base64 of uint8 values from 0 (quietest) to 255 (loudest),
    column by column, each from the lowest frequency. The argument `attention` is [v] or [v g] over v
    positions in time and g in frequency. The value has one list for each position up to the last with a
    weight, of g numbers or one, relative to uniform attention, which is 1; it is None if `attention` is None
    or has no positive weight. Raises ValueError if v is 0.
    """
    if not record.spectrogram.size:
        return None
    reduced = shrink_spectrogram(record.spectrogram.astype(np.float32), MAX_COLUMNS, MAX_ROWS)
    minimum, maximum = float(reduced.min()), float(reduced.max())
    levels = np.round(255 * (reduced - minimum) / max(maximum - minimum, 1e-6)).astype(np.uint8)
    attention_ratio = None if attention is None else relative_attention(attended_columns(attention))
    return {
        "seconds": round((len(record.spectrogram) - 1) * hop_ms / 1000, 3),
        "shape": list(levels.shape),
        "levels": base64.b64encode(levels.tobytes()).decode(),
        "attention": None
        if attention_ratio is None
        else np.round(attention_ratio.reshape(len(attention_ratio), -1), 3).tolist(),
    }


def shrink_spectrogram(spectrogram: np.ndarray, max_columns: int, max_rows: int) -> np.ndarray:
    """Returns a spectrogram [t f] reduced to at most [max_columns, max_rows].

    Along an axis that is too long, runs of neighbouring values of almost equal length are averaged; an axis
    that is short enough stays unchanged.
    """
    for axis, max_length in ((0, max_columns), (1, max_rows)):
        length = spectrogram.shape[axis]
        if length > max_length:
            starts = np.arange(max_length) * length // max_length
            counts = np.diff(np.append(starts, length))
            sums = np.add.reduceat(spectrogram, starts, axis=axis)
            spectrogram = sums / (counts[:, None] if axis == 0 else counts)
    return spectrogram
