"""Frames of the part of a film that a clip is: of its time, and of its half where two people share it."""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8

from data_prep.media.frames import read_frames
from data_prep.media.probe import MediaInfo


@dataclasses.dataclass(frozen=True)
class VideoClip:
    """A file, and start and end of the clip in its seconds."""

    info: MediaInfo
    start: float
    end: float
    half: str = ""
    """`left` or `right`: the half of the picture that the clip is about; else all of it."""


@dataclasses.dataclass(frozen=True)
class ClipFrames:
    """Frames as `read_frames` gives them, cut to the film's half."""

    frames: UInt8[np.ndarray, "s h w 3"]
    times: Float[np.ndarray, " s"]
    """Their own, in seconds of the file."""
    scale: float
    """Pixels of the source are pixels of the frames, beyond `left_column`, divided by it."""
    left_column: int


def read_clip_frames(video_clip: VideoClip, times: Float[np.ndarray, " s"]) -> ClipFrames:
    """The frames on screen at `times`; raises MediaError when there are none, ValueError on a bad half."""
    frames, frame_times, scale = read_frames(video_clip.info, times)
    middle_column = frames.shape[2] // 2
    if video_clip.half not in ("", "left", "right"):
        raise ValueError(f"clip half {video_clip.half!r}: expected 'left', 'right' or ''")
    columns = {"": slice(None), "left": slice(middle_column), "right": slice(middle_column, None)}[
        video_clip.half
    ]
    return ClipFrames(
        frames[:, :, columns], frame_times, scale, middle_column if video_clip.half == "right" else 0
    )
