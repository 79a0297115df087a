"""The parts of the face detector: networks and boxes against plain NumPy, tracks, weight files."""

import importlib.util
import os
import shutil

import cv2
import numpy as np
import pytest

from data_prep.faces import boxes, mtcnn_cascade, mtcnn_networks, pyramid, weights
from data_prep.faces.choose_person import choose_track
from tests.support.face_fakes import fake_face

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
    assert expected.shape[:2] == (
        18 // 2 - mtcnn_networks.PNET_BORDER_CELLS,
        24 // 2 - mtcnn_networks.PNET_BORDER_CELLS,
    )
    output = mtcnn_networks.pnet((image[None],), mtcnn_networks.get_weights("pnet"))
    np.testing.assert_allclose(output[0], expected.reshape(-1, 5), atol=2e-4)


def test_rnet_and_onet_against_numpy():
    rng = np.random.default_rng(4)
    w = [a.astype(np.float64) for a in weights.load_weights("rnet")]
    image = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    x = pool(conv(pool(conv((image - 127.5) / 128, *w[:3]), 3, 1), *w[3:6]), 3, 0)
    x = conv(x, *w[6:9]).transpose(1, 0, 2).ravel()
    x = prelu(x @ w[9] + w[10], w[11])
    expected = [*(x @ w[12] + w[13]), softmax(x @ w[14] + w[15])[1]]
    np.testing.assert_allclose(
        mtcnn_networks.rnet(image[None], mtcnn_networks.get_weights("rnet"))[0], expected, atol=2e-4
    )

    w = [a.astype(np.float64) for a in weights.load_weights("onet")]
    image = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
    x = pool(conv(pool(conv((image - 127.5) / 128, *w[:3]), 3, 1), *w[3:6]), 3, 0)
    x = conv(pool(conv(x, *w[6:9]), 2, 0), *w[9:12]).transpose(1, 0, 2).ravel()
    x = prelu(x @ w[12] + w[13], w[14])
    expected = [*(x @ w[15] + w[16]), softmax(x @ w[19] + w[20])[1], *(x @ w[17] + w[18])]
    np.testing.assert_allclose(
        mtcnn_networks.onet(image[None], mtcnn_networks.get_weights("onet"))[0], expected, atol=2e-4
    )


def test_candidates_in_several_chunks_equal_those_alone():
    rng = np.random.default_rng(2)
    images = [cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (90, 90)) for _ in range(3)]
    candidate_boxes = rng.integers(-20, 60, (150, 2))
    candidate_boxes = np.concatenate([candidate_boxes, candidate_boxes + rng.integers(1, 60, (150, 1))], 1)
    frame_numbers = rng.integers(0, 3, 150)
    together = mtcnn_cascade._run_network("rnet", images, frame_numbers, candidate_boxes)
    assert together.shape == (150, 5)
    for i in (0, 63, 64, 149):
        alone = mtcnn_cascade._run_network("rnet", images, frame_numbers[[i]], candidate_boxes[[i]])
        np.testing.assert_allclose(alone[0], together[i], atol=1e-4)


def test_boxes_by_hand():
    three = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [0, 0, 5, 5]], np.float32)
    np.testing.assert_allclose(boxes.pairwise_overlap(three)[0], [1, 1 / 3, 1 / 4])
    np.testing.assert_allclose(boxes.pairwise_overlap(three, of_smaller=True)[0], [1, 1 / 2, 1])
    assert boxes.non_max_suppression(boxes.pairwise_overlap(three), 0.3).tolist() == [0, 2]
    assert boxes.non_max_suppression(boxes.pairwise_overlap(three), 0.34).tolist() == [0, 1, 2]
    moved = boxes.apply_offsets(three[:1], np.array([[0.1, 0.2, -0.1, 0]], np.float32))
    np.testing.assert_allclose(moved, [[1, 2, 9, 10]], rtol=1e-6)
    assert boxes.to_squares(np.array([[0, 0, 4, 10]], np.float32)).tolist() == [[-3, 0, 7, 10]]


def test_pyramid_spans_the_smallest_face_to_the_frame():
    plan = pyramid.plan_pyramid(720, 1280, 0.12)
    sides = (plan.cell_boxes[:, 3] - plan.cell_boxes[:, 1]) * plan.reduction_factor / 720
    assert sides.min() == pytest.approx(0.12, rel=0.03)
    assert sides.max() > 0.8
    assert plan.cell_boxes.min() == 0
    assert plan.cell_boxes[:, 2].max() <= 1280 / plan.reduction_factor + 1e-3
    assert len(plan.cell_boxes) == sum((h // 2 - 5) * (w // 2 - 5) for h, w in plan.level_sizes)


def test_patch_outside_the_frame_is_grey():
    frame = np.full((20, 20, 3), 200, np.uint8)
    patch = pyramid.crop_patch(frame, np.array([-10, -10, 10, 10]), 20)
    assert (patch[:10] == pyramid.PADDING_VALUE).all()
    assert (patch[10:, 10:] == 200).all()
    assert (pyramid.crop_patch(frame, np.array([30, 5, 40, 15]), 24) == pyramid.PADDING_VALUE).all()


# Tracks

FRAME_SHAPE = (200, 300)


def test_track_prefers_the_large_and_steady():
    large = [fake_face(100 + 3 * i, 100, 80) for i in range(16)]
    flicker = {3: fake_face(250, 60, 30, 0.999), 9: fake_face(40, 200, 35, 0.999)}
    faces = [[flicker[i], large[i]] if i in flicker else [large[i]] for i in range(16)]
    track, people = choose_track(faces, FRAME_SHAPE)
    assert track == large
    assert people == 1


def test_track_prefers_the_larger_of_two_steady_ones():
    faces = [[fake_face(60, 60, 40), fake_face(200, 80, 60)] for _ in range(10)]
    faces[4].pop()  # a gap does not end a track
    track, people = choose_track(faces, FRAME_SHAPE)
    assert people == 2
    assert track[4] is None
    assert all(face.box[0] == 170 for i, face in enumerate(track) if i != 4)


def test_track_prefers_steady_over_brief_and_huge():
    faces = [[fake_face(60, 60, 40)] for _ in range(16)]
    faces[7] = [fake_face(200, 150, 150), *faces[7]]
    track, people = choose_track(faces, FRAME_SHAPE)
    assert people == 1
    assert all(face.box[0] == 40 for face in track)


def test_track_prefers_the_centre_among_equals():
    faces = [[fake_face(40, 40, 50), fake_face(160, 110, 48)] for _ in range(8)]
    track, _ = choose_track(faces, FRAME_SHAPE)
    assert all(face.box[0] == 136 for face in track)


def test_the_one_who_speaks_is_preferred_to_a_larger_one():
    faces = [[fake_face(60, 100, 60), fake_face(240, 100, 40)] for _ in range(8)]
    num_scored_tracks = []

    def score_speech(tracks):
        num_scored_tracks.append(len(tracks))
        return [-0.1 if track.last_face.box[0] < 100 else 0.6 for track in tracks]

    track, people = choose_track(faces, FRAME_SHAPE, score_speech)
    assert people == 2
    assert num_scored_tracks == [2]
    assert all(face.box[0] == 220 for face in track)
    choose_track([frame_faces[:1] for frame_faces in faces], FRAME_SHAPE, score_speech)
    assert num_scored_tracks == [2]  # one alone is not listened to


def test_crossing_faces_keep_their_tracks():
    one = [fake_face(50 + 12 * i, 100, 60) for i in range(10)]
    other = [fake_face(158 - 12 * i, 108, 36) for i in range(10)]
    track, people = choose_track([[b, a] for a, b in zip(one, other, strict=True)], FRAME_SHAPE)
    assert people == 2
    assert track == one


def test_no_faces_no_people():
    assert choose_track([[], [], []], FRAME_SHAPE) == ([None, None, None], 0)
    assert choose_track([], FRAME_SHAPE) == ([], 0)


# Weights


def test_changed_weights_are_refused(tmp_path):
    for name in weights.WEIGHTS_SHA256:
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
    with pytest.raises(ModuleNotFoundError, match=r"pip install '\.\[prep\]'"):
        weights.load_weights("pnet")


def test_the_next_person_is_the_one_of_the_next_weight():
    faces = [[fake_face(60, 60, 40), fake_face(200, 80, 60)] for _ in range(10)]
    for person, expected in ((0, 1), (1, 0)):
        track, people = choose_track(faces, FRAME_SHAPE, person=person)
        assert people == 2
        assert track == [frame_faces[expected] for frame_faces in faces]
    assert choose_track(faces, FRAME_SHAPE, person=2) == ([None] * 10, 2)
