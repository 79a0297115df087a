"""Media files below a folder."""

import os
from collections.abc import Iterator

MEDIA_EXTENSIONS = (".mp4", ".avi", ".flv", ".mov", ".mkv", ".webm", ".wav", ".flac", ".mp3")


def find_files(source: str) -> Iterator[str]:
    """Paths of all files below `source`, in order, through links but never in circles; no hidden ones."""
    visited = set()
    for folder, folders, names in os.walk(source, followlinks=True):
        real_path = os.path.realpath(folder)
        if real_path in visited:  # a link that leads back up
            folders.clear()
            continue
        visited.add(real_path)
        folders.sort()
        yield from (os.path.join(folder, name) for name in sorted(names) if not name.startswith("."))


def find_media_files(source: str) -> Iterator[str]:
    """The files below `source` that are media by their names."""
    return (path for path in find_files(source) if path.lower().endswith(MEDIA_EXTENSIONS))


def file_stem(path: str) -> str:
    """A file's name without folder and ending."""
    return os.path.splitext(os.path.basename(path))[0]
