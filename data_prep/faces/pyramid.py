"""Converts frames to the fixed input shapes of the networks: pyramid levels and patches of candidates."""

import dataclasses
import functools

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from data_prep.faces.mtcnn_networks import PNET_BORDER_CELLS, PNET_CELL_SIZE, PNET_STRIDE

SCALE_FACTOR = 0.709
"""Ratio of neighbouring pyramid levels (about the square root of 1/2, as published)."""
PADDING_VALUE = 127
"""Value of pixels outside a frame; about 0 after normalisation."""


@dataclasses.dataclass(frozen=True, eq=False)
class Pyramid:
    """Fixed shapes for frames of one size; `p` is the number of cells of all levels together."""

    reduction_factor: int
    """Integer factor by which frames are reduced first; boxes are in pixels of the reduced frame."""
    level_sizes: tuple[tuple[int, int], ...]
    """Height and width of each level; even numbers, so that pooling has no remainder."""
    cell_boxes: np.ndarray  # f32 [p 4]
    cell_levels: np.ndarray  # int [p]


@functools.lru_cache(maxsize=64)
def plan_pyramid(height: int, width: int, min_face: float) -> Pyramid:
    """Plans the pyramid for frames of one size; in its finest level, the smallest face fills one P-net cell.

    Returns a Pyramid: `reduction_factor`, an integer, by which frames are reduced first; `level_sizes`,
    height and width of each level, finest first; and for each of p cells of all levels `cell_boxes` [p 4] (x0
    y0 x1 y1, pixels of the reduced frame) and `cell_levels` [p], the index of its level. Frames are never
    enlarged. The reduced frame has at least twice the resolution of the finest level if the frame has, so
    that the smallest face still fills the 24 pixels of R-net. A frame that has a side below 12 pixels before
    the reduction has no levels.

    Args:
      height: height of the frames in pixels.
      width: width of the frames in pixels.
      min_face: side of the smallest face, as a fraction of the frame's shorter side, in (0, 1]; not checked.
    """
    if min(height, width) < PNET_CELL_SIZE:
        return Pyramid(1, (), np.zeros((0, 4), np.float32), np.zeros(0, int))
    finest_side = min(PNET_CELL_SIZE / min_face, min(height, width))
    reduction_factor = max(1, int(min(height, width) / (2 * finest_side)))
    height, width = height // reduction_factor, width // reduction_factor
    scales = [finest_side / min(height, width)]
    while scales[-1] * min(height, width) * SCALE_FACTOR >= PNET_CELL_SIZE - 1:
        scales.append(scales[-1] * SCALE_FACTOR)
    level_sizes = tuple((_round_to_even(height * scale), _round_to_even(width * scale)) for scale in scales)
    level_boxes = [_cell_boxes(size, height, width) for size in level_sizes]
    cell_levels = np.repeat(np.arange(len(level_boxes)), [len(boxes) for boxes in level_boxes])
    return Pyramid(reduction_factor, level_sizes, np.concatenate(level_boxes), cell_levels)


def _round_to_even(length: float) -> int:
    return 2 * round(length / 2)


def _cell_boxes(level_size: tuple[int, int], height: int, width: int) -> Float[np.ndarray, "p 4"]:
    rows, columns = (side // 2 - PNET_BORDER_CELLS for side in level_size)
    y, x = np.mgrid[:rows, :columns].reshape(2, -1) * PNET_STRIDE
    scale_y, scale_x = height / level_size[0], width / level_size[1]
    corners = [x * scale_x, y * scale_y, (x + PNET_CELL_SIZE) * scale_x, (y + PNET_CELL_SIZE) * scale_y]
    return np.stack(corners, 1).astype(np.float32)  # p 4


def downscale_frame(frame: UInt8[np.ndarray, "h w 3"], factor: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """Returns a frame reduced by an integer factor: each pixel is the mean of `factor` x `factor` pixels.

    Pixels at the right and bottom that fill no such square are cut off.
    """
    if factor == 1:
        return np.ascontiguousarray(frame)
    height, width = frame.shape[0] // factor, frame.shape[1] // factor
    frame = np.ascontiguousarray(frame[: height * factor, : width * factor])
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)


def build_levels(frames: list[np.ndarray], pyramid: Pyramid, batch_size: int) -> tuple[np.ndarray, ...]:
    """Returns one array for each pyramid level, uint8 [batch_size h w 3], with all frames at that size.

    The sizes h, w are those of `pyramid.level_sizes`. `frames` are uint8 [height width 3], already reduced by
    `pyramid.reduction_factor`, at most `batch_size`. Rows without a frame are zero.
    """
    levels = tuple(np.zeros((batch_size, *size, 3), np.uint8) for size in pyramid.level_sizes)
    for i, source in enumerate(frames):
        for j, (height, width) in enumerate(pyramid.level_sizes):
            image = cv2.resize(source, (width, height), interpolation=cv2.INTER_AREA)
            levels[j][i] = image
            source = image if j == 0 else source  # smaller levels are made from the finest, which is faster
    return levels


def crop_patch(
    frame: UInt8[np.ndarray, "h w 3"], box: Int[np.ndarray, " 4"], size: int
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Returns the part of a frame in the square `box`, resized to `size` x `size` pixels, uint8.

    `box` is x0 y0 x1 y1 in whole pixels, at least one pixel wide. Pixels outside the frame are grey (127).
    """
    x0, y0, x1, y1 = box.tolist()
    height, width = frame.shape[:2]
    inner = frame[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        patch = np.full((y1 - y0, x1 - x0, 3), PADDING_VALUE, np.uint8)
        top, left = max(-y0, 0), max(-x0, 0)
        patch[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
        inner = patch
    is_shrinking = x1 - x0 > size
    return cv2.resize(inner, (size, size), interpolation=cv2.INTER_AREA if is_shrinking else cv2.INTER_LINEAR)
