"""Which detector the settings name: how it searches frames, and how it looks where a face is known to be."""

import functools

import numpy as np

from data_prep.faces.face import Face
from data_prep.faces.mtcnn_cascade import detect_faces, redetect_faces
from data_prep.faces.onnx_detector import detect_with_onnx
from data_prep.faces.track_faces import Detector, Redetector
from data_prep.onnx_models.encoders import EncoderFiles
from data_prep.settings import PrepSettings

WARM_UP_FRAME_SIZE, WARM_UP_SQUARE_SIZE = (480, 640), 8
"""Height and width of a webcam's frame (for another, the first stage compiles again), side of its squares."""


def open_detector(settings: PrepSettings, encoder_files: EncoderFiles) -> tuple[Detector, Redetector | None]:
    """MTCNN, or the user's own where `settings.features.detector` names one; that one searches every frame.

    Raises ValueError on a detector of another name, or without the file of the user's own.
    """
    face_settings, custom_detector = settings.face, settings.features.detector
    if custom_detector is not None:
        return functools.partial(detect_with_onnx, detector=custom_detector, files=encoder_files), None
    if face_settings.detector != "mtcnn_v2":
        raise ValueError(
            f"face detector {face_settings.detector!r}: this emofuse has 'mtcnn_v2'; prepare and train again"
        )
    detect = functools.partial(
        detect_faces, min_face=face_settings.min_face, min_score=face_settings.min_score
    )
    return detect, functools.partial(redetect_faces, min_score=face_settings.min_score)


def warm_up_detector(settings: PrepSettings, encoder_files: EncoderFiles) -> None:
    """Loads and compiles what the first film would wait for, on squares that look a little like faces."""
    detect, redetect = open_detector(settings, encoder_files)
    squares = np.random.default_rng(2).integers(
        0, 256, (1, *(side // WARM_UP_SQUARE_SIZE for side in WARM_UP_FRAME_SIZE), 3), np.uint8
    )
    frames = squares.repeat(WARM_UP_SQUARE_SIZE, axis=1).repeat(WARM_UP_SQUARE_SIZE, axis=2)
    detect(frames)
    if redetect:
        box, points = np.array([270, 190, 370, 290], np.float32), np.full((5, 2), 240, np.float32)
        redetect(frames, [[Face(box, points, 1.0)]])
