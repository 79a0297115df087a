"""What a page draws beside an answer: the faces that were found, the sound, and where the model looked."""

import base64

import numpy as np

from emofuse_jax.data.records import Record
from emofuse_jax.scoring.attention_weights import (
    attended_columns,
    relative_attention,
    relative_frame_attention,
)

MAX_COLUMNS, MAX_ROWS = 240, 96
"""Most points of a spectrogram that is sent."""


def explain_window(record: Record, output: dict[str, np.ndarray], hop_ms: float) -> dict:
    """`faces` and `sound` of one window, as JSON; None for what it does not have.

    Attention is relative to even attention: 1 is what a model without it would give.

    Args:
      record: of the window.
      output: its row of a bundle's outputs.
      hop_ms: of the spectrogram.
    """
    return {
        "faces": _explain_faces(record, output.get("video_attention")) if record.video_ok else None,
        "sound": _explain_audio(record, output.get("audio_attention"), hop_ms) if record.audio_ok else None,
    }


def _explain_faces(record: Record, attention: np.ndarray | None) -> list[dict]:
    """Seconds from the window's start, box (x0 y0 x1 y1, pixels), score and attention of each face."""
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


def _explain_audio(record: Record, attention: np.ndarray | None, hop_ms: float) -> dict | None:
    """The spectrogram as bytes, 0 its quietest and 255 its loudest point; attention over the same span."""
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
    """[t f] to at most [columns rows]: the means of equal runs, each at least one long."""
    for axis, max_length in ((0, max_columns), (1, max_rows)):
        length = spectrogram.shape[axis]
        if length > max_length:
            starts = np.arange(max_length) * length // max_length
            counts = np.diff(np.append(starts, length))
            sums = np.add.reduceat(spectrogram, starts, axis=axis)
            spectrogram = sums / (counts[:, None] if axis == 0 else counts)
    return spectrogram
