"""Which files are answered, and where a long one is cut."""

import math
import os
from collections.abc import Iterator, Sequence

from emofuse_jax.serving.interfaces import LoadedBundle

MAX_EXTENSION_FRACTION = 0.1
"""A rest of at most this share of a window lengthens the last window instead of opening another."""
AUDIO_SUFFIXES = (".aac", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma")
VIDEO_SUFFIXES = (".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm")


def cut_windows(duration_seconds: float, window_seconds: float) -> list[tuple[float, float]]:
    """Start and end of the windows of a file of `duration_seconds`, in seconds.

    A file up to a window long (and a tenth more) is one window, as a training clip is. A longer one is cut
    every `window_seconds`; the last window is moved back to end with the file, so that every window is a
    whole one, unless no more than a tenth of a window is left over: the last window then takes it.
    """
    count = max(1, math.ceil(duration_seconds / window_seconds - MAX_EXTENSION_FRACTION - 1e-9))
    last_start = max(0.0, min((count - 1) * window_seconds, duration_seconds - window_seconds))
    return [(i * window_seconds, (i + 1) * window_seconds) for i in range(count - 1)] + [
        (last_start, duration_seconds)
    ]


def find_media_files(paths: Sequence[str]) -> Iterator[str]:
    """The files that are named, and the media files in the folders that are named, by suffix and in order."""
    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                if name.lower().endswith(AUDIO_SUFFIXES + VIDEO_SUFFIXES):
                    yield os.path.join(folder, name)


def plan_windows(duration_seconds: float, bundle: LoadedBundle) -> list[tuple[float, float, tuple]]:
    """Start and end of a file's windows, and the part to open: (None, None) where it is the whole file."""
    windows = cut_windows(duration_seconds, bundle.metadata["window"]["seconds"])
    return [(start, end, (None, None) if len(windows) == 1 else (start, end)) for start, end in windows]
