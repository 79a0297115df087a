"""Writes what a live session has sent as a media file, to be prepared as any clip is."""

from typing import BinaryIO

import numpy as np


def write_recording(
    file: BinaryIO,
    audio: np.ndarray | None,
    sample_rate: int,
    frames: list[tuple[float, bytes]],
    frame_size: tuple[int, int],
    duration_seconds: float,
) -> None:
    """Writes a clip; the arguments are those of `data_prep.media.write_clip.write_clip`."""
    from data_prep.media.write_clip import write_clip

    write_clip(file, audio, sample_rate, frames, frame_size, duration_seconds)
