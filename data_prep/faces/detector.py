"""Opens the face detector that the settings name: MTCNN or a custom ONNX model."""

import functools

import numpy as np

from data_prep.faces.face import Face
from data_prep.faces.mtcnn_cascade import detect_faces, redetect_faces
from data_prep.faces.onnx_detector import detect_with_onnx
from data_prep.faces.track_faces import Detector, Redetector
from data_prep.onnx_models.encoders import EncoderFiles
from data_prep.settings import PrepSettings

WARM_UP_FRAME_SIZE, WARM_UP_SQUARE_SIZE = (480, 640), 8
"""Size of a webcam frame (other sizes recompile the first stage), and side of the squares drawn in it."""


def open_detector(settings: PrepSettings, encoder_files: EncoderFiles) -> tuple[Detector, Redetector | None]:
    """Returns a function that finds faces in frames, and one that finds known faces again in other frames.

    The first takes frames, RGB uint8 [n h w 3]; the second takes frames and a list of the approximate faces
    of each. Both return a list of `Face` for each frame: box (x0 y0 x1 y1) and five landmarks (x, y) in
    pixels of the frame, and a score. The second function is None for a custom ONNX detector, which searches
    every frame; `settings.features.detector` has its settings and `encoder_files.detector` its path.

    Files are read when the returned functions are called. These raise ValueError if a file has another
    SHA-256, the ONNX file has no path, does not exist or is not an ONNX model, the custom detector fails
    (EncoderError), lz4 is not installed, or for MTCNN `settings.face.min_face` is not in (0, 1] or frames are
    not uint8 [n h w 3]; OSError if a file can't be read; ModuleNotFoundError if the `mtcnn` wheel with the
    weights, joblib or onnxruntime is needed, but not installed.

    Raises:
      ValueError: there is no custom detector and `settings.face.detector` is not `mtcnn_v2`.
    """
    face_settings, custom_detector = settings.face, settings.features.detector
    if custom_detector is not None:
        return functools.partial(detect_with_onnx, detector=custom_detector, files=encoder_files), None
    if face_settings.detector != "mtcnn_v2":
        raise ValueError(
            f"face detector {face_settings.detector!r} in the stored settings: this emofuse has only"
            " 'mtcnn_v2'; run emofuse prepare and emofuse train again"
        )
    detect = functools.partial(
        detect_faces, min_face=face_settings.min_face, min_score=face_settings.min_score
    )
    return detect, functools.partial(redetect_faces, min_score=face_settings.min_score)


def warm_up_detector(settings: PrepSettings, encoder_files: EncoderFiles) -> None:
    """Loads and compiles the detector, so that the first video does not have to wait for it; returns nothing.

    The detector runs on a frame of random squares, some of which resemble faces.

    Raises:
      ValueError: the settings name an unknown detector, `settings.face.min_face` is not in (0, 1], the
        weights of MTCNN have another SHA-256, lz4 is not installed, or the ONNX file has no path, does not
        exist, has another SHA-256, is not an ONNX model or fails (EncoderError).
      OSError: the ONNX file or the weights of MTCNN can't be read.
      ModuleNotFoundError: the `mtcnn` wheel with the weights, joblib or onnxruntime is needed, but not
        installed.
    """
    detect, redetect = open_detector(settings, encoder_files)
    squares = np.random.default_rng(2).integers(
        0, 256, (1, *(side // WARM_UP_SQUARE_SIZE for side in WARM_UP_FRAME_SIZE), 3), np.uint8
    )
    frames = squares.repeat(WARM_UP_SQUARE_SIZE, axis=1).repeat(WARM_UP_SQUARE_SIZE, axis=2)
    detect(frames)
    if redetect:
        box, points = np.array([270, 190, 370, 290], np.float32), np.full((5, 2), 240, np.float32)
        redetect(frames, [[Face(box, points, 1.0)]])
