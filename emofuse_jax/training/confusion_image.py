"""Draws a confusion matrix as a small image for TensorBoard, in a few milliseconds."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageDraw

CELL_PIXELS, MARGIN_PIXELS = 44, 84
TEXT_COLOUR, BACKGROUND_COLOUR, FULL_COLOUR = (20, 20, 20), np.array([255, 255, 255]), np.array([31, 92, 168])


def confusion_image(matrix: Shaped[np.ndarray, "c c"], classes: Sequence[str]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns an RGB image of a confusion matrix: rows are true classes, columns predicted classes.

    The colour of a cell shows its fraction of the row, the number is the count of clips. `classes` are the
    names of the c classes, cut to 12 characters in the image. Pixels are [h w 3], uint8; the size depends
    only on the number of classes.
    """
    matrix = np.asarray(matrix, np.float64)
    row_fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side_pixels = MARGIN_PIXELS + CELL_PIXELS * len(classes)
    image = Image.new("RGB", (side_pixels + MARGIN_PIXELS // 4, side_pixels), "white")
    draw = ImageDraw.Draw(image)
    for i, name in enumerate(classes):
        centre = MARGIN_PIXELS + CELL_PIXELS * i + CELL_PIXELS // 2
        draw.text((MARGIN_PIXELS - 6, centre), name[:12], TEXT_COLOUR, anchor="rm")
        draw.text((centre, MARGIN_PIXELS - 10 - 12 * (i % 2)), name[:12], TEXT_COLOUR, anchor="mm")
        for j in range(len(classes)):
            fraction, left = row_fractions[i, j], MARGIN_PIXELS + CELL_PIXELS * j
            colour = tuple((BACKGROUND_COLOUR + fraction * (FULL_COLOUR - BACKGROUND_COLOUR)).astype(int))
            draw.rectangle(
                (left, centre - CELL_PIXELS // 2, left + CELL_PIXELS - 1, centre + CELL_PIXELS // 2 - 1),
                colour,
            )
            text_colour = "white" if fraction > 0.5 else TEXT_COLOUR
            draw.text((left + CELL_PIXELS // 2, centre), f"{matrix[i, j]:.0f}", text_colour, anchor="mm")
    return np.asarray(image)
