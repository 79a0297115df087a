"""Writes the audio and frames of a live session as a media file, to prepare it like any other clip."""

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
    """Writes a Matroska clip with PCM audio and JPEG frames, without encoding them again.

    Args:
      file: open binary file to write to.
      audio: int16 mono samples [n] from the start of the clip, or None.
      sample_rate: sample rate of `audio` in Hz.
      frames: (seconds from the start of the clip, JPEG bytes) of each frame, in order; may be empty if there
        is audio.
      frame_size: width and height of the frames in pixels.
      duration_seconds: time at which the last frame ends.

    Raises:
      ValueError: `audio` is not int16.
      av.FFmpegError: `audio` is empty, or `sample_rate`, `frame_size` or the order of `frames` is not valid.
      OSError: `file` cannot be written.
      ModuleNotFoundError: the package av is not installed.
    """
    from data_prep.media.write_clip import write_clip

    write_clip(file, audio, sample_rate, frames, frame_size, duration_seconds)
