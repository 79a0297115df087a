"""Runs a custom face detector: an ONNX file with a YAML file next to it (`DetectorLayout`)."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data_prep.faces.boxes import non_max_suppression, pairwise_overlap
from data_prep.faces.face import Face
from data_prep.onnx_models.encoder_settings import EncoderSettings
from data_prep.onnx_models.encoders import (
    EncoderError,
    EncoderFiles,
    RunnableModel,
    open_encoder,
    preprocess_images,
    run_outputs,
)
from data_prep.onnx_models.layouts import DetectorLayout

NMS_THRESHOLD = 0.4
"""Largest intersection over union with a better box; boxes with more are dropped."""
MAX_BOXES_PER_FRAME = 256
"""Number of best boxes of a frame that are used."""
MAX_BOX_TO_FRAME_RATIO = 4
"""Largest ratio of a box's side to the frame's longer side; more means that the units are wrong."""


def detect_with_onnx(
    frames: UInt8[np.ndarray, "s h w 3"], detector: EncoderSettings[DetectorLayout], files: EncoderFiles
) -> list[list[Face]]:
    """Detects the faces of each frame with a custom ONNX model.

    Boxes are dropped if they score below `detector.layout.score`, have a side below one pixel or values that
    are not finite, are not among the 256 best of the frame, or overlap a better one by more than 0.4
    (intersection over union).

    Args:
      frames: RGB images of equal size.
      detector: settings of the detector: `sha256` of its file, and `layout` with the names of its input and
        outputs, their units, and the size and format of the input.
      files: `files.detector` is the path of the ONNX file, `files.threads` the number of threads.

    Returns:
      A list of faces for each frame, best first; empty for a frame without faces. Each `Face` has a box [4]
      (x0 y0 x1 y1) and five landmarks [5 2] (x, y) in pixels of the frames, and a score.

    Raises:
      EncoderError: the detector failed, or its outputs have wrong shapes or units.
      ValueError: the ONNX file has no path, does not exist, has another SHA-256, or is not an ONNX model.
      OSError: the ONNX file can't be read.
      ModuleNotFoundError: onnxruntime is not installed.
    """
    session = open_encoder("detector", detector, files)
    if 0 in frames.shape[1:3]:
        return [[] for _ in frames]
    return [_detect_in_frame(session, detector.layout, frame) for frame in frames]


def _detect_in_frame(
    session: RunnableModel, layout: DetectorLayout, frame: UInt8[np.ndarray, "h w 3"]
) -> list[Face]:
    resized, scale = fit_frame(frame, *layout.size)
    boxes, scores, landmarks = run_detector(session, layout, resized)
    pixels_per_unit = 1 if layout.units == "pixels" else np.array(layout.size[::-1], np.float32)
    boxes, landmarks = (
        (boxes.reshape(-1, 2, 2) * pixels_per_unit / scale).reshape(-1, 4),
        landmarks * pixels_per_unit / scale,
    )
    sides = boxes[:, 2:] - boxes[:, :2]
    is_finite = np.isfinite(boxes).all(1) & np.isfinite(landmarks).all((1, 2)) & np.isfinite(scores)
    box_indices = np.flatnonzero(is_finite & (sides >= 1).all(1) & (scores >= layout.score))
    box_indices = box_indices[np.argsort(-scores[box_indices], kind="stable")][:MAX_BOXES_PER_FRAME]
    if len(box_indices) and sides[box_indices].max() > MAX_BOX_TO_FRAME_RATIO * max(frame.shape[:2]):
        raise EncoderError(
            f"face detector: a box is {sides[box_indices].max():.0f} pixels long: its units are probably not"
            f" {layout.units}; correct the key 'units' in its YAML"
        )
    box_indices = box_indices[non_max_suppression(pairwise_overlap(boxes[box_indices]), NMS_THRESHOLD)]
    return [Face(boxes[i], landmarks[i], float(scores[i])) for i in box_indices]


def fit_frame(
    frame: UInt8[np.ndarray, "h w 3"], height: int, width: int
) -> tuple[UInt8[np.ndarray, "_ _ 3"], float]:
    """Scales a frame up or down to fit at the top left of a black image of `height` x `width` pixels.

    Returns the image, uint8 [height width 3], and the scale, the factor from frame pixels to image pixels.
    """
    scale = min(height / frame.shape[0], width / frame.shape[1])
    size = tuple(max(1, round(side * scale)) for side in frame.shape[1::-1])
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = np.zeros((height, width, 3), np.uint8)
    resized[: size[1], : size[0]] = cv2.resize(np.ascontiguousarray(frame), size, interpolation=interpolation)
    return resized, scale


def run_detector(
    session: RunnableModel, layout: DetectorLayout, frame: UInt8[np.ndarray, "h w 3"]
) -> tuple[Float[np.ndarray, "n 4"], Float[np.ndarray, " n"], Float[np.ndarray, "n 5 2"]]:
    """Runs the detector on one frame of its input size.

    `frame` is RGB and has the height and width `layout.size`. Returns n boxes (x0 y0 x1 y1), n scores, and
    five landmarks (x, y) of each box, all float32. Boxes and landmarks are in pixels of the input if
    `layout.units` is `pixels`, in fractions of its width and height if it is `shares`. Raises EncoderError if
    the model fails or the shapes of its outputs are wrong.
    """
    names = [layout.boxes, layout.scores, layout.landmarks]
    outputs = run_outputs(
        session, layout.input, names, preprocess_images(frame[None], layout), "face detector"
    )
    boxes, scores, landmarks = (np.asarray(array, np.float32) for array in outputs)
    n = boxes.size // 4
    has_valid_sizes = boxes.shape[-1:] == (4,) and scores.size == n and landmarks.size == 10 * n
    if not has_valid_sizes or landmarks.shape[-1] not in (2, 10):
        shapes = zip(names, (boxes, scores, landmarks), strict=True)
        shapes_text = ", ".join(f"{name} {list(array.shape)}" for name, array in shapes)
        raise EncoderError(
            f"face detector: its outputs have the shapes {shapes_text}, expected boxes [n, 4], scores [n] and"
            " landmarks [n, 10] or [n, 5, 2]; correct the names of the outputs in its YAML"
        )
    return boxes.reshape(n, 4), scores.reshape(n), landmarks.reshape(n, 5, 2)
