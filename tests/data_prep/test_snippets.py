"""Snippets of consecutive frames: which they are, and the faces between the frames that are searched."""

import os

import numpy as np
import pytest

from data_prep.faces.between import EVERY, mix, track_snippets
from data_prep.media import VideoTrack, probe
from data_prep.sampling import snippet_times
from tests.data_prep.face_fakes import fake_face
from tests.data_prep.media_files import write

# Snippets


def track_of(times):
    times = np.asarray(times, float)
    return VideoTrack(0, np.arange(len(times)), times, np.ones(len(times), bool), True, times.max() + 0.04)


def test_snippets_are_runs_around_the_centres_of_equal_parts():
    track = track_of(np.random.default_rng(0).permutation(100) * 0.04)  # in the order of decoding
    found = np.round(snippet_times(track, 0.0, 4.0, 2, 4) / 0.04).astype(int).reshape(2, 4)
    np.testing.assert_array_equal(found, [[23, 24, 25, 26], [73, 74, 75, 76]])


def test_a_snippet_never_leaves_its_part():
    track = track_of(np.arange(100) * 0.04)
    for first, last in ((0.0, 4.0), (1.0, 2.0), (1.01, 1.79), (3.3, 4.0)):
        found = snippet_times(track, first, last, 6, 16).reshape(6, 16)
        assert found.min() >= first
        assert found.max() < last
        np.testing.assert_allclose(np.diff(found, axis=1), 0.04, atol=1e-9)


def test_a_part_shorter_than_a_snippet_repeats_its_ends():
    track = track_of(np.arange(100) * 0.04)
    found = np.round(snippet_times(track, 1.0, 1.2, 2, 8) / 0.04).astype(int).reshape(2, 8)
    np.testing.assert_array_equal(found, [[25, 25, 26, 27, 28, 29, 29, 29]] * 2)
    np.testing.assert_allclose(snippet_times(track, 1.01, 1.02, 1, 3), 1.0)  # the frame on screen


def test_snippets_of_a_file_are_its_frames(tmp_path):
    """Each frame's grey value is five times its number."""
    from data_prep.frames import read_frames

    film = (np.full((64, 64, 3), 5 * i, np.uint8) for i in range(50))
    write(tmp_path / "a.mp4", frames=film, options={"crf": "0"})
    info = probe(str(tmp_path / "a.mp4"))
    frames, shown, _ = read_frames(info, snippet_times(info.video, 0.0, info.video.end, 2, 5))
    numbers = np.round(frames.mean((1, 2, 3)) / 5).reshape(2, 5)
    np.testing.assert_array_equal(numbers, [[10, 11, 12, 13, 14], [35, 36, 37, 38, 39]])
    np.testing.assert_allclose(shown.reshape(2, 5)[1], np.arange(35, 40) / 25, atol=1e-3)


# Faces between the frames that are searched


def scene(course):
    """Frames that hold their number, and a search that finds a face where `course` has one."""
    searched = []

    def search(frames):
        numbers = frames[:, 0, 0, 0].tolist()
        searched.extend(numbers)
        return [[] if course[i] is None else [fake_face(*course[i], 40)] for i in numbers]

    frames = (
        np.zeros((len(course), 2, 2, 3), np.uint8)
        + np.arange(len(course), dtype=np.uint8)[:, None, None, None]
    )
    return frames, search, searched


def test_a_steady_face_is_searched_for_in_a_few_frames():
    course = [(100 + i, 80 - i) for i in range(16)]
    frames, search, searched = scene(course)
    faces, people = track_snippets(frames, np.arange(16) / 25, 8, search)
    assert people == 1
    assert searched == [0, 4, 7, 8, 12, 15]
    for face, (x, y) in zip(faces, course, strict=True):
        expected = fake_face(x, y, 40)
        np.testing.assert_allclose(face.box, expected.box, atol=1e-3)
        np.testing.assert_allclose(face.landmarks, expected.landmarks, atol=1e-3)
        assert face.box.dtype == face.landmarks.dtype == np.float32


def test_frames_between_two_that_disagree_are_searched():
    course = [(100, 80)] * 8
    course[3:6] = [None] * 3  # gone in frame 4, which is searched; 3 and 5 only then
    frames, search, searched = scene(course)
    faces, _ = track_snippets(frames, np.arange(8) / 25, 8, search)
    assert [face is not None for face in faces] == [c is not None for c in course]
    assert sorted(searched) == list(range(8))
    jump = [(100, 80)] * 5 + [(125, 80)] * 3
    frames, search, searched = scene(jump)
    faces, _ = track_snippets(frames, np.arange(8) / 25, 8, search)
    assert sorted(searched) == [0, 4, 5, 6, 7]
    np.testing.assert_allclose([f.box[0] for f in faces], [80] * 5 + [105] * 3, atol=1e-3)


def test_nothing_is_filled_in_between_two_faces_that_disagree():
    """A large face is chosen first and steady, a small one in the end: it leaps where nobody searched."""
    large, small = {0, 4, 8}, set(range(12))
    searched = []

    def search(frames):
        numbers = frames[:, 0, 0, 0].tolist()
        searched.extend(numbers)
        return [
            [fake_face(100, 80, 60)] * (i in large)
            + [fake_face(300 if i < 2 else 320, 80, 40)] * (i in small)
            for i in numbers
        ]

    frames = np.zeros((16, 2, 2, 3), np.uint8) + np.arange(16, dtype=np.uint8)[:, None, None, None]
    faces, people = track_snippets(frames, np.arange(16) / 25, 16, search)
    assert people == 2
    assert sorted(searched) == [0, 4, *range(8, 13), 15]
    assert [i for i, face in enumerate(faces) if face is None] == [1, 2, 3, 12, 13, 14, 15]
    assert [face.box[0] for face in faces if face is not None] == [280, *[300] * 8]


def test_a_frame_that_stands_twice_is_searched_once():
    frames, search, searched = scene([(100, 80)] * 3)
    place = np.array([0, 0, 1, 2, 2, 0, 1, 1, 2, 2])
    faces, _ = track_snippets(frames[place], place / 25, 5, search)
    assert len(faces) == 10
    assert sorted(searched) == [0, 2]
    assert all(face is not None for face in faces)


def test_no_face_at_all():
    frames, search, searched = scene([None] * 8)
    assert track_snippets(frames, np.arange(8) / 25, 8, search) == ([None] * 8, 0)
    assert searched == [i for i in range(8) if i % EVERY == 0 or i == 7]


def test_mix_is_a_straight_line():
    a, b = fake_face(10, 20, 8, 0.9), fake_face(30, 60, 16, 0.8)
    half = mix(a, b, 0.25)
    np.testing.assert_allclose(half.box, [0.75 * x + 0.25 * y for x, y in zip(a.box, b.box, strict=True)])
    assert half.score == pytest.approx(0.875)
    np.testing.assert_array_equal(mix(a, b, 0.0).landmarks, a.landmarks)


def test_interpolated_faces_are_where_a_search_finds_them(shared_data):
    from data_prep.faces.detect import detect_faces
    from data_prep.frames import read_frames

    info = probe(os.path.join(shared_data, "talking_faces", "bbaf2n.mpg"))
    frames, shown, _ = read_frames(info, snippet_times(info.video, 0.0, info.video.end, 2, 8))
    search = lambda frames: detect_faces(frames, min_face=0.12, min_score=0.8)  # noqa: E731
    faces, people = track_snippets(frames, shown, 8, search)
    assert people == 1
    for face, found in zip(faces, search(frames), strict=True):
        side = (face.box[2:] - face.box[:2]).mean()
        assert np.abs(face.landmarks - found[0].landmarks).max() < 0.05 * side
