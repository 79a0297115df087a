"""Reads the frames of a clip: a part of a video file in time, and possibly one half of the picture."""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8

from data_prep.media.frames import read_frames
from data_prep.media.probe import MediaInfo


@dataclasses.dataclass(frozen=True)
class VideoClip:
    """A clip in a media file; `start` and `end` are seconds of the file."""

    info: MediaInfo
    start: float
    end: float
    half: str = ""
    """`left` or `right`: the half of the picture that belongs to the clip; empty: the complete picture."""


@dataclasses.dataclass(frozen=True)
class ClipFrames:
    """Frames from `read_frames`, cut to the half of the clip."""

    frames: UInt8[np.ndarray, "s h w 3"]
    times: Float[np.ndarray, " s"]
    """Times of the frames in seconds of the file."""
    scale: float
    """Factor from source pixels to frame pixels: source x = (frame x + `left_column`) / scale."""
    left_column: int
    """Column of the complete picture at which the frames begin."""


def read_clip_frames(video_clip: VideoClip, times: Float[np.ndarray, " s"]) -> ClipFrames:
    """Reads the frames of a clip that are on screen at `times`, in seconds of the file.

    `video_clip` has `info`, the probed file, and `half`: `left`, `right`, or empty for the complete picture.

    Returns:
      A ClipFrames: `frames`, uint8 RGB [s h w 3], cut to that half; `times` [s] at which these frames
      begin, in seconds of the file; `scale`, the factor from source pixels to frame pixels, at most 1; and
      `left_column`, the column of the scaled picture at which the frames begin: source x is (frame x +
      `left_column`) / `scale`.

    Raises:
      MediaError: the file has no video stream, has changed since it was probed or can't be read, its index of
        key frames is wrong, or no frame can be decoded or converted to RGB.
      ValueError: `video_clip.half` is not `left`, `right` or empty, or `times` is empty.
    """
    frames, frame_times, scale = read_frames(video_clip.info, times)
    middle_column = frames.shape[2] // 2
    if video_clip.half not in ("", "left", "right"):
        raise ValueError(
            f"clip half {video_clip.half!r}: expected 'left', 'right' or ''; correct the clip's field 'half'"
        )
    columns = {"": slice(None), "left": slice(middle_column), "right": slice(middle_column, None)}[
        video_clip.half
    ]
    return ClipFrames(
        frames[:, :, columns], frame_times, scale, middle_column if video_clip.half == "right" else 0
    )
