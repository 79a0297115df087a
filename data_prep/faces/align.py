"""Cuts faces as square crops of fixed size with level eyes."""

import math

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data_prep.faces.face import Face


def alignment_transform(face: Face, *, size: int, margin: float) -> Float[np.ndarray, "2 3"]:
    """Returns the similarity transform from frame to crop coordinates, as a matrix M [2 3].

    The point (x, y) of the frame is at `M @ (x, y, 1)` in the crop, both in pixels from the top left corner.
    The crop, `size` x `size` pixels, shows a square around the box's centre with level eyes; the square's
    side is `1 + margin` times the box's longer side.
    """
    return level_eyes_transform(face, face.centre, size / _crop_side(face, margin), size)


def level_eyes_transform(
    face: Face, centre: Float[np.ndarray, " 2"], scale: float, size: int
) -> Float[np.ndarray, "2 3"]:
    """Returns the similarity transform that makes the eyes of `face` level, as a matrix M [2 3].

    The point (x, y) of the frame is at `M @ (x, y, 1)` in an image with `size` x `size` pixels, both in
    pixels from the top left corner. `centre` (x, y), in pixels of the frame, moves to the middle of this
    image; a pixel of the frame becomes `scale` pixels wide.
    """
    eyes = face.landmarks[1] - face.landmarks[0]
    angle = np.arctan2(eyes[1], eyes[0])
    linear = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * scale
    return np.concatenate([linear, (size / 2 - linear @ centre)[:, None]], 1)  # 2 3


def _crop_side(face: Face, margin: float) -> float:
    return float((face.box[2:] - face.box[:2]).max()) * (1 + margin)


def align_face(
    frame: UInt8[np.ndarray, "h w 3"], face: Face, *, size: int, margin: float
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Cuts a face out of a frame as a square crop, uint8 [size size 3], with level eyes.

    The crop shows a square around the box's centre; its side is `1 + margin` times the box's longer side.
    Pixels outside the frame repeat the nearest edge pixel. A face larger than the crop is first averaged down
    by an integer factor, to avoid aliasing.
    """
    side = _crop_side(face, margin)
    factor = max(1, int(side / size))
    transform = alignment_transform(face, size=size, margin=margin)
    region, corner = _crop_around(frame, face, side, factor)
    transform[:, 2] += transform[:, :2] @ corner
    transform[:, :2] *= factor
    transform[:, 2] += transform[:, :2] @ [0.5, 0.5] - 0.5  # in OpenCV, the first pixel's centre is 0
    return cv2.warpAffine(
        region, transform, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _crop_around(
    frame: UInt8[np.ndarray, "h w 3"], face: Face, side: float, factor: int
) -> tuple[UInt8[np.ndarray, "_ _ 3"], Float[np.ndarray, " 2"]]:
    """Returns the region of the frame that a crop of `side` pixels around the face can show, and its corner.

    `side` is in pixels of the frame. The region ends at the border of the frame and is reduced: each of its
    pixels is the mean of `factor` x `factor` pixels. The corner is its top left one (x, y) in pixels of the
    original frame. If `factor` is 1, the region is the complete frame and the corner (0, 0).
    """
    if factor == 1:
        return np.ascontiguousarray(frame), np.zeros(2)
    frame_size, radius = np.array(frame.shape[1::-1]), side / math.sqrt(2) + 2 * factor
    top_left = np.clip(np.floor(face.centre - radius).astype(int), 0, np.maximum(frame_size - factor, 0))
    reduced_size = np.maximum(
        (np.minimum(np.ceil(face.centre + radius), frame_size) - top_left) // factor, 1
    ).astype(int)
    bottom_right = np.minimum(top_left + reduced_size * factor, frame_size)
    region = np.ascontiguousarray(frame[top_left[1] : bottom_right[1], top_left[0] : bottom_right[0]])
    return cv2.resize(region, tuple(reduced_size.tolist()), interpolation=cv2.INTER_AREA), top_left.astype(
        float
    )
