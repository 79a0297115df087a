"""Faces in snippets of consecutive frames: some frames are searched, those between are interpolated."""

import itertools
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from data_prep.faces.detect import Face
from data_prep.faces.track import choose_track

EVERY = 4
"""Of a snippet's frames every fourth and the last are searched. On 14 real clips, 96 frames each, the
landmarks lie within 4 % (median .3 %) of a face's side of those of a search in every frame, in 40 % of the
time."""
STEADY = 0.25
"""A face that moves by more, in its side lengths, is searched for in the frames between, too."""

Search = Callable[[np.ndarray], list[list[Face]]]


def track_snippets(
    frames: np.ndarray, times: Float[np.ndarray, " s"], length: int, search: Search
) -> tuple[list[Face | None], int]:
    """One face or None for each frame, and how many people there are; see `choose_track`.

    `frames`: uint8 [s h w 3], snippets of `length` frames at `times`; `search` finds the faces of some of
    them. A frame between two searched ones is searched where they disagree (a face in one alone, or one that
    moved far); else its face lies on the straight line between theirs in box, landmarks and score. Where two
    searched ones of the person chosen in the end disagree, an unsearched frame between them has no face.
    """
    _, source, place = np.unique(times, return_index=True, return_inverse=True)  # snippets may overlap
    looked = _searched(length, place, len(source))
    found = _search(frames[source[looked]], looked, search)
    again = _unclear(choose_track([found[i] for i in np.flatnonzero(looked)])[0], np.flatnonzero(looked))
    again = np.array([i for i in again if not looked[i]], int)
    if len(again):
        missing = np.isin(np.arange(len(source)), again)
        found |= _search(frames[source[missing]], missing, search)
    order = sorted(found)
    track, people = choose_track([found[i] for i in order])
    faces = _fill(track, order, len(source))
    return [faces[i] for i in place], people


def _searched(length: int, place: np.ndarray, count: int) -> Bool[np.ndarray, " n"]:
    """Which of the distinct frames stand at a searched place of some snippet."""
    at = np.arange(length)
    chosen = np.tile((at % EVERY == 0) | (at == length - 1), len(place) // length)
    looked = np.zeros(count, bool)
    looked[place[chosen]] = True
    return looked


def _search(frames: np.ndarray, which: Bool[np.ndarray, " n"], search: Search) -> dict[int, list[Face]]:
    return dict(zip(np.flatnonzero(which).tolist(), search(frames), strict=True))


def _unclear(track: list[Face | None], at: np.ndarray) -> list[int]:
    """The frames between neighbours that disagree."""
    pairs = zip(track, track[1:], at, at[1:], strict=False)
    return [i for a, b, start, end in pairs if _disagree(a, b) for i in range(start + 1, end)]


def _disagree(a: Face | None, b: Face | None) -> bool:
    if a is None or b is None:
        return a is not b
    return float(np.abs(a.box - b.box).max()) > STEADY * float((a.box[2:] - a.box[:2]).mean())


def _fill(track: list[Face | None], order: list[int], count: int) -> list[Face | None]:
    """Faces of all frames: those of the track, and between two of them that agree the interpolated ones."""
    faces: list[Face | None] = [None] * count
    for i, face in zip(order, track, strict=True):
        faces[i] = face
    for start, end in itertools.pairwise(order):
        if faces[start] is not None and not _disagree(faces[start], faces[end]):
            for i in range(start + 1, end):
                faces[i] = mix(faces[start], faces[end], (i - start) / (end - start))
    return faces


def mix(a: Face, b: Face, share: float) -> Face:
    """The face at `share` of the way from `a` to `b`."""

    def line(x, y):
        return ((1 - share) * x + share * y).astype(np.float32)

    score = (1 - share) * a.score + share * b.score
    return Face(line(a.box, b.box), line(a.landmarks, b.landmarks), score)
