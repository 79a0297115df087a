"""Media files below a folder."""

import os
from collections.abc import Iterator

MEDIA = (".mp4", ".avi", ".flv", ".mov", ".mkv", ".webm", ".wav", ".flac", ".mp3")


def files_below(source: str) -> Iterator[str]:
    """Paths of all files below `source`, in order, through links but never in circles; no hidden ones."""
    seen = set()
    for folder, folders, names in os.walk(source, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (os.path.join(folder, name) for name in sorted(names) if not name.startswith("."))


def media_below(source: str) -> Iterator[str]:
    """The files below `source` that are media by their names."""
    return (path for path in files_below(source) if path.lower().endswith(MEDIA))


def stem(path: str) -> str:
    """A file's name without folder and ending."""
    return os.path.splitext(os.path.basename(path))[0]
