"""From frames to the fixed shapes that the networks see: pyramid levels and candidate patches."""

import dataclasses
import functools

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from data_prep.faces.mtcnn_networks import CELL, PNET_SHRINK, STRIDE

SCALE_FACTOR = 0.709
"""Ratio of neighbouring pyramid levels (about the square root of 1/2, as published)."""
GREY = 127
"""What lies outside a frame; 0 after normalisation."""


@dataclasses.dataclass(frozen=True, eq=False)
class Pyramid:
    """Fixed shapes of the search in frames of one size; `p` cells in all levels together."""

    reduce: int
    """Frames are first reduced by this whole factor; boxes are pixels of the reduced frame."""
    levels: tuple[tuple[int, int], ...]
    """Height and width of each level; even, so that pooling leaves no rest."""
    cells: np.ndarray  # f32 [p 4]
    level: np.ndarray  # int [p]


@functools.lru_cache(maxsize=64)
def plan(height: int, width: int, min_face: float) -> Pyramid:
    """The pyramid whose finest level shows a face of `min_face` times the shorter side as one P-net cell.

    Frames are never enlarged. The reduced frame keeps twice the finest level's resolution, so that the
    smallest face still fills R-net's 24 pixels. A frame below 12 pixels has no levels.
    """
    if min(height, width) < CELL:
        return Pyramid(1, (), np.zeros((0, 4), np.float32), np.zeros(0, int))
    finest = min(CELL / min_face, min(height, width))
    reduce = max(1, int(min(height, width) / (2 * finest)))
    height, width = height // reduce, width // reduce
    scales = [finest / min(height, width)]
    while scales[-1] * min(height, width) * SCALE_FACTOR >= CELL - 1:
        scales.append(scales[-1] * SCALE_FACTOR)
    levels = tuple((_even(height * scale), _even(width * scale)) for scale in scales)
    cells = [_cells(size, height, width) for size in levels]
    level = np.repeat(np.arange(len(cells)), [len(c) for c in cells])
    return Pyramid(reduce, levels, np.concatenate(cells), level)


def _even(length: float) -> int:
    return 2 * round(length / 2)


def _cells(size: tuple[int, int], height: int, width: int) -> Float[np.ndarray, "p 4"]:
    rows, columns = (side // 2 - PNET_SHRINK for side in size)
    y, x = np.mgrid[:rows, :columns].reshape(2, -1) * STRIDE
    scale_y, scale_x = height / size[0], width / size[1]
    corners = [x * scale_x, y * scale_y, (x + CELL) * scale_x, (y + CELL) * scale_y]
    return np.stack(corners, 1).astype(np.float32)  # p 4


def reduce_frame(frame: UInt8[np.ndarray, "h w 3"], factor: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """Mean over blocks of `factor` x `factor` pixels; a rest at the right or bottom is dropped."""
    if factor == 1:
        return np.ascontiguousarray(frame)
    height, width = frame.shape[0] // factor, frame.shape[1] // factor
    frame = np.ascontiguousarray(frame[: height * factor, : width * factor])
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)


def build_levels(frames: list[np.ndarray], pyramid: Pyramid, count: int) -> tuple[np.ndarray, ...]:
    """All pyramid levels of all frames, uint8 [count h w 3] each; rows without a frame stay zero."""
    levels = tuple(np.zeros((count, *size, 3), np.uint8) for size in pyramid.levels)
    for i, source in enumerate(frames):
        for j, (height, width) in enumerate(pyramid.levels):
            image = cv2.resize(source, (width, height), interpolation=cv2.INTER_AREA)
            levels[j][i] = image
            source = image if j == 0 else source  # the others from the finest: fewer pixels to read
    return levels


def cut_patch(
    frame: UInt8[np.ndarray, "h w 3"], box: Int[np.ndarray, " 4"], size: int
) -> UInt8[np.ndarray, "_ _ 3"]:
    """The square `box` of `frame` as `size` x `size` pixels, grey outside the frame."""
    x0, y0, x1, y1 = box.tolist()
    height, width = frame.shape[:2]
    inner = frame[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        patch = np.full((y1 - y0, x1 - x0, 3), GREY, np.uint8)
        top, left = max(-y0, 0), max(-x0, 0)
        patch[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
        inner = patch
    shrinks = x1 - x0 > size
    return cv2.resize(inner, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
