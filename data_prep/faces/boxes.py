"""Arithmetic of boxes, `x0 y0 x1 y1` in pixels, on the host."""

import numpy as np
from jaxtyping import Float, Int, Real


def pairwise_overlap(boxes: Real[np.ndarray, "n 4"], *, of_smaller: bool = False) -> Float[np.ndarray, "n n"]:
    """Intersection over union of each pair, or over the smaller of the two areas."""
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
    """Indices without an overlap above `threshold` with any earlier (better) box.

    One pass, as in the published MTCNN for TensorFlow: a suppressed box suppresses too. `threshold` may be [n
    n].
    """
    return np.flatnonzero(~np.triu(overlaps > threshold, k=1).any(axis=0))


def apply_offsets(
    boxes: Real[np.ndarray, "n 4"], offsets: Float[np.ndarray, "n 4"]
) -> Float[np.ndarray, "n 4"]:
    """Moves each corner by its offset, given as a share of the box's width or height."""
    size = boxes[:, 2:] - boxes[:, :2]  # n 2
    return boxes + offsets * np.concatenate([size, size], 1)


def to_squares(boxes: Real[np.ndarray, "n 4"]) -> Int[np.ndarray, "n 4"]:
    """The squares of the longer side about the same centres, on whole pixels, at least one pixel wide."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = np.maximum(np.rint((boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True)), 1)
    corner = np.rint(centre - side / 2)
    return np.concatenate([corner, corner + side], 1).astype(int)
