"""Writes what a live session has sent as a media file, to be prepared as any clip is."""

from typing import BinaryIO

import numpy as np


def write_recording(
    file: BinaryIO,
    sound: np.ndarray | None,
    rate: int,
    pictures: list[tuple[float, bytes]],
    size: tuple[int, int],
    seconds: float,
) -> None:
    """Writes a clip; the arguments are those of `data_prep.media.write_clip.write_clip`."""
    from data_prep.media.write_clip import write_clip

    write_clip(file, sound, rate, pictures, size, seconds)
