"""People through a clip: faces linked over time, and the person that the clip is about."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from data_prep.faces.face import Face

MAX_CENTRE_DISTANCE = 0.75
"""Two faces may be the same person's when their centres are at most this far apart, in mean side lengths."""
MAX_SIZE_RATIO = 1.6
"""... and neither is more than this many times the other's size."""
MIN_PERSON_FRACTION = 0.3
"""A track seen in this share of the frames counts as a person."""
CORNER_WEIGHT = 0.5
"""A face in a corner of the picture weighs so much of one in its centre."""
SPEECH_WEIGHT = 2.0
"""`exp(2 r)` weighs a mouth whose movement correlates by r with the sound: at r = 0.5 as twice the size."""


@dataclasses.dataclass
class Track:
    """Faces that are taken for one person's."""

    faces: dict[int, Face]  # frame index -> face

    @property
    def last_face(self) -> Face:
        """The newest face."""
        return next(reversed(self.faces.values()))


SpeechScorer = Callable[[Sequence[Track]], Sequence[float]]


def choose_track(
    faces_per_frame: list[list[Face]],
    frame_shape: tuple[int, int],
    score_speech: SpeechScorer | None = None,
    person: int = 0,
) -> tuple[list[Face | None], int]:
    """The face of the person that a clip is about, frame by frame, and the number of people in it.

    A person is a track seen in at least 30 % of the frames, so one who leaves the picture or a cut to another
    place can count twice; the chosen one always counts. The largest weight wins: the sum over frames of side
    length times place (1 in the centre, 0.5 in a corner), times `exp(2 r)` where there are several people.

    Args:
      faces_per_frame: those of each frame in order of time.
      frame_shape: height and width of the frames.
      score_speech: gives r for each of several people: how their mouth moves with the sound
      (`active_speaker.py`).
      person: 0 is the chosen one, 1 the one of the next weight, and so on.

    Returns:
      One face or None for each frame, and how many people there are; all None without any face,
      or without so many people.
    """
    tracks = link_faces(faces_per_frame)
    if not tracks:
        return [None] * len(faces_per_frame), 0
    weights = [_track_weight(track, frame_shape) for track in tracks]
    best_index = int(np.argmax(weights))
    person_indices = [
        i
        for i, candidate in enumerate(tracks)
        if i == best_index or len(candidate.faces) >= MIN_PERSON_FRACTION * len(faces_per_frame)
    ]
    if score_speech is not None and len(person_indices) > 1:
        for i, r in zip(person_indices, score_speech([tracks[i] for i in person_indices]), strict=True):
            weights[i] *= math.exp(SPEECH_WEIGHT * r)
    person_indices.sort(key=lambda i: -weights[i])
    track = tracks[person_indices[person]] if person < len(person_indices) else Track({})
    return [track.faces.get(i) for i in range(len(faces_per_frame))], len(person_indices)


def link_faces(faces_per_frame: list[list[Face]]) -> list[Track]:
    """Tracks of all faces: each face goes to the nearest track that may take it, or begins a new one."""
    tracks: list[Track] = []
    for frame_index, frame_faces in enumerate(faces_per_frame):
        pairs = dict(match_faces([track.last_face for track in tracks], frame_faces))
        for track_index, face in pairs.items():
            tracks[track_index].faces[frame_index] = frame_faces[face]
        matched = set(pairs.values())
        tracks += [Track({frame_index: face}) for i, face in enumerate(frame_faces) if i not in matched]
    return tracks


def match_faces(before: Sequence[Face], after: Sequence[Face]) -> list[tuple[int, int]]:
    """Indices of faces in two frames that may be the same person's, each used once, closest pairs first."""
    candidates = [(face_distance(a, b), i, j) for i, a in enumerate(before) for j, b in enumerate(after)]
    pairs: list[tuple[int, int]] = []
    for separation, i, j in sorted(candidates):
        if separation <= MAX_CENTRE_DISTANCE and all(i != used_i and j != used_j for used_i, used_j in pairs):
            pairs.append((i, j))
    return pairs


def face_distance(a: Face, b: Face) -> float:
    """Distance of the centres in mean side lengths; infinite when the sizes differ too much."""
    side_a, side_b = _mean_side(a), _mean_side(b)
    if not 1 / MAX_SIZE_RATIO <= side_a / max(side_b, 1e-9) <= MAX_SIZE_RATIO:
        return float("inf")
    return float(np.hypot(*(a.centre - b.centre)) / ((side_a + side_b) / 2))


def _track_weight(track: Track, frame_shape: tuple[int, int]) -> float:
    """Sum of side lengths, each by its place: a large face, a steady and a central one all count."""
    frame_centre = np.array(frame_shape[::-1]) / 2
    faces = track.faces.values()
    offsets = [math.hypot(*((face.centre - frame_centre) / frame_centre)) / math.sqrt(2) for face in faces]
    position_weights = [1 - (1 - CORNER_WEIGHT) * min(1.0, offset) for offset in offsets]
    return sum(
        _mean_side(face) * position_weight
        for face, position_weight in zip(faces, position_weights, strict=True)
    )


def _mean_side(face: Face) -> float:
    return float((face.box[2:] - face.box[:2]).mean())
