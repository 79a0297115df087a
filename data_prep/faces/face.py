"""Defines a detected face."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Face:
    """One face in one frame; the box may reach outside the frame.

    Coordinates count from the frame's top left corner: the first pixel's centre is at (0.5, 0.5).
    """

    box: np.ndarray  # f32 [4], x0 y0 x1 y1, pixels of the source frame
    landmarks: np.ndarray  # f32 [5 2], x y: eye at the image's left, at its right, nose, mouth left, right
    score: float

    @property
    def centre(self) -> np.ndarray:
        """Centre of the box (x, y), f32 [2], in pixels of the frame in which the box is."""
        return (self.box[:2] + self.box[2:]) / 2
