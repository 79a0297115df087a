"""Faces in the frames between those that are searched."""

import glob
import os

import cv2
import numpy as np
import pytest

from data_prep.faces.detector import open_detector
from data_prep.faces.track_faces import find_faces, interpolate_face, interpolate_faces
from data_prep.media.frame_sampling import frame_times
from data_prep.media.probe import probe_media
from data_prep.media.video_clip import VideoClip, read_clip_frames
from data_prep.onnx_models.encoders import NO_ENCODER_FILES
from data_prep.settings import RECIPES
from tests.support.face_fakes import fake_face


class Scene:
    """Frames that hold their number; faces are where `places_by_frame` says, and what is asked for is
    kept."""

    def __init__(self, places_by_frame, undetectable_frames=()):
        self.places_by_frame, self.undetectable_frames = places_by_frame, undetectable_frames
        numbers = np.arange(len(places_by_frame), dtype=np.uint8)
        self.frames = np.zeros((len(places_by_frame), 2, 2, 3), np.uint8) + numbers[:, None, None, None]
        self.detected_frames, self.redetected_frames = [], []

    def detect(self, frames):
        numbers = frames[:, 0, 0, 0].tolist()
        self.detected_frames += numbers
        return [[fake_face(*place) for place in self.places_by_frame[i]] for i in numbers]

    def redetect(self, frames, known_faces):
        """Finds what is within 10 pixels of where it is thought to be."""
        numbers = frames[:, 0, 0, 0].tolist()
        self.redetected_frames += numbers
        return [
            [
                fake_face(*place)
                for place in self.places_by_frame[i]
                if i not in self.undetectable_frames
                and any(abs(face.box - fake_face(*place).box).max() < 10 for face in faces)
            ]
            for i, faces in zip(numbers, known_faces, strict=True)
        ]

    def find(self, times=None):
        times = np.arange(len(self.frames)) / 25 if times is None else times
        return find_faces(self.frames, times, self.detect, self.redetect)

    def check(self, faces):
        for frame_faces, places in zip(faces, self.places_by_frame, strict=True):
            assert len(frame_faces) == len(places)
            for face, place in zip(sorted(frame_faces, key=lambda f: f.box[0]), sorted(places), strict=True):
                np.testing.assert_allclose(face.box, fake_face(*place).box, atol=1e-3)


def test_a_steady_face_is_searched_for_in_four_of_sixteen_frames():
    scene = Scene([[(100 + i, 80 - i, 40)] for i in range(16)])
    scene.check(scene.find())
    assert scene.detected_frames == [0, 5, 10, 15]
    assert sorted(scene.detected_frames + scene.redetected_frames) == list(range(16))


def test_two_people_are_both_followed():
    scene = Scene([[(100 + i, 80, 40), (300 - i, 80, 50)] for i in range(16)])
    scene.check(scene.find())
    assert scene.detected_frames == [0, 5, 10, 15]


def test_frames_between_two_that_differ_are_searched():
    places_by_frame = [[(100, 80, 40)]] * 11
    places_by_frame[3:6] = [[]] * 3  # gone in frame 5, which is searched
    scene = Scene(places_by_frame)
    scene.check(scene.find())
    assert sorted(scene.detected_frames) == list(range(11))
    leap_scene = Scene([[(100, 80, 40)]] * 6 + [[(180, 80, 40)]] * 5)
    leap_scene.check(leap_scene.find())
    assert sorted(leap_scene.detected_frames) == [0, 5, 6, 7, 8, 9, 10]


def test_a_frame_where_a_known_face_is_not_found_is_searched():
    scene = Scene([[(100, 80, 40)]] * 6, undetectable_frames={3})
    scene.check(scene.find())
    assert sorted(scene.detected_frames) == [0, 3, 5]
    nod_scene = Scene([[(100 + 20 * (i == 2), 80, 40)] for i in range(6)])  # it nods, and comes back
    nod_scene.check(nod_scene.find())
    assert sorted(nod_scene.detected_frames) == [0, 2, 5]


def test_no_face_is_searched_for_everywhere():
    scene = Scene([[]] * 8)
    assert scene.find() == [[]] * 8
    assert sorted(scene.detected_frames) == list(range(8))
    assert scene.redetected_frames == []


def test_a_frame_that_stands_twice_is_looked_at_once():
    scene = Scene([[(100 + i, 80, 40)] for i in range(3)])
    frame_numbers = np.array([0, 0, 1, 2, 2, 0, 1, 1, 2, 2])
    faces = find_faces(scene.frames[frame_numbers], frame_numbers / 25, scene.detect, scene.redetect)
    assert [frame_faces[0].box[0] for frame_faces in faces] == [80 + i for i in frame_numbers]
    assert sorted(scene.detected_frames + scene.redetected_frames) == [0, 1, 2]


def test_a_detector_that_only_searches_searches_all():
    scene = Scene([[(100, 80, 40)]] * 7)
    assert len(find_faces(scene.frames, np.arange(7.0), scene.detect, None)) == 7
    assert scene.detected_frames == list(range(7))


def test_mix_is_a_straight_line():
    a, b = fake_face(10, 20, 8, 0.9), fake_face(30, 60, 16, 0.8)
    mixed_face = interpolate_face(a, b, 0.25)
    np.testing.assert_allclose(
        mixed_face.box, [0.75 * x + 0.25 * y for x, y in zip(a.box, b.box, strict=True)]
    )
    assert mixed_face.score == pytest.approx(0.875)
    np.testing.assert_array_equal(interpolate_face(a, b, 0.0).landmarks, a.landmarks)


def test_at_times_holds_the_ends():
    a, b = fake_face(10, 20, 8), fake_face(30, 20, 8)
    faces = interpolate_faces([a, b, b], np.array([1.0, 2.0, 2.0]), np.array([0.0, 1.5, 9.0]))
    assert [face.box[0] for face in faces] == [6, 16, 26]
    assert interpolate_faces([a], np.array([1.0]), np.array([0.0, 4.0])) == [a, a]


@pytest.mark.parametrize("recipe", ["fbp", "cross_attention"])
def test_followed_faces_are_where_a_search_finds_them(shared_data, recipe):
    """Landmarks within 4 % of a face's side, in every frame of three real clips."""
    settings = RECIPES[recipe]
    detect, redetect = open_detector(settings, NO_ENCODER_FILES)
    for name in ("bbaf2n.mpg", "swiz3n.mpg", "face_3.mp4"):
        info = probe_media(os.path.join(shared_data, "talking_faces", name))
        clip_frames = read_clip_frames(
            VideoClip(info, 0.0, 2.0), frame_times(info.video, 0.0, 2.0, settings.face)[:32]
        )
        tracked_faces = find_faces(clip_frames.frames, clip_frames.times, detect, redetect)
        for faces, expected_faces in zip(tracked_faces, detect(clip_frames.frames), strict=True):
            side = (expected_faces[0].box[2:] - expected_faces[0].box[:2]).mean()
            assert np.abs(faces[0].landmarks - expected_faces[0].landmarks).max() < 0.04 * side, name


def test_a_face_is_found_in_98_percent_of_real_frames(shared_data):
    """The frames that the recipe samples, as it finds them."""
    settings = RECIPES["fbp"]
    detect, redetect = open_detector(settings, NO_ENCODER_FILES)
    has_one_face = []
    for path in sorted(glob.glob(os.path.join(shared_data, "talking_faces", "*.m*"))):
        info = probe_media(path)
        video_clip = VideoClip(info, 0.0, info.duration)
        clip_frames = read_clip_frames(
            video_clip, frame_times(info.video, 0.0, info.video.end, settings.face)
        )
        has_one_face += [
            len(faces) == 1 for faces in find_faces(clip_frames.frames, clip_frames.times, detect, redetect)
        ]
    print(f"\none face in {sum(has_one_face)} of {len(has_one_face)} frames")
    assert len(has_one_face) == 14 * 16
    assert np.mean(has_one_face) >= 0.98


@pytest.mark.parametrize(
    "harder", ["a tenth of the light", "a seventh of the picture's height", "too small to be one"]
)
def test_dark_and_small_faces(shared_data, harder):
    """Found where they are, in most frames; below the recipe's smallest face in none, and no other is."""
    info = probe_media(os.path.join(shared_data, "talking_faces", "bbaf2n.mpg"))
    clip_frames = read_clip_frames(VideoClip(info, 0.0, 3.0), np.arange(16) * 0.18)
    detect, redetect = open_detector(RECIPES["fbp"], NO_ENCODER_FILES)
    expected = find_faces(clip_frames.frames, clip_frames.times, detect, redetect)
    if harder == "a tenth of the light":
        frames, zoom, corner = clip_frames.frames // 10, 1.0, 0
    else:
        zoom, corner = (0.4 if harder.startswith("a seventh") else 0.1), 60
        frames = np.full_like(clip_frames.frames, 90)
        for canvas, frame in zip(frames, clip_frames.frames, strict=True):
            small = cv2.resize(frame, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
            canvas[corner : corner + small.shape[0], corner : corner + small.shape[1]] = small
    faces = find_faces(frames, clip_frames.times, detect, redetect)
    assert sum(map(len, faces)) <= 16
    assert sum(map(len, faces)) >= (0 if zoom == 0.1 else 14)
    assert zoom != 0.1 or not any(faces)
    for frame_faces, (expected_face,) in zip(faces, expected, strict=True):
        for face in frame_faces:
            side = zoom * (expected_face.box[2:] - expected_face.box[:2]).mean()
            np.testing.assert_allclose(
                face.landmarks, zoom * expected_face.landmarks + corner, atol=0.12 * side
            )
