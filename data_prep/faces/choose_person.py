"""Links faces over time into tracks, and chooses the main person of a clip."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from data_prep.faces.face import Face

MAX_CENTRE_DISTANCE = 0.75
"""Largest distance of two faces of the same person in successive frames, in mean side lengths."""
MAX_SIZE_RATIO = 1.6
"""Largest ratio of the sizes of two faces of the same person in successive frames."""
MIN_PERSON_FRACTION = 0.3
"""Fraction of the frames in which a track must be visible to count as a person."""
CORNER_WEIGHT = 0.5
"""Weight of a face in a corner of the frame, relative to one in the centre."""
SPEECH_WEIGHT = 2.0
"""Factor in `exp(2 r)`, the weight of a mouth movement with correlation r to the audio; r = 0.5 counts as
2.7 times the size."""


@dataclasses.dataclass
class Track:
    """Faces of one person over time, as linked by `link_faces`."""

    faces: dict[int, Face]  # frame index -> face

    @property
    def last_face(self) -> Face:
        """The `Face` in the latest frame.

        It has `box` (x0 y0 x1 y1) and five `landmarks` (x, y) in pixels of its frame, and `score`. Raises
        StopIteration if the track has no faces.
        """
        return next(reversed(self.faces.values()))


SpeechScorer = Callable[[Sequence[Track]], Sequence[float]]


def choose_track(
    faces_per_frame: list[list[Face]],
    frame_shape: tuple[int, int],
    score_speech: SpeechScorer | None = None,
    person: int = 0,
) -> tuple[list[Face | None], int]:
    """Returns the face of the chosen person in each frame, and the number of people in the clip.

    A person is a track that is visible in at least 30 % of the frames; the track with the largest weight
    before speech is scored always counts. Someone who leaves the frame and comes back may count twice, and so
    may someone before and after a cut. The weight of a track is the sum over frames of side length times
    position weight (1 in the centre, 0.5 in a corner). If there are several people, the weight is multiplied
    by `exp(2 r)`, in which r is the speech score.

    Args:
      faces_per_frame: all faces of each frame, in order of time.
      frame_shape: height and width of the frames.
      score_speech: takes a list of tracks, one for each person, and returns r of each, the correlation of
        mouth movement and audio; None: speech is not scored.
      person: 0 or larger; 0: the person with the largest weight, 1: the second largest, and so on.

    Returns:
      A list with one `Face` (box, landmarks, score) for each frame, None if the person is not visible, and
      the number of people. All entries are None if there are no faces, or if `person` is not less than the
      number of people.

    Raises:
      ValueError: `score_speech` returns another number of scores than people. Its own errors pass through.
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
    """Links all faces to tracks, one track for each person, in the order in which they appear.

    Each `Track` has `faces`, a dict from frame index to `Face`. A face extends the nearest track whose latest
    face, however long ago, is at most 0.75 mean side lengths away and differs in size by a factor of 1.6 or
    less; otherwise it begins a new track. The list is empty without faces.
    """
    tracks: list[Track] = []
    for frame_index, frame_faces in enumerate(faces_per_frame):
        pairs = dict(match_faces([track.last_face for track in tracks], frame_faces))
        for track_index, face in pairs.items():
            tracks[track_index].faces[frame_index] = frame_faces[face]
        matched = set(pairs.values())
        tracks += [Track({frame_index: face}) for i, face in enumerate(frame_faces) if i not in matched]
    return tracks


def match_faces(before: Sequence[Face], after: Sequence[Face]) -> list[tuple[int, int]]:
    """Matches faces of two frames that may be the same person, closest pairs first.

    Faces match if their centres are at most 0.75 mean side lengths apart and their sizes differ by a factor
    of 1.6 or less. Returns pairs of indices into `before` and `after`; each index is used at most once. The
    list is empty if no faces match.
    """
    candidates = [(face_distance(a, b), i, j) for i, a in enumerate(before) for j, b in enumerate(after)]
    pairs: list[tuple[int, int]] = []
    for separation, i, j in sorted(candidates):
        if separation <= MAX_CENTRE_DISTANCE and all(i != used_i and j != used_j for used_i, used_j in pairs):
            pairs.append((i, j))
    return pairs


def face_distance(a: Face, b: Face) -> float:
    """Returns the distance of the centres of two faces in mean side lengths.

    The side length of a face is the mean of width and height of its box. The distance is infinity if these
    sizes differ by more than a factor of 1.6 (MAX_SIZE_RATIO).
    """
    side_a, side_b = _mean_side(a), _mean_side(b)
    if not 1 / MAX_SIZE_RATIO <= side_a / max(side_b, 1e-9) <= MAX_SIZE_RATIO:
        return float("inf")
    return float(np.hypot(*(a.centre - b.centre)) / ((side_a + side_b) / 2))


def _track_weight(track: Track, frame_shape: tuple[int, int]) -> float:
    """Returns the sum over a track's faces of side length in pixels times position weight.

    The side length is the mean of width and height of the box. The position weight is 1 in the centre of the
    frame and 0.5 in a corner; `frame_shape` is height and width.
    """
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
