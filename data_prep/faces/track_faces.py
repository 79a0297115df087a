"""Faces of all frames of a clip: a few frames are searched, in the others the known faces are followed."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from data_prep.faces.choose_person import match_faces
from data_prep.faces.face import Face

SEARCH_INTERVAL_FRAMES = 5
"""Every fifth frame and the last are searched: 4 of 16."""

Detector = Callable[[np.ndarray], list[list[Face]]]
"""Frames to the faces in each."""
Redetector = Callable[[np.ndarray, list[list[Face]]], list[list[Face]]]
"""Frames and about where faces are in each, to those that are there."""


def find_faces(
    frames: UInt8[np.ndarray, "s h w 3"],
    times: Float[np.ndarray, " s"],
    detect: Detector,
    redetect: Redetector | None,
) -> list[list[Face]]:
    """Faces of each frame; frames at the same time are the same frame, and looked at once.

    Between two searched frames that show the same people, each face is looked for on the straight line
    between its two places; a frame where one is not found there is searched, and so are those between frames
    that differ. Without `redetect` all are.
    """
    times, first_indices, inverse = np.unique(times, return_index=True, return_inverse=True)
    all_indices = range(len(times))
    faces_by_frame: dict[int, list[Face]] = {}

    def detect_in(indices: list[int]) -> None:
        if indices:
            faces_by_frame.update(zip(indices, detect(frames[first_indices[indices]]), strict=True))

    if redetect is not None:
        detect_in([i for i in all_indices if i % SEARCH_INTERVAL_FRAMES == 0 or i == len(times) - 1])
        predicted = _predict_faces(faces_by_frame, times)
        indices = list(predicted)
        nearby_faces = redetect(frames[first_indices[indices]], list(predicted.values())) if indices else []
        faces_by_frame |= {
            i: faces
            for i, faces in zip(indices, nearby_faces, strict=True)
            if len(faces) == len(predicted[i])
        }
    detect_in([i for i in all_indices if i not in faces_by_frame])
    return [faces_by_frame[i] for i in inverse]


def _predict_faces(
    faces_by_frame: dict[int, list[Face]], times: Float[np.ndarray, " n"]
) -> dict[int, list[Face]]:
    """About where the faces are in each frame between two searched ones that show the same people."""
    predicted = {}
    for start, end in itertools.pairwise(sorted(faces_by_frame)):
        pairs = match_faces(faces_by_frame[start], faces_by_frame[end])
        if not pairs or not len(pairs) == len(faces_by_frame[start]) == len(faces_by_frame[end]):
            continue
        for i in range(start + 1, end):
            fraction = (times[i] - times[start]) / (times[end] - times[start])
            predicted[i] = [
                interpolate_face(faces_by_frame[start][a], faces_by_frame[end][b], fraction) for a, b in pairs
            ]
    return predicted


def interpolate_face(a: Face, b: Face, fraction: float) -> Face:
    """The face at `fraction` of the way from `a` to `b`."""

    def interpolate(x, y):
        return ((1 - fraction) * x + fraction * y).astype(np.float32)

    score = (1 - fraction) * a.score + fraction * b.score
    return Face(interpolate(a.box, b.box), interpolate(a.landmarks, b.landmarks), score)


def interpolate_faces(
    faces: Sequence[Face], known_times: Float[np.ndarray, " n"], times: Float[np.ndarray, " m"]
) -> list[Face]:
    """The faces of one person, seen at the times `known_times`, at other times; before and after as at the
    ends."""
    known_times, first_indices = np.unique(known_times, return_index=True)
    faces = [faces[i] for i in first_indices]
    if len(faces) == 1:
        return faces * len(times)
    upper_indices = np.clip(np.searchsorted(known_times, times), 1, len(known_times) - 1)
    fractions = np.clip(
        (times - known_times[upper_indices - 1])
        / (known_times[upper_indices] - known_times[upper_indices - 1]),
        0,
        1,
    )
    return [
        interpolate_face(faces[i - 1], faces[i], fraction)
        for i, fraction in zip(upper_indices, fractions, strict=True)
    ]
