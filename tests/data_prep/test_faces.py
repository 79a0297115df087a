"""The face detector on real clips, on frames without faces, and its parts against plain NumPy."""

import glob
import importlib.util
import os
import shutil

import av
import cv2
import numpy as np
import pytest

from data_prep.faces import boxes, detect, mtcnn, pyramid, weights
from data_prep.faces.align import align_face, alignment
from data_prep.faces.detect import Face, detect_faces
from data_prep.faces.track import choose_track

SETTINGS = {"min_face": 0.12, "min_score": 0.9}


def sample(path, count):
    """`count` frames at the centres of equal parts of a clip."""
    with av.open(path) as clip:
        frames = [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)]
    return np.stack([frames[int((i + 0.5) * len(frames) / count)] for i in range(count)])


@pytest.fixture(scope="module")
def clips(shared_data):
    """Eight frames of each real clip."""
    paths = sorted(glob.glob(os.path.join(shared_data, "talking_faces", "*.m*")))
    assert len(paths) == 14
    return {os.path.basename(path): sample(path, 8) for path in paths}


@pytest.fixture(scope="module")
def found(clips):
    return {name: detect_faces(frames, **SETTINGS) for name, frames in clips.items()}


# Real clips


def test_one_face_in_real_frames(found):
    counts = [len(faces) for clip in found.values() for faces in clip]
    assert np.mean([count > 0 for count in counts]) >= 0.95
    assert np.mean([count == 1 for count in counts]) >= 0.95


def test_one_person_a_clip(found):
    for name, faces in found.items():
        track, people = choose_track(faces)
        assert people == 1, name
        assert sum(face is not None for face in track) >= 7, name


def test_landmarks_lie_as_in_a_face(found):
    for clip in found.values():
        for face in (face for faces in clip for face in faces):
            left, right, nose, mouth_left, mouth_right = face.landmarks
            assert left[0] < right[0]
            assert mouth_left[0] < mouth_right[0]
            assert max(left[1], right[1]) < nose[1] < min(mouth_left[1], mouth_right[1])
            assert (face.landmarks > face.box[:2]).all()
            assert (face.landmarks < face.box[2:]).all()
            assert 0.9 < face.score <= 1
            assert face.box.dtype == face.landmarks.dtype == np.float32


def test_one_by_one_equals_a_batch(clips, found):
    for name in ("bbaf2n.mpg", "face_3.mp4"):
        for i, frame in enumerate(clips[name]):
            (alone,) = detect_faces(frame[None], **SETTINGS)
            assert len(alone) == len(found[name][i])
            for a, b in zip(alone, found[name][i], strict=True):
                np.testing.assert_allclose(a.box, b.box, atol=0.01)
                np.testing.assert_allclose(a.landmarks, b.landmarks, atol=0.01)
                np.testing.assert_allclose(a.score, b.score, atol=1e-4)


def test_more_frames_than_fit_at_once(clips, found):
    frames = np.concatenate([clips["bbaf2n.mpg"]] * 3)[:19]
    faces = detect_faces(frames, **SETTINGS)
    assert [len(f) for f in faces] == [len(f) for f in (found["bbaf2n.mpg"] * 3)[:19]]
    np.testing.assert_allclose(faces[18][0].box, found["bbaf2n.mpg"][2][0].box, atol=0.01)


def test_frames_need_not_be_contiguous(clips):
    frames = clips["bbaf2n.mpg"][:2]
    strided = np.moveaxis(np.ascontiguousarray(np.moveaxis(frames, 3, 1)), 1, 3)
    assert not strided.flags["C_CONTIGUOUS"]
    for a, b in zip(detect_faces(frames, **SETTINGS), detect_faces(strided, **SETTINGS), strict=True):
        np.testing.assert_array_equal(a[0].box, b[0].box)


def test_large_frames_give_the_same_places(clips, found):
    """A frame enlarged three times is reduced first; its faces are those of the small one, times three."""
    frames = np.stack([cv2.resize(f, None, fx=3, fy=3) for f in clips["bbaf2n.mpg"][:2]])
    assert pyramid.plan(*frames.shape[1:3], 0.12).reduce > 1
    for faces, expected in zip(detect_faces(frames, **SETTINGS), found["bbaf2n.mpg"], strict=False):
        eyes = np.ptp(expected[0].landmarks[:2, 0])
        np.testing.assert_allclose(faces[0].landmarks / 3, expected[0].landmarks, atol=0.07 * eyes)


def test_mirrored_frames_give_mirrored_landmarks(clips, found):
    width = clips["bbaf2n.mpg"].shape[2]
    mirrored = detect_faces(clips["bbaf2n.mpg"][:, :, ::-1], **SETTINGS)
    for faces, expected in zip(mirrored, found["bbaf2n.mpg"], strict=True):
        back = faces[0].landmarks[[1, 0, 2, 4, 3]] * [-1, 1] + [width, 0]
        eyes = np.ptp(expected[0].landmarks[:2, 0])
        np.testing.assert_allclose(back, expected[0].landmarks, atol=0.1 * eyes)


def test_two_people_side_by_side(clips):
    frames = np.concatenate([clips["bbaf2n.mpg"], clips["brbk7n.mpg"]], 2)
    track, people = choose_track(detect_faces(frames, **SETTINGS))
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
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    turned = np.stack([cv2.warpAffine(f, turn, (width, height), borderMode=1) for f in frames])
    faces = [found[0] for found in detect_faces(turned, **SETTINGS)]
    crops = np.stack(
        [align_face(f, face, size=112, margin=0.3) for f, face in zip(turned, faces, strict=True)]
    )
    assert crops.shape == (4, 112, 112, 3)
    assert crops.dtype == np.uint8
    for (again,) in detect_faces(crops, **SETTINGS):
        left, right = again.landmarks[:2]
        assert abs(np.degrees(np.arctan2(*(right - left)[::-1]))) < 4
        assert 0.42 < (left + right)[0] / 2 / 112 < 0.58
        assert 0.33 < (left + right)[1] / 2 / 112 < 0.5
        assert 0.18 < (right - left)[0] / 112 < 0.45


def test_alignment_is_the_stated_transform():
    face = fake_face(50, 40, 30)
    landmarks = face.landmarks.copy()
    landmarks[1, 1] += 8
    transform = alignment(Face(face.box, landmarks, 1.0), size=100, margin=0.5)
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
    assert (align_face(frame, fake_face(0, 0, 30), size=24, margin=0.3) == 90).all()


# No face


def test_no_face_in_noise_and_black():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (8, 224, 224, 3), dtype=np.uint8)
    clouds = np.stack([cv2.resize(frame[::8, ::8], (224, 224)) for frame in noise])
    flat = np.zeros((4, 224, 224, 3), np.uint8) + np.array([0, 90, 127, 255], np.uint8)[:, None, None, None]
    for frames in (noise, clouds, flat):
        assert detect_faces(frames, **SETTINGS) == [[] for _ in frames]


def test_no_face_where_it_is_painted_over(clips, found):
    for name in ("bbaf2n.mpg", "face_3.mp4"):
        frames = clips[name].copy()
        for frame, faces in zip(frames, found[name], strict=True):
            x0, y0, x1, y1 = np.maximum(faces[0].box, 0).astype(int)
            frame[y0:y1, x0:x1] = frame[5, 5]
        assert sum(len(faces) for faces in detect_faces(frames, **SETTINGS)) == 0


@pytest.mark.parametrize(
    "shape", [(0, 9), (1, 1), (11, 11), (12, 12), (13, 29), (32, 32), (201, 333), (20, 400)]
)
def test_odd_sizes(shape):
    frames = np.random.default_rng(1).integers(0, 256, (3, *shape, 3), dtype=np.uint8)
    assert detect_faces(frames, **SETTINGS) == [[], [], []]
    assert detect_faces(frames[:0], **SETTINGS) == []


def test_small_frames_still_show_a_face(clips):
    frames = np.stack([cv2.resize(f, (60, 48), interpolation=cv2.INTER_AREA) for f in clips["bbaf2n.mpg"]])
    assert sum(len(faces) == 1 for faces in detect_faces(frames, **SETTINGS)) >= 7


def test_wrong_input_is_one_line():
    good = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match=r"frames: float32\[1, 32, 32, 3\], expected uint8"):
        detect_faces(good.astype(np.float32), **SETTINGS)
    with pytest.raises(ValueError, match="expected uint8"):
        detect_faces(good[0], **SETTINGS)
    with pytest.raises(ValueError, match="min_face: 12, expected a share"):
        detect_faces(good, min_face=12, min_score=0.9)


# Compilation


def test_new_counts_compile_nothing(clips, monkeypatch):
    traces = []
    original = mtcnn._normalise
    monkeypatch.setattr(mtcnn, "_normalise", lambda images: traces.append(images.shape) or original(images))
    image = np.zeros((60, 60, 3), np.uint8)
    for count in (8, 16, 32, 64):  # every size that candidates are padded to
        where = np.tile([[3, 3, 30, 30]], (count, 1))
        for name in detect.STAGES:
            detect._run(name, [image], np.zeros(count, int), where)
    frames = clips["bbaf2n.mpg"][:, 20:270, 30:330]
    detect_faces(frames[:5], **SETTINGS)
    assert traces  # the count does see a new frame size
    traces.clear()
    for count in (6, 7, 8):
        detect_faces(frames[:count], **SETTINGS)
    detect_faces(np.concatenate([frames, frames[:5]]), **SETTINGS)  # 13 frames: 16 rows
    assert {shape[0] for shape in traces} == {16}  # P-net's next bucket alone
    traces.clear()
    detect_faces(np.concatenate([frames, frames]), **SETTINGS)
    assert not traces


def test_candidates_in_several_chunks_equal_those_alone():
    rng = np.random.default_rng(2)
    images = [cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (90, 90)) for _ in range(3)]
    where = rng.integers(-20, 60, (150, 2))
    where = np.concatenate([where, where + rng.integers(1, 60, (150, 1))], 1)
    frame = rng.integers(0, 3, 150)
    together = detect._run("rnet", images, frame, where)
    assert together.shape == (150, 5)
    for i in (0, 63, 64, 149):
        alone = detect._run("rnet", images, frame[[i]], where[[i]])
        np.testing.assert_allclose(alone[0], together[i], atol=1e-4)


# Networks and boxes against plain NumPy


def conv(x, kernel, bias, slope):
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (0, 1))
    return prelu(np.einsum("ijdkl,kldo->ijo", windows, kernel) + bias, slope)


def prelu(x, slope):
    return np.where(x > 0, x, slope * x)


def pool(x, size, pad):
    x = np.pad(x, ((0, pad), (0, pad), (0, 0)), constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), (0, 1))[::2, ::2].max((3, 4))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_pnet_against_numpy():
    w = [a.astype(np.float64) for a in weights.load_weights("pnet")]
    image = np.random.default_rng(3).integers(0, 256, (18, 24, 3), dtype=np.uint8)
    x = conv(pool(conv((image - 127.5) / 128, *w[:3]), 2, 0), *w[3:6])
    x = conv(x, *w[6:9])
    expected = np.concatenate([x @ w[9][0, 0] + w[10], softmax(x @ w[11][0, 0] + w[12])[..., 1:]], -1)
    assert expected.shape[:2] == (18 // 2 - mtcnn.PNET_SHRINK, 24 // 2 - mtcnn.PNET_SHRINK)
    output = mtcnn.pnet((image[None],), mtcnn.weights("pnet"))
    np.testing.assert_allclose(output[0], expected.reshape(-1, 5), atol=2e-4)


def test_rnet_and_onet_against_numpy():
    rng = np.random.default_rng(4)
    w = [a.astype(np.float64) for a in weights.load_weights("rnet")]
    image = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    x = pool(conv(pool(conv((image - 127.5) / 128, *w[:3]), 3, 1), *w[3:6]), 3, 0)
    x = conv(x, *w[6:9]).transpose(1, 0, 2).ravel()
    x = prelu(x @ w[9] + w[10], w[11])
    expected = [*(x @ w[12] + w[13]), softmax(x @ w[14] + w[15])[1]]
    np.testing.assert_allclose(mtcnn.rnet(image[None], mtcnn.weights("rnet"))[0], expected, atol=2e-4)

    w = [a.astype(np.float64) for a in weights.load_weights("onet")]
    image = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
    x = pool(conv(pool(conv((image - 127.5) / 128, *w[:3]), 3, 1), *w[3:6]), 3, 0)
    x = conv(pool(conv(x, *w[6:9]), 2, 0), *w[9:12]).transpose(1, 0, 2).ravel()
    x = prelu(x @ w[12] + w[13], w[14])
    expected = [*(x @ w[15] + w[16]), softmax(x @ w[19] + w[20])[1], *(x @ w[17] + w[18])]
    np.testing.assert_allclose(mtcnn.onet(image[None], mtcnn.weights("onet"))[0], expected, atol=2e-4)


def test_boxes_by_hand():
    three = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [0, 0, 5, 5]], np.float32)
    np.testing.assert_allclose(boxes.overlap(three)[0], [1, 1 / 3, 1 / 4])
    np.testing.assert_allclose(boxes.overlap(three, of_smaller=True)[0], [1, 1 / 2, 1])
    assert boxes.suppress(boxes.overlap(three), 0.3).tolist() == [0, 2]
    assert boxes.suppress(boxes.overlap(three), 0.34).tolist() == [0, 1, 2]
    moved = boxes.refine(three[:1], np.array([[0.1, 0.2, -0.1, 0]], np.float32))
    np.testing.assert_allclose(moved, [[1, 2, 9, 10]], rtol=1e-6)
    assert boxes.square(np.array([[0, 0, 4, 10]], np.float32)).tolist() == [[-3, 0, 7, 10]]


def test_pyramid_spans_the_smallest_face_to_the_frame():
    plan = pyramid.plan(720, 1280, 0.12)
    sides = (plan.cells[:, 3] - plan.cells[:, 1]) * plan.reduce / 720
    assert sides.min() == pytest.approx(0.12, rel=0.03)
    assert sides.max() > 0.8
    assert plan.cells.min() == 0
    assert plan.cells[:, 2].max() <= 1280 / plan.reduce + 1e-3
    assert len(plan.cells) == sum((h // 2 - 5) * (w // 2 - 5) for h, w in plan.levels)


def test_patch_outside_the_frame_is_grey():
    frame = np.full((20, 20, 3), 200, np.uint8)
    patch = pyramid.cut_patch(frame, np.array([-10, -10, 10, 10]), 20)
    assert (patch[:10] == pyramid.GREY).all()
    assert (patch[10:, 10:] == 200).all()
    assert (pyramid.cut_patch(frame, np.array([30, 5, 40, 15]), 24) == pyramid.GREY).all()


# Tracks


def fake_face(x, y, side, score=0.99):
    box = np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32)
    shares = np.array([[-0.2, -0.1], [0.2, -0.1], [0, 0.05], [-0.15, 0.25], [0.15, 0.25]])
    return Face(box, (np.array([x, y]) + shares * side).astype(np.float32), score)


def test_track_prefers_the_large_and_steady():
    large = [fake_face(100 + 3 * i, 100, 80) for i in range(16)]
    flicker = {3: fake_face(250, 60, 30, 0.999), 9: fake_face(40, 200, 35, 0.999)}
    faces = [[flicker[i], large[i]] if i in flicker else [large[i]] for i in range(16)]
    track, people = choose_track(faces)
    assert track == large
    assert people == 1


def test_track_prefers_the_larger_of_two_steady_ones():
    faces = [[fake_face(60, 60, 40), fake_face(200, 80, 60)] for _ in range(10)]
    faces[4].pop()  # a gap does not end a track
    track, people = choose_track(faces)
    assert people == 2
    assert track[4] is None
    assert all(face.box[0] == 170 for i, face in enumerate(track) if i != 4)


def test_track_prefers_steady_over_brief_and_huge():
    faces = [[fake_face(60, 60, 40)] for _ in range(16)]
    faces[7] = [fake_face(200, 150, 150), *faces[7]]
    track, people = choose_track(faces)
    assert people == 1
    assert all(face.box[0] == 40 for face in track)


def test_crossing_faces_keep_their_tracks():
    one = [fake_face(50 + 12 * i, 100, 60) for i in range(10)]
    other = [fake_face(158 - 12 * i, 108, 36) for i in range(10)]
    track, people = choose_track([[b, a] for a, b in zip(one, other, strict=True)])
    assert people == 2
    assert track == one


def test_no_faces_no_people():
    assert choose_track([[], [], []]) == ([None, None, None], 0)
    assert choose_track([]) == ([], 0)


# Weights


def test_changed_weights_are_refused(tmp_path):
    for name in weights.HASHES:
        shutil.copy(os.path.join(weights.weights_directory(), f"{name}.lz4"), tmp_path)
    assert len(weights.load_weights("rnet", str(tmp_path))) == 16
    with open(tmp_path / "rnet.lz4", "ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match=r"rnet\.lz4: SHA-256 is .*, expected cb00e6"):
        weights.load_weights("rnet", str(tmp_path))
    os.remove(tmp_path / "onet.lz4")
    with pytest.raises(FileNotFoundError, match=r"onet\.lz4"):
        weights.load_weights("onet", str(tmp_path))


def test_missing_wheel_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"emofuse\[prep\]"):
        weights.load_weights("pnet")
