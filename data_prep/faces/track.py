"""One person's face through a clip: detections linked over time, and the track that the clip is about."""

import dataclasses

import numpy as np

from data_prep.faces.detect import Face

FARTHEST = 0.75
"""Two faces may be the same person's when their centres are at most this far apart, in mean side lengths."""
SIZE_RATIO = 1.6
"""... and neither is more than this many times the other's size."""
PERSON_SHARE = 0.3
"""A track seen in this share of the frames counts as a person."""


@dataclasses.dataclass
class _Track:
    faces: dict[int, Face]  # frame index -> face
    last: Face

    def weight(self) -> float:
        """Sum of side lengths: a large face and a steady one both count."""
        return sum(_side(face) for face in self.faces.values())


def choose_track(faces: list[list[Face]]) -> tuple[list[Face | None], int]:
    """The largest, steadiest face of a clip, frame by frame, and the number of people in it.

    `faces`: the faces of each frame in order of time. The track with the largest sum of side lengths wins.
    A person is a track seen in at least 30 % of the frames, so one who leaves the picture or a cut to another
    place can count twice; the chosen track always counts. No face at all gives all None and 0.
    """
    tracks: list[_Track] = []
    for index, found in enumerate(faces):
        _extend(tracks, index, found)
    if not tracks:
        return [None] * len(faces), 0
    chosen = max(tracks, key=_Track.weight)
    people = sum(t is chosen or len(t.faces) >= PERSON_SHARE * len(faces) for t in tracks)
    return [chosen.faces.get(i) for i in range(len(faces))], people


def _extend(tracks: list[_Track], index: int, found: list[Face]) -> None:
    """Gives each face of a frame to the nearest track that may take it, closest pairs first, or a new one."""
    pairs = [(_distance(t.last, face), t, face) for t in tracks for face in found]
    taken: set[int] = set()
    for distance, track, face in sorted(pairs, key=lambda pair: pair[0]):
        if distance > FARTHEST or index in track.faces or id(face) in taken:
            continue
        track.faces[index] = track.last = face
        taken.add(id(face))
    tracks += [_Track({index: face}, face) for face in found if id(face) not in taken]


def _side(face: Face) -> float:
    return float((face.box[2:] - face.box[:2]).mean())


def _distance(a: Face, b: Face) -> float:
    """Distance of the centres in mean side lengths; infinite when the sizes differ too much."""
    side_a, side_b = _side(a), _side(b)
    if not 1 / SIZE_RATIO <= side_a / max(side_b, 1e-9) <= SIZE_RATIO:
        return float("inf")
    centres = [(face.box[:2] + face.box[2:]) / 2 for face in (a, b)]
    return float(np.hypot(*(centres[0] - centres[1])) / ((side_a + side_b) / 2))
