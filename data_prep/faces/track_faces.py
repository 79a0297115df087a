"""Finds the faces of all frames of a clip: searches a few frames, and follows known faces in the others."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from data_prep.faces.choose_person import match_faces
from data_prep.faces.face import Face

SEARCH_INTERVAL_FRAMES = 5
"""Interval of searched frames; the last frame is searched too. Of 16 frames, 4 are searched."""

Detector = Callable[[np.ndarray], list[list[Face]]]
"""Function from frames to the faces in each frame."""
Redetector = Callable[[np.ndarray, list[list[Face]]], list[list[Face]]]
"""Function from frames and approximate faces in each frame to the faces that are found there."""


def find_faces(
    frames: UInt8[np.ndarray, "s h w 3"],
    times: Float[np.ndarray, " s"],
    detect: Detector,
    redetect: Redetector | None,
) -> list[list[Face]]:
    """Finds the faces of each frame.

    Every fifth frame and the last are searched. If two successive searched frames show the same people,
    each face is expected on the straight line between its two positions in the frames between them. A frame
    is also searched if a face is not found at its expected position, or if the people differ. If `redetect`
    is None, all frames are searched. Frames with equal times count as the same frame and are processed once.

    Args:
      frames: RGB images of equal size.
      times: time of each frame in seconds.
      detect: searches frames; returns a list of faces for each.
      redetect: finds faces at expected positions, from frames and a list of expected faces for each; returns
        a list of faces for each.

    Returns:
      A list for each frame with its faces, as `detect` or `redetect` orders them; empty for a frame without
      faces. Each `Face` has box, landmarks and score.

    Raises:
      ValueError: `detect` or `redetect` returns another number of lists than frames. Their own errors pass
        through.
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
    """Returns the expected faces of the frames between searched frames with the same people, by frame index.

    `faces_by_frame` has the faces of each searched frame by frame index, `times` the time of each of n frames
    in seconds. The faces are ordered as `match_faces` orders the pairs, closest first. A frame is left out if
    the searched frames before and after it show no faces or different people.
    """
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
    """Returns a face with box, landmarks and score between those of two faces, by linear interpolation.

    `fraction` 0 gives `a`, 1 gives `b`.
    """

    def interpolate(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return ((1 - fraction) * x + fraction * y).astype(np.float32)

    score = (1 - fraction) * a.score + fraction * b.score
    return Face(interpolate(a.box, b.box), interpolate(a.landmarks, b.landmarks), score)


def interpolate_faces(
    faces: Sequence[Face], known_times: Float[np.ndarray, " n"], times: Float[np.ndarray, " m"]
) -> list[Face]:
    """Returns the face of one person at each of m `times`, from n faces at `known_times`.

    Both are in the same unit. n is at least 1; `known_times` may have any order, and of equal ones the first
    counts. Box, landmarks and score are interpolated linearly. Before the first and after
    the last known time, the face is that of the nearest known time.
    """
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
