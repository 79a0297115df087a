"""Computes with boxes, `x0 y0 x1 y1` in pixels, in NumPy."""

import numpy as np
from jaxtyping import Float, Int, Real


def pairwise_overlap(boxes: Real[np.ndarray, "n 4"], *, of_smaller: bool = False) -> Float[np.ndarray, "n n"]:
    """Returns the overlap, 0 to 1, of each two of n boxes (x0 y0 x1 y1): intersection over union.

    If `of_smaller`, it is the intersection over the smaller of both areas. A box without area has the overlap
    0 with every box.
    """
    x0, y0, x1, y1 = boxes.T
    width = np.minimum(x1[:, None], x1) - np.maximum(x0[:, None], x0)
    height = np.minimum(y1[:, None], y1) - np.maximum(y0[:, None], y0)
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    area = (x1 - x0) * (y1 - y0)
    denominator = np.minimum(area[:, None], area) if of_smaller else area[:, None] + area - intersection
    return intersection / np.maximum(denominator, 1e-9)


def non_max_suppression(
    overlaps: Float[np.ndarray, "n n"], threshold: float | Float[np.ndarray, "n n"]
) -> Int[np.ndarray, " k"]:
    """Returns the k indices of the boxes that overlap no earlier (better) box by more than `threshold`.

    The indices are in ascending order. `threshold` is a number, or one number for each pair. There is only
    one pass, as in the published MTCNN for TensorFlow: removed boxes also remove others.
    """
    return np.flatnonzero(~np.triu(overlaps > threshold, k=1).any(axis=0))


def apply_offsets(
    boxes: Real[np.ndarray, "n 4"], offsets: Float[np.ndarray, "n 4"]
) -> Float[np.ndarray, "n 4"]:
    """Returns the boxes (x0 y0 x1 y1) with each coordinate moved by its offset.

    Offsets are fractions of the box's width (x) or height (y).
    """
    size = boxes[:, 2:] - boxes[:, :2]  # n 2
    return boxes + offsets * np.concatenate([size, size], 1)


def to_squares(boxes: Real[np.ndarray, "n 4"]) -> Int[np.ndarray, "n 4"]:
    """Returns squares (x0 y0 x1 y1) with the same centres and the longer side, at least one pixel wide.

    Corners and sides are rounded to whole pixels, halves to the even number.
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = np.maximum(np.rint((boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True)), 1)
    corner = np.rint(centre - side / 2)
    return np.concatenate([corner, corner + side], 1).astype(int)
