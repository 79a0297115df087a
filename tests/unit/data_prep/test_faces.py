"""The face detector and the alignment on real clips and on frames without faces."""

import glob
import os

import av
import cv2
import numpy as np
import pytest

from data_prep.faces import mtcnn_cascade, mtcnn_networks, pyramid
from data_prep.faces.align import align_face, alignment_transform
from data_prep.faces.choose_person import choose_track
from data_prep.faces.detector import warm_up_detector
from data_prep.faces.face import Face
from data_prep.faces.mtcnn_cascade import detect_faces
from data_prep.onnx_models.encoders import NO_ENCODER_FILES
from data_prep.settings import FaceSettings, PrepSettings
from tests.support.face_fakes import fake_face

DETECTOR_OPTIONS = {"min_face": FaceSettings().min_face, "min_score": FaceSettings().min_score}


def sample_frames(path, num_frames):
    """`num_frames` frames at the centres of equal parts of a clip."""
    with av.open(path) as clip:
        frames = [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)]
    return np.stack([frames[int((i + 0.5) * len(frames) / num_frames)] for i in range(num_frames)])


@pytest.fixture(scope="module")
def clips(shared_data):
    """Eight frames of each real clip."""
    paths = sorted(glob.glob(os.path.join(shared_data, "talking_faces", "*.m*")))
    assert len(paths) == 14
    return {os.path.basename(path): sample_frames(path, 8) for path in paths}


@pytest.fixture(scope="module")
def detected_faces(clips):
    return {name: detect_faces(frames, **DETECTOR_OPTIONS) for name, frames in clips.items()}


# Real clips


def test_one_face_in_real_frames(detected_faces):
    counts = [len(faces) for clip in detected_faces.values() for faces in clip]
    assert np.mean([count > 0 for count in counts]) >= 0.95
    assert np.mean([count == 1 for count in counts]) >= 0.95


def test_one_person_a_clip(detected_faces):
    for name, faces in detected_faces.items():
        track, people = choose_track(faces, (288, 360))
        assert people == 1, name
        assert sum(face is not None for face in track) >= 7, name


def test_landmarks_lie_as_in_a_face(detected_faces):
    for clip in detected_faces.values():
        for face in (face for faces in clip for face in faces):
            left, right, nose, mouth_left, mouth_right = face.landmarks
            assert left[0] < right[0]
            assert mouth_left[0] < mouth_right[0]
            assert max(left[1], right[1]) < nose[1] < min(mouth_left[1], mouth_right[1])
            assert (face.landmarks > face.box[:2]).all()
            assert (face.landmarks < face.box[2:]).all()
            assert DETECTOR_OPTIONS["min_score"] < face.score <= 1
            assert face.box.dtype == face.landmarks.dtype == np.float32


def test_one_by_one_equals_a_batch(clips, detected_faces):
    for name in ("bbaf2n.mpg", "face_3.mp4"):
        for i, frame in enumerate(clips[name]):
            (alone,) = detect_faces(frame[None], **DETECTOR_OPTIONS)
            assert len(alone) == len(detected_faces[name][i])
            for a, b in zip(alone, detected_faces[name][i], strict=True):
                np.testing.assert_allclose(a.box, b.box, atol=0.01)
                np.testing.assert_allclose(a.landmarks, b.landmarks, atol=0.01)
                np.testing.assert_allclose(a.score, b.score, atol=1e-4)


def test_more_frames_than_fit_at_once(clips, detected_faces):
    frames = np.concatenate([clips["bbaf2n.mpg"]] * 3)[:19]
    faces = detect_faces(frames, **DETECTOR_OPTIONS)
    assert [len(f) for f in faces] == [len(f) for f in (detected_faces["bbaf2n.mpg"] * 3)[:19]]
    np.testing.assert_allclose(faces[18][0].box, detected_faces["bbaf2n.mpg"][2][0].box, atol=0.01)


def test_frames_need_not_be_contiguous(clips):
    frames = clips["bbaf2n.mpg"][:2]
    strided = np.moveaxis(np.ascontiguousarray(np.moveaxis(frames, 3, 1)), 1, 3)
    assert not strided.flags["C_CONTIGUOUS"]
    for a, b in zip(
        detect_faces(frames, **DETECTOR_OPTIONS), detect_faces(strided, **DETECTOR_OPTIONS), strict=True
    ):
        np.testing.assert_array_equal(a[0].box, b[0].box)


def test_large_frames_give_the_same_places(clips, detected_faces):
    """A frame enlarged three times is reduced first; its faces are those of the small one, times three."""
    frames = np.stack([cv2.resize(f, None, fx=3, fy=3) for f in clips["bbaf2n.mpg"][:2]])
    assert pyramid.plan_pyramid(*frames.shape[1:3], DETECTOR_OPTIONS["min_face"]).reduction_factor > 1
    for faces, expected in zip(
        detect_faces(frames, **DETECTOR_OPTIONS), detected_faces["bbaf2n.mpg"], strict=False
    ):
        eyes = np.ptp(expected[0].landmarks[:2, 0])
        np.testing.assert_allclose(faces[0].landmarks / 3, expected[0].landmarks, atol=0.07 * eyes)


def test_mirrored_frames_give_mirrored_landmarks(clips, detected_faces):
    width = clips["bbaf2n.mpg"].shape[2]
    mirrored = detect_faces(clips["bbaf2n.mpg"][:, :, ::-1], **DETECTOR_OPTIONS)
    for faces, expected in zip(mirrored, detected_faces["bbaf2n.mpg"], strict=True):
        mirrored_back = faces[0].landmarks[[1, 0, 2, 4, 3]] * [-1, 1] + [width, 0]
        eyes = np.ptp(expected[0].landmarks[:2, 0])
        np.testing.assert_allclose(mirrored_back, expected[0].landmarks, atol=0.1 * eyes)


def test_two_people_side_by_side(clips):
    frames = np.concatenate([clips["bbaf2n.mpg"], clips["brbk7n.mpg"]], 2)
    track, people = choose_track(detect_faces(frames, **DETECTOR_OPTIONS), frames.shape[1:3])
    assert people == 2
    assert all(face is not None for face in track)
    sides = {bool(face.box[0] > 360) for face in track}
    assert len(sides) == 1  # the track stays with one person


# Alignment


@pytest.mark.parametrize("degrees", [-15, 0, 15])
def test_aligned_crop_has_level_eyes(clips, degrees):
    """Detected again in the aligned crop of a turned frame, the eyes are level and where they always are."""
    frames = clips["brbk7n.mpg"][:4]
    height, width = frames.shape[1:3]
    rotation = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    rotated_frames = np.stack([cv2.warpAffine(f, rotation, (width, height), borderMode=1) for f in frames])
    faces = [frame_faces[0] for frame_faces in detect_faces(rotated_frames, **DETECTOR_OPTIONS)]
    crops = np.stack(
        [align_face(f, face, size=112, margin=0.3) for f, face in zip(rotated_frames, faces, strict=True)]
    )
    assert crops.shape == (4, 112, 112, 3)
    assert crops.dtype == np.uint8
    for (aligned_face,) in detect_faces(crops, **DETECTOR_OPTIONS):
        left, right = aligned_face.landmarks[:2]
        assert abs(np.degrees(np.arctan2(*(right - left)[::-1]))) < 4
        assert 0.42 < (left + right)[0] / 2 / 112 < 0.58
        assert 0.33 < (left + right)[1] / 2 / 112 < 0.5
        assert 0.18 < (right - left)[0] / 112 < 0.45


def test_alignment_is_the_stated_transform():
    face = fake_face(50, 40, 30)
    landmarks = face.landmarks.copy()
    landmarks[1, 1] += 8
    transform = alignment_transform(Face(face.box, landmarks, 1.0), size=100, margin=0.5)
    eyes = landmarks[:2] @ transform[:, :2].T + transform[:, 2]
    np.testing.assert_allclose(eyes[0, 1], eyes[1, 1], atol=1e-4)
    np.testing.assert_allclose(transform @ [50, 40, 1], [50, 50], atol=1e-4)
    np.testing.assert_allclose(np.linalg.det(transform[:, :2]), (100 / (30 * 1.5)) ** 2, rtol=1e-5)


@pytest.mark.parametrize("side", [32, 96, 160])  # enlarged, as is, and averaged down by two and more
def test_unturned_crop_is_a_resize(side):
    frame = np.tile(np.linspace(0, 255, 200).astype(np.uint8)[None, :, None], (200, 1, 3))
    crop = align_face(frame, fake_face(100, 100, side), size=64, margin=0.25)
    left, right = 100 - side * 0.625, 100 + side * 0.625
    expected = np.linspace(left, right, 129)[1::2] / 200 * 255
    np.testing.assert_allclose(crop[32, :, 0], np.clip(expected, 0, 255), atol=2.5)


def test_crop_outside_the_frame_repeats_the_edge():
    frame = np.full((40, 40, 3), 90, np.uint8)
    for side in (30, 200):
        assert (align_face(frame, fake_face(0, 0, side), size=24, margin=0.3) == 90).all()
        assert (align_face(frame, fake_face(-300, 90, side), size=24, margin=0.3) == 90).all()


def test_a_large_face_at_the_edge_keeps_its_place():
    """The part of the frame that a crop needs is cut out first; where it ends must not move what it shows."""
    frame = np.tile(np.linspace(0, 255, 400).astype(np.uint8)[None, :, None], (300, 1, 3))
    crop = align_face(frame, fake_face(330, 40, 160), size=32, margin=0.25)
    expected = np.minimum(np.linspace(330 - 100, 330 + 100, 65)[1::2], 399) / 400 * 255
    np.testing.assert_allclose(crop[5, :, 0], expected, atol=3)


# No face


def test_no_face_in_noise_and_black():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (8, 224, 224, 3), dtype=np.uint8)
    clouds = np.stack([cv2.resize(frame[::8, ::8], (224, 224)) for frame in noise])
    flat = np.zeros((4, 224, 224, 3), np.uint8) + np.array([0, 90, 127, 255], np.uint8)[:, None, None, None]
    for frames in (noise, clouds, flat):
        assert detect_faces(frames, **DETECTOR_OPTIONS) == [[] for _ in frames]


def test_no_face_where_it_is_painted_over(clips, detected_faces):
    for name in ("bbaf2n.mpg", "face_3.mp4"):
        frames = clips[name].copy()
        for frame, faces in zip(frames, detected_faces[name], strict=True):
            x0, y0, x1, y1 = np.maximum(faces[0].box, 0).astype(int)
            frame[y0:y1, x0:x1] = frame[5, 5]
        assert sum(len(faces) for faces in detect_faces(frames, **DETECTOR_OPTIONS)) == 0


@pytest.mark.parametrize(
    "shape", [(0, 9), (1, 1), (11, 11), (12, 12), (13, 29), (32, 32), (201, 333), (20, 400)]
)
def test_odd_sizes(shape):
    frames = np.random.default_rng(1).integers(0, 256, (3, *shape, 3), dtype=np.uint8)
    assert detect_faces(frames, **DETECTOR_OPTIONS) == [[], [], []]
    assert detect_faces(frames[:0], **DETECTOR_OPTIONS) == []


def test_small_frames_still_show_a_face(clips):
    frames = np.stack([cv2.resize(f, (60, 48), interpolation=cv2.INTER_AREA) for f in clips["bbaf2n.mpg"]])
    assert sum(len(faces) == 1 for faces in detect_faces(frames, **DETECTOR_OPTIONS)) >= 7


def test_wrong_input_is_one_line():
    frames = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match=r"frames: float32\[1, 32, 32, 3\], expected uint8"):
        detect_faces(frames.astype(np.float32), **DETECTOR_OPTIONS)
    with pytest.raises(ValueError, match="expected uint8"):
        detect_faces(frames[0], **DETECTOR_OPTIONS)
    with pytest.raises(ValueError, match=r"min_face: 12\.0, expected a fraction"):
        detect_faces(frames, min_face=12.0, min_score=0.9)


# Compilation


def test_new_counts_compile_nothing(clips, monkeypatch):
    traces = []
    original = mtcnn_networks._normalise
    monkeypatch.setattr(
        mtcnn_networks, "_normalise", lambda images: traces.append(images.shape) or original(images)
    )
    image = np.zeros((60, 60, 3), np.uint8)
    for count in (8, 16, 32, 64):  # every size that candidates are padded to
        candidate_boxes = np.tile([[3, 3, 30, 30]], (count, 1))
        for name in mtcnn_cascade.STAGES:
            mtcnn_cascade._run_network(name, [image], np.zeros(count, int), candidate_boxes)
    frames = clips["bbaf2n.mpg"][:, 20:270, 30:330]
    detect_faces(frames[:5], **DETECTOR_OPTIONS)
    assert traces  # the count does see a new frame size
    traces.clear()
    for count in (6, 7, 8):
        detect_faces(frames[:count], **DETECTOR_OPTIONS)
    detect_faces(np.concatenate([frames, frames[:5]]), **DETECTOR_OPTIONS)  # 13 frames: 16 rows
    assert {shape[0] for shape in traces} == {16}  # P-net's next bucket alone
    traces.clear()
    detect_faces(np.concatenate([frames, frames]), **DETECTOR_OPTIONS)
    assert not traces


def test_warming_compiles_every_stage():
    for stage in (mtcnn_networks.pnet, mtcnn_networks.rnet, mtcnn_networks.onet):
        stage.clear_cache()
    warm_up_detector(PrepSettings(), NO_ENCODER_FILES)
    assert all(
        stage._cache_size() for stage in (mtcnn_networks.pnet, mtcnn_networks.rnet, mtcnn_networks.onet)
    )
