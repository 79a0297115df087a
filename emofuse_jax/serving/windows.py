"""Finds the media files to predict and cuts long files into windows."""

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence

from emofuse_jax.serving.interfaces import LoadedBundle

MAX_EXTENSION_FRACTION = 0.1
"""The last window is extended if at most this fraction of a window is left over at the end."""
AUDIO_SUFFIXES = (".aac", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma")
"""File name suffixes of audio files, in lower case."""
VIDEO_SUFFIXES = (".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm")
"""File name suffixes of video files, in lower case."""


@dataclasses.dataclass(frozen=True)
class Window:
    """Part of a media file that gets one prediction."""

    start: float
    """Start in seconds."""
    end: float
    """End in seconds."""
    is_complete_file: bool
    """True if the complete file is decoded, regardless of `start` and `end`."""

    @property
    def clip_range(self) -> tuple[float, float] | tuple[None, None]:
        """Returns start and end of the part to decode, in seconds; two None stand for the complete file."""
        return (None, None) if self.is_complete_file else (self.start, self.end)


def cut_windows(duration_seconds: float, window_seconds: float) -> list[tuple[float, float]]:
    """Returns a list of the (start, end) times of the windows of a file, in seconds and in order.

    A file of up to 1.1 windows is one window, because a training clip is one window too. A longer file is cut
    every `window_seconds`. The last window is moved back so that it ends with the file and has full length.
    If at most a tenth of a window is left over, the last window is extended instead.

    Args:
      duration_seconds: duration of the file; 0 gives one window.
      window_seconds: length of a window, above 0.

    Raises:
      ZeroDivisionError: `window_seconds` is 0.
    """
    count = max(1, math.ceil(duration_seconds / window_seconds - MAX_EXTENSION_FRACTION - 1e-9))
    last_start = max(0.0, min((count - 1) * window_seconds, duration_seconds - window_seconds))
    return [(i * window_seconds, (i + 1) * window_seconds) for i in range(count - 1)] + [
        (last_start, duration_seconds)
    ]


def find_media_files(paths: Sequence[str]) -> Iterator[str]:
    """Yields the paths of the files in `paths`, and of all media files below the directories in `paths`.

    A path that is not a directory is yielded unchanged, even if it does not exist. Files in directories are
    selected by suffix (case is ignored): .aac .flac .m4a .mp3 .oga .ogg .opus .wav .wma, .avi .flv .m4v .mkv
    .mov .mp4 .mpeg .mpg .ogv .ts .webm. Each directory yields its files, sorted, and then its subdirectories,
    sorted too; paths begin with the path of the directory. Directories that cannot be read are skipped.
    """
    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                if name.lower().endswith(AUDIO_SUFFIXES + VIDEO_SUFFIXES):
                    yield os.path.join(folder, name)


def plan_windows(duration_seconds: float, bundle: LoadedBundle) -> list[Window]:
    """Returns the windows of a file that lasts `duration_seconds`, in the order of time.

    Their length is `bundle.metadata["window"]["seconds"]`. A Window has `start` and `end` in seconds, and
    `is_complete_file`, which is True if the file has only one window. This is so for up to 1.1 window
    lengths. In a longer file, the last window is moved back to end
    with the file; if at most a tenth of a window is left over, it is extended instead.
    """
    times = cut_windows(duration_seconds, bundle.metadata["window"]["seconds"])
    return [Window(start, end, is_complete_file=len(times) == 1) for start, end in times]
