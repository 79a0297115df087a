"""A face as a square crop of fixed size with level eyes."""

import math

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data_prep.faces.face import Face


def alignment(face: Face, *, size: int, margin: float) -> Float[np.ndarray, "2 3"]:
    """The similarity transform from coordinates of the frame to those of the crop.

    Both count in pixels from the top left corner. Rotates about the box's centre by the angle of the eye
    line, then scales the box's longer side, enlarged by `margin` (a share of it), to `size`.
    """
    return level(face, face.centre, size / _side(face, margin), size)


def level(face: Face, about: Float[np.ndarray, " 2"], zoom: float, size: int) -> Float[np.ndarray, "2 3"]:
    """The similarity transform that levels the eyes and brings `about` to the middle of `size` pixels."""
    eyes = face.landmarks[1] - face.landmarks[0]
    angle = np.arctan2(eyes[1], eyes[0])
    linear = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * zoom
    return np.concatenate([linear, (size / 2 - linear @ about)[:, None]], 1)  # 2 3


def _side(face: Face, margin: float) -> float:
    return float((face.box[2:] - face.box[:2]).max()) * (1 + margin)


def align_face(
    frame: UInt8[np.ndarray, "h w 3"], face: Face, *, size: int, margin: float
) -> UInt8[np.ndarray, "_ _ 3"]:
    """The face in a frame as uint8 [size size 3]: eyes level, box enlarged by `margin`, square.

    What lies outside the frame repeats its nearest edge pixel. A face larger than the crop is first averaged
    down by a whole factor, so that it does not alias.
    """
    side = _side(face, margin)
    factor = max(1, int(side / size))
    transform = alignment(face, size=size, margin=margin)
    part, corner = _around(frame, face, side, factor)
    transform[:, 2] += transform[:, :2] @ corner
    transform[:, :2] *= factor
    transform[:, 2] += transform[:, :2] @ [0.5, 0.5] - 0.5  # OpenCV counts from the first pixel's centre
    return cv2.warpAffine(
        part, transform, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _around(
    frame: UInt8[np.ndarray, "h w 3"], face: Face, side: float, factor: int
) -> tuple[UInt8[np.ndarray, "_ _ 3"], Float[np.ndarray, " 2"]]:
    """What the crop can show of the frame, averaged over squares of `factor` pixels, and its corner."""
    if factor == 1:
        return np.ascontiguousarray(frame), np.zeros(2)
    limit, reach = np.array(frame.shape[1::-1]), side / math.sqrt(2) + 2 * factor
    first = np.clip(np.floor(face.centre - reach).astype(int), 0, np.maximum(limit - factor, 0))
    count = np.maximum((np.minimum(np.ceil(face.centre + reach), limit) - first) // factor, 1).astype(int)
    last = np.minimum(first + count * factor, limit)
    part = np.ascontiguousarray(frame[first[1] : last[1], first[0] : last[0]])
    return cv2.resize(part, tuple(count.tolist()), interpolation=cv2.INTER_AREA), first.astype(float)
