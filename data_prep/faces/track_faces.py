"""Faces of all frames of a clip: a few frames are searched, in the others the known faces are followed."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from data_prep.faces.choose_person import pair
from data_prep.faces.face import Face

EVERY = 5
"""Every fifth frame and the last are searched: 4 of 16."""

Search = Callable[[np.ndarray], list[list[Face]]]
"""Frames to the faces in each."""
Look = Callable[[np.ndarray, list[list[Face]]], list[list[Face]]]
"""Frames and about where faces are in each, to those that are there."""


def find_faces(
    frames: UInt8[np.ndarray, "s h w 3"], times: Float[np.ndarray, " s"], search: Search, look: Look | None
) -> list[list[Face]]:
    """Faces of each frame; frames at the same time are the same frame, and looked at once.

    Between two searched frames that show the same people, each face is looked for on the straight line
    between its two places; a frame where one is not found there is searched, and so are those between frames
    that differ. Without `look` all are.
    """
    times, source, place = np.unique(times, return_index=True, return_inverse=True)
    everyone = range(len(times))
    found: dict[int, list[Face]] = {}

    def add(numbers: list[int]) -> None:
        if numbers:
            found.update(zip(numbers, search(frames[source[numbers]]), strict=True))

    if look is not None:
        add([i for i in everyone if i % EVERY == 0 or i == len(times) - 1])
        guesses = _guesses(found, times)
        numbers = list(guesses)
        seen = look(frames[source[numbers]], list(guesses.values())) if numbers else []
        found |= {i: faces for i, faces in zip(numbers, seen, strict=True) if len(faces) == len(guesses[i])}
    add([i for i in everyone if i not in found])
    return [found[i] for i in place]


def _guesses(found: dict[int, list[Face]], times: Float[np.ndarray, " n"]) -> dict[int, list[Face]]:
    """About where the faces are in each frame between two searched ones that show the same people."""
    guesses = {}
    for start, end in itertools.pairwise(sorted(found)):
        pairs = pair(found[start], found[end])
        if not pairs or not len(pairs) == len(found[start]) == len(found[end]):
            continue
        for i in range(start + 1, end):
            share = (times[i] - times[start]) / (times[end] - times[start])
            guesses[i] = [mix(found[start][a], found[end][b], share) for a, b in pairs]
    return guesses


def mix(a: Face, b: Face, share: float) -> Face:
    """The face at `share` of the way from `a` to `b`."""

    def line(x, y):
        return ((1 - share) * x + share * y).astype(np.float32)

    score = (1 - share) * a.score + share * b.score
    return Face(line(a.box, b.box), line(a.landmarks, b.landmarks), score)


def at_times(
    faces: Sequence[Face], known: Float[np.ndarray, " n"], times: Float[np.ndarray, " m"]
) -> list[Face]:
    """The faces of one person, seen at the times `known`, at other times; before and after as at the ends."""
    known, first = np.unique(known, return_index=True)
    faces = [faces[i] for i in first]
    if len(faces) == 1:
        return faces * len(times)
    ends = np.clip(np.searchsorted(known, times), 1, len(known) - 1)
    shares = np.clip((times - known[ends - 1]) / (known[ends] - known[ends - 1]), 0, 1)
    return [mix(faces[i - 1], faces[i], share) for i, share in zip(ends, shares, strict=True)]
