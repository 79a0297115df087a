"""People through a clip: faces linked over time, and the person that the clip is about."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from data_prep.faces.face import Face

FARTHEST = 0.75
"""Two faces may be the same person's when their centres are at most this far apart, in mean side lengths."""
SIZE_RATIO = 1.6
"""... and neither is more than this many times the other's size."""
PERSON_SHARE = 0.3
"""A track seen in this share of the frames counts as a person."""
AT_THE_EDGE = 0.5
"""A face in a corner of the picture weighs so much of one in its centre."""
SPEECH = 2.0
"""`exp(2 r)` weighs a mouth whose movement correlates by r with the sound: at r = 0.5 as twice the size."""


@dataclasses.dataclass
class Track:
    """Faces that are taken for one person's."""

    faces: dict[int, Face]  # frame index -> face

    @property
    def last(self) -> Face:
        """The newest face."""
        return next(reversed(self.faces.values()))


Listen = Callable[[Sequence[Track]], Sequence[float]]


def choose_track(
    faces: list[list[Face]], shape: tuple[int, int], listen: Listen | None = None, person: int = 0
) -> tuple[list[Face | None], int]:
    """The face of the person that a clip is about, frame by frame, and the number of people in it.

    A person is a track seen in at least 30 % of the frames, so one who leaves the picture or a cut to another
    place can count twice; the chosen one always counts. The largest weight wins: the sum over frames of side
    length times place (1 in the centre, 0.5 in a corner), times `exp(2 r)` where there are several people.

    Args:
      faces: those of each frame in order of time.
      shape: height and width of the frames.
      listen: gives r for each of several people: how their mouth moves with the sound (`talking.py`).
      person: 0 is the chosen one, 1 the one of the next weight, and so on.

    Returns:
      One face or None for each frame, and how many people there are; all None without any face,
      or without so many people.
    """
    tracks = link(faces)
    if not tracks:
        return [None] * len(faces), 0
    weights = [_weight(track, shape) for track in tracks]
    best = int(np.argmax(weights))
    people = [i for i, t in enumerate(tracks) if i == best or len(t.faces) >= PERSON_SHARE * len(faces)]
    if listen is not None and len(people) > 1:
        for i, r in zip(people, listen([tracks[i] for i in people]), strict=True):
            weights[i] *= math.exp(SPEECH * r)
    people.sort(key=lambda i: -weights[i])
    track = tracks[people[person]] if person < len(people) else Track({})
    return [track.faces.get(i) for i in range(len(faces))], len(people)


def link(faces: list[list[Face]]) -> list[Track]:
    """Tracks of all faces: each face goes to the nearest track that may take it, or begins a new one."""
    tracks: list[Track] = []
    for index, found in enumerate(faces):
        pairs = dict(pair([track.last for track in tracks], found))
        for number, face in pairs.items():
            tracks[number].faces[index] = found[face]
        taken = set(pairs.values())
        tracks += [Track({index: face}) for i, face in enumerate(found) if i not in taken]
    return tracks


def pair(before: Sequence[Face], after: Sequence[Face]) -> list[tuple[int, int]]:
    """Indices of faces in two frames that may be the same person's, each used once, closest pairs first."""
    near = [(distance(a, b), i, j) for i, a in enumerate(before) for j, b in enumerate(after)]
    pairs: list[tuple[int, int]] = []
    for far, i, j in sorted(near):
        if far <= FARTHEST and all(i != left and j != right for left, right in pairs):
            pairs.append((i, j))
    return pairs


def distance(a: Face, b: Face) -> float:
    """Distance of the centres in mean side lengths; infinite when the sizes differ too much."""
    side_a, side_b = _side(a), _side(b)
    if not 1 / SIZE_RATIO <= side_a / max(side_b, 1e-9) <= SIZE_RATIO:
        return float("inf")
    return float(np.hypot(*(a.centre - b.centre)) / ((side_a + side_b) / 2))


def _weight(track: Track, shape: tuple[int, int]) -> float:
    """Sum of side lengths, each by its place: a large face, a steady and a central one all count."""
    middle = np.array(shape[::-1]) / 2
    faces = track.faces.values()
    aside = [math.hypot(*((face.centre - middle) / middle)) / math.sqrt(2) for face in faces]
    places = [1 - (1 - AT_THE_EDGE) * min(1.0, far) for far in aside]
    return sum(_side(face) * place for face, place in zip(faces, places, strict=True))


def _side(face: Face) -> float:
    return float((face.box[2:] - face.box[:2]).mean())
