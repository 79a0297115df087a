"""Faces made up for tests."""

import numpy as np

from data_prep.faces.face import Face


def fake_face(x, y, side, score=0.99):
    box = np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32)
    landmark_offsets = np.array([[-0.2, -0.1], [0.2, -0.1], [0, 0.05], [-0.15, 0.25], [0.15, 0.25]])
    return Face(box, (np.array([x, y]) + landmark_offsets * side).astype(np.float32), score)
