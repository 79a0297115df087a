"""Which detector the settings name: how it searches frames, and how it looks where a face is known to be."""

import functools

import numpy as np

from data_prep.faces.face import Face
from data_prep.faces.mtcnn_cascade import detect_faces, look_again
from data_prep.faces.onnx_detector import search_with
from data_prep.faces.track_faces import Look, Search
from data_prep.onnx_models.encoders import EncoderFiles
from data_prep.settings import PrepSettings

WARMING, SQUARE = (480, 640), 8
"""Height and width of a webcam's frame (for another, the first stage compiles again), side of its squares."""


def open_detector(settings: PrepSettings, files: EncoderFiles) -> tuple[Search, Look | None]:
    """MTCNN, or the user's own where `settings.features.detector` names one; that one searches every frame.

    Raises ValueError on a detector of another name, or without the file of the user's own.
    """
    face, own = settings.face, settings.features.detector
    if own is not None:
        return functools.partial(search_with, detector=own, files=files), None
    if face.detector != "mtcnn_v2":
        raise ValueError(
            f"face detector {face.detector!r}: this emofuse has 'mtcnn_v2'; prepare and train again"
        )
    search = functools.partial(detect_faces, min_face=face.min_face, min_score=face.min_score)
    return search, functools.partial(look_again, min_score=face.min_score)


def warm_detector(settings: PrepSettings, files: EncoderFiles) -> None:
    """Loads and compiles what the first film would wait for, on squares that look a little like faces."""
    search, look = open_detector(settings, files)
    small = np.random.default_rng(2).integers(0, 256, (1, *(side // SQUARE for side in WARMING), 3), np.uint8)
    frames = small.repeat(SQUARE, axis=1).repeat(SQUARE, axis=2)
    search(frames)
    if look:
        box, points = np.array([270, 190, 370, 290], np.float32), np.full((5, 2), 240, np.float32)
        look(frames, [[Face(box, points, 1.0)]])
