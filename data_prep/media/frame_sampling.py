"""Computes the times at which frames of a clip are sampled, for `read_frames`."""

import numpy as np
from jaxtyping import Float

from data_prep.media.probe import VideoTrack
from data_prep.settings import FaceSettings


def frame_times(
    track: VideoTrack, start: float, end: float, settings: FaceSettings
) -> Float[np.ndarray, " s"]:
    """Returns the times of the sampled frames between `start` and `end`, all in seconds of the file.

    There are s = `settings.frames` times, a multiple of `settings.snippet`. If `settings.sampling` is `even`,
    they are the centres of equal parts of the clip. If it is `snippets`, they are those of `frames //
    snippet` runs of `settings.snippet` consecutive frames of `track`. Raises ValueError for another value of
    `sampling`.
    """
    if settings.sampling == "even":
        return even_times(start, end, settings.frames)
    if settings.sampling == "snippets":
        return snippet_times(track, start, end, settings.frames // settings.snippet, settings.snippet)
    raise ValueError(
        f"face settings: sampling {settings.sampling!r}: expected one of even, snippets; correct the settings"
    )


def even_times(start: float, end: float, count: int) -> Float[np.ndarray, " n"]:
    """Returns the centres of n = `count` equal parts of the time from `start` to `end`, in the same unit."""
    return start + (np.arange(count) + 0.5) * (end - start) / count


def snippet_times(
    track: VideoTrack, start: float, end: float, num_snippets: int, snippet_length: int
) -> Float[np.ndarray, " s"]:
    """Returns the times of snippets, which are consecutive frames around the centres of equal parts.

    The frames are those of `track.times`. There are `num_snippets` parts and `snippet_length` frames in each
    snippet, so s is their product. All times are in seconds of the file. A snippet that would reach outside
    `start` to `end` is moved inside. If there are fewer frames than `snippet_length`, the first and last
    frame are repeated. If there is none, the frame that is on screen at `start` is used.
    """
    times = np.sort(track.times)
    inside_indices = np.flatnonzero((times >= start - 1e-6) & (times < end - 1e-6))
    if not len(inside_indices):  # a single frame is on screen all the time
        inside_indices = np.maximum(np.searchsorted(times, [start + 1e-6], side="right") - 1, 0)
    first_index, last_index = inside_indices[0], inside_indices[-1]
    center_indices = np.searchsorted(times, even_times(start, end, num_snippets) + 1e-6, side="right") - 1
    snippet_starts = np.clip(
        center_indices - snippet_length // 2, first_index, max(first_index, last_index + 1 - snippet_length)
    )
    snippet_starts -= max(0, (snippet_length - len(inside_indices)) // 2)  # both ends get repeated frames
    return times[
        np.clip(snippet_starts[:, None] + np.arange(snippet_length), first_index, last_index).ravel()
    ]  # n l -> s
