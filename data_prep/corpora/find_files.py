"""Finds files below a folder."""

import os
from collections.abc import Iterator

MEDIA_EXTENSIONS = (".mp4", ".avi", ".flv", ".mov", ".mkv", ".webm", ".wav", ".flac", ".mp3")


def find_files(source: str) -> Iterator[str]:
    """Yields the paths of all files below `source`, sorted within each folder, without hidden files.

    Paths begin with `source`; the files of a folder come before those of its subfolders. Names of hidden
    files begin with a dot; other files in hidden folders are yielded. Follows symbolic links, but visits each
    folder only once. Yields nothing if `source` is not a folder; folders that can't be read are left out.
    """
    visited = set()
    for folder, folders, names in os.walk(source, followlinks=True):
        real_path = os.path.realpath(folder)
        if real_path in visited:  # a link to a folder that was visited before
            folders.clear()
            continue
        visited.add(real_path)
        folders.sort()
        yield from (os.path.join(folder, name) for name in sorted(names) if not name.startswith("."))


def find_media_files(source: str) -> Iterator[str]:
    """Yields the paths of the files below `source` with one of the extensions in MEDIA_EXTENSIONS.

    These are mp4, avi, flv, mov, mkv, webm, wav, flac and mp3, in small or capital letters. Paths begin with
    `source` and are sorted within each folder, before those of its subfolders; hidden files are left out, but
    not files in hidden folders. Yields nothing if `source` is not a
    folder.
    """
    return (path for path in find_files(source) if path.lower().endswith(MEDIA_EXTENSIONS))


def file_stem(path: str) -> str:
    """Returns the name of a file without folder and last extension: `a.b` for `folder/a.b.mp4`."""
    return os.path.splitext(os.path.basename(path))[0]
