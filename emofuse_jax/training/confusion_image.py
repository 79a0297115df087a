"""A confusion matrix as a small picture, drawn in milliseconds, for TensorBoard."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageDraw

CELL, MARGIN = 44, 84
INK, PAPER, FULL = (20, 20, 20), np.array([255, 255, 255]), np.array([31, 92, 168])


def confusion_image(matrix: Shaped[np.ndarray, "c c"], classes: Sequence[str]) -> UInt8[np.ndarray, "h w 3"]:
    """Rows are truth, columns answers; colour is the share of the row, the number is clips."""
    matrix = np.asarray(matrix, np.float64)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = MARGIN + CELL * len(classes)
    image = Image.new("RGB", (side + MARGIN // 4, side), "white")
    draw = ImageDraw.Draw(image)
    for i, name in enumerate(classes):
        middle = MARGIN + CELL * i + CELL // 2
        draw.text((MARGIN - 6, middle), name[:12], INK, anchor="rm")
        draw.text((middle, MARGIN - 10 - 12 * (i % 2)), name[:12], INK, anchor="mm")
        for j in range(len(classes)):
            share, left = shares[i, j], MARGIN + CELL * j
            colour = tuple((PAPER + share * (FULL - PAPER)).astype(int))
            draw.rectangle((left, middle - CELL // 2, left + CELL - 1, middle + CELL // 2 - 1), colour)
            ink = "white" if share > 0.5 else INK
            draw.text((left + CELL // 2, middle), f"{matrix[i, j]:.0f}", ink, anchor="mm")
    return np.asarray(image)
