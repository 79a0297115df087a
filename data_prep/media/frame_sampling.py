"""Which frames of a clip are looked at: the times that go to `read_frames`."""

import numpy as np
from jaxtyping import Float

from data_prep.media.probe import VideoTrack
from data_prep.settings import FaceSettings


def frame_times(
    track: VideoTrack, start: float, end: float, settings: FaceSettings
) -> Float[np.ndarray, " s"]:
    """Times in seconds of the file for the part from `start` to `end`.

    Raises ValueError on a sampling of another name.
    """
    if settings.sampling == "even":
        return even_times(start, end, settings.frames)
    if settings.sampling == "snippets":
        return snippet_times(track, start, end, settings.frames // settings.snippet, settings.snippet)
    raise ValueError(f"frame sampling {settings.sampling!r}: expected one of even, snippets")


def even_times(start: float, end: float, count: int) -> Float[np.ndarray, " n"]:
    """The centres of `count` equal parts."""
    return start + (np.arange(count) + 0.5) * (end - start) / count


def snippet_times(
    track: VideoTrack, start: float, end: float, num_snippets: int, snippet_length: int
) -> Float[np.ndarray, " s"]:
    """`snippet_length` consecutive frames of the source around the centre of each of `num_snippets` equal
    parts.

    A snippet that would leave the part is moved inside; in a part of fewer frames than a snippet its first
    and last frame are repeated.
    """
    times = np.sort(track.times)
    inside_indices = np.flatnonzero((times >= start - 1e-6) & (times < end - 1e-6))
    if not len(inside_indices):  # one frame that is on screen all the time
        inside_indices = np.maximum(np.searchsorted(times, [start + 1e-6], side="right") - 1, 0)
    first_index, last_index = inside_indices[0], inside_indices[-1]
    center_indices = np.searchsorted(times, even_times(start, end, num_snippets) + 1e-6, side="right") - 1
    snippet_starts = np.clip(
        center_indices - snippet_length // 2, first_index, max(first_index, last_index + 1 - snippet_length)
    )
    snippet_starts -= max(
        0, (snippet_length - len(inside_indices)) // 2
    )  # the repeats are shared by both ends
    return times[
        np.clip(snippet_starts[:, None] + np.arange(snippet_length), first_index, last_index).ravel()
    ]  # n l -> s
