"""Our face detector and the usual one in PyTorch, on the same weights, find the same faces."""

import glob
import importlib.util
import os

import numpy as np
import pytest

from data_prep.faces.mtcnn_cascade import detect_faces
from data_prep.settings import FaceSettings
from tests.unit.data_prep.test_faces import sample_frames

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed: pip install '.[bench]'"
)


def test_the_same_faces(shared_data):
    from benchmarks.peers.mtcnn import detect

    min_face = FaceSettings().min_face
    for path in sorted(glob.glob(os.path.join(shared_data, "talking_faces", "*.m*")))[::2]:
        frames = sample_frames(path, 2)
        ours = detect_faces(frames, min_face=min_face, min_score=FaceSettings().min_score)
        for frame, faces in zip(frames, ours, strict=True):
            boxes, scores, points = detect(frame, min_face * min(frame.shape[:2]))
            assert len(boxes) == len(faces) == 1
            side = np.ptp(faces[0].box[::2])
            np.testing.assert_allclose(points[0], faces[0].landmarks, atol=0.07 * side)
            np.testing.assert_allclose(boxes[0], faces[0].box, atol=0.12 * side)
            assert scores[0] > 0.9


def test_no_face_in_grey():
    from benchmarks.peers.mtcnn import detect

    boxes, scores, points = detect(np.full((90, 120, 3), 127, np.uint8), 20)
    assert (boxes.shape, scores.shape, points.shape) == ((0, 4), (0,), (0, 5, 2))


def test_the_script_prepares_a_clip(shared_data):
    from benchmarks.peers.prepare_script import prepare

    assert prepare(os.path.join(shared_data, "talking_faces", "face_1.mp4"), FaceSettings().min_face) == 16
