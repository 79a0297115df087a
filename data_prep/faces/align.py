"""A face as a square crop of fixed size with level eyes."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data_prep.faces.face import Face


def alignment(face: Face, *, size: int, margin: float) -> Float[np.ndarray, "2 3"]:
    """The similarity transform from coordinates of the frame to those of the crop.

    Both count in pixels from the top left corner. Rotates about the box's centre by the angle of the eye
    line, then scales the box's longer side, enlarged by `margin` (a share of it), to `size`.
    """
    eyes = face.landmarks[1] - face.landmarks[0]
    angle = np.arctan2(eyes[1], eyes[0])
    side = float((face.box[2:] - face.box[:2]).max()) * (1 + margin)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    linear = rotation * (size / side)
    centre = (face.box[:2] + face.box[2:]) / 2
    shift = np.full(2, size / 2) - linear @ centre
    return np.concatenate([linear, shift[:, None]], 1)  # 2 3


def align_face(
    frame: UInt8[np.ndarray, "h w 3"], face: Face, *, size: int, margin: float
) -> UInt8[np.ndarray, "_ _ 3"]:
    """The face in a frame as uint8 [size size 3]: eyes level, box enlarged by `margin`, square.

    What lies outside the frame repeats its nearest edge pixel. A face larger than the crop is drawn at a
    whole multiple of `size` and averaged down, so that it does not alias.
    """
    side = float((face.box[2:] - face.box[:2]).max()) * (1 + margin)
    factor = max(1, int(side / size))
    transform = alignment(face, size=size * factor, margin=margin)
    transform[:, 2] += transform[:, :2] @ [0.5, 0.5] - 0.5  # OpenCV counts from the first pixel's centre
    fine = cv2.warpAffine(
        np.ascontiguousarray(frame),
        transform,
        (size * factor, size * factor),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA) if factor > 1 else fine
