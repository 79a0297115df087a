"""Which frames of a clip are looked at: the times that go to `read_frames`."""

import numpy as np
from jaxtyping import Float

from data_prep.media.probe import VideoTrack
from data_prep.settings import FaceSettings


def frame_times(
    track: VideoTrack, first: float, last: float, settings: FaceSettings
) -> Float[np.ndarray, " s"]:
    """Times in seconds of the file for the part from `first` to `last`.

    Raises ValueError on a sampling of another name.
    """
    if settings.sampling == "even":
        return even_times(first, last, settings.frames)
    if settings.sampling == "snippets":
        return snippet_times(track, first, last, settings.frames // settings.snippet, settings.snippet)
    raise ValueError(f"frame sampling {settings.sampling!r}: expected one of even, snippets")


def even_times(first: float, last: float, count: int) -> Float[np.ndarray, " n"]:
    """The centres of `count` equal parts."""
    return first + (np.arange(count) + 0.5) * (last - first) / count


def snippet_times(
    track: VideoTrack, first: float, last: float, count: int, length: int
) -> Float[np.ndarray, " s"]:
    """`length` consecutive frames of the source around the centre of each of `count` equal parts.

    A snippet that would leave the part is moved inside; in a part of fewer frames than a snippet its first
    and last frame are repeated.
    """
    times = np.sort(track.times)
    inside = np.flatnonzero((times >= first - 1e-6) & (times < last - 1e-6))
    if not len(inside):  # one frame that is on screen all the time
        inside = np.maximum(np.searchsorted(times, [first + 1e-6], side="right") - 1, 0)
    low, high = inside[0], inside[-1]
    shown = np.searchsorted(times, even_times(first, last, count) + 1e-6, side="right") - 1
    begin = np.clip(shown - length // 2, low, max(low, high + 1 - length))
    begin -= max(0, (length - len(inside)) // 2)  # the repeats are shared by both ends
    return times[np.clip(begin[:, None] + np.arange(length), low, high).ravel()]  # n l -> s
