"""MTCNN in PyTorch like the common packages: one frame at a time, one P-net pass per scale.

Zhang et al., 2016, with the steps of the published PyTorch version (facenet-pytorch): a pyramid by area
averaging from `min_face` pixels up, factor 0.709 between scales; greedy suppression within a scale (overlap
0.5), over all scales, after R-net and after O-net (0.7); thresholds 0.6, 0.7, 0.7. The weights are those of
emofuse, converted to torch's layout.
"""

import functools

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate

from data_prep.faces.weights import load_weights

FACTOR, THRESHOLDS = 0.709, (0.6, 0.7, 0.7)


def conv(inputs, outputs, kernel):
    return [nn.Conv2d(inputs, outputs, kernel), nn.PReLU(outputs)]


def pool(kernel):
    return nn.MaxPool2d(kernel, 2, ceil_mode=True)


class Columns(nn.Module):
    """Flattens a map column by column, the order for which the weights were trained."""

    def forward(self, x):
        return x.permute(0, 3, 2, 1).flatten(1)  # n c h w -> n w*h*c


class Net(nn.Module):
    """A trunk and its heads; the head with number `score` returns the softmax of the class face."""

    def __init__(self, name, trunk, heads, score):
        super().__init__()
        self.trunk, self.heads, self.score = nn.Sequential(*trunk), nn.ModuleList(heads), score
        arrays = iter(load_weights(name))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(to_torch_layout(next(arrays)).reshape(parameter.shape))
        assert next(arrays, None) is None

    def forward(self, x):
        x = self.trunk(x)
        return [torch.softmax(h(x), 1)[:, 1] if i == self.score else h(x) for i, h in enumerate(self.heads)]


def to_torch_layout(array):
    """Converts kernels to [out in h w] and dense weights to [out in]; other arrays do not change."""
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim)
    return torch.from_numpy(np.array(array.transpose(axes) if axes else array))


@functools.cache
def networks():
    """Returns P-net, R-net and O-net; each returns the outputs of its heads, offsets of the boxes first."""
    p = [*conv(3, 10, 3), pool(2), *conv(10, 16, 3), *conv(16, 32, 3)]
    r = [*conv(3, 28, 3), pool(3), *conv(28, 48, 3), pool(3), *conv(48, 64, 2)]
    r += [Columns(), nn.Linear(576, 128), nn.PReLU(128)]
    o = [*conv(3, 32, 3), pool(3), *conv(32, 64, 3), pool(3), *conv(64, 64, 3), pool(2), *conv(64, 128, 2)]
    o += [Columns(), nn.Linear(1152, 256), nn.PReLU(256)]
    return (
        Net("pnet", p, [nn.Conv2d(32, 4, 1), nn.Conv2d(32, 2, 1)], 1),
        Net("rnet", r, [nn.Linear(128, 4), nn.Linear(128, 2)], 1),
        Net("onet", o, [nn.Linear(256, 4), nn.Linear(256, 10), nn.Linear(256, 2)], 2),
    )


@torch.inference_mode()
def detect(frame, min_face):
    """Detects faces in a uint8 frame [h w 3]; returns boxes [n 4], scores [n] and landmarks [n 5 2].

    The best face is first; boxes and landmarks are in pixels.
    """
    pnet, rnet, onet = networks()
    image = torch.from_numpy(frame).permute(2, 0, 1)[None].float()  # 1 3 h w
    boxes, scores = propose_boxes(image, min_face, pnet)
    if len(boxes):
        boxes, scores = refine_boxes(*rnet(crop_patches(image, boxes, 24)), boxes, THRESHOLDS[1])
    if not len(boxes):
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((0, 5, 2), np.float32)
    offsets, points, face_scores = (part.numpy() for part in onet(crop_patches(image, boxes, 48)))
    points = points.reshape(-1, 2, 5).transpose(0, 2, 1)  # n 5 2
    points = boxes[:, None, :2] + points * (boxes[:, None, 2:] - boxes[:, None, :2])
    passed = face_scores > THRESHOLDS[2]
    boxes, scores, points = apply_offsets(boxes, offsets)[passed], face_scores[passed], points[passed]
    keep = suppress(boxes, scores, 0.7, of_smaller=True)
    return boxes[keep], scores[keep], points[keep]


def propose_boxes(image, min_face, pnet):
    """Returns the squares [n 4] that P-net classifies as faces at any scale, and their scores [n]."""
    height, width = image.shape[2:]
    scale, candidates = 12 / min_face, [np.zeros((0, 9), np.float32)]  # box, offsets, score
    while min(height, width) * scale >= 12:
        size = (int(height * scale + 1), int(width * scale + 1))
        offsets, score = pnet(normalize_image(interpolate(image, size=size, mode="area")))
        rows, columns = torch.where(score[0] > THRESHOLDS[0])
        corner = torch.stack([columns, rows], 1) * 2
        box = torch.cat([corner, corner + 12], 1) / scale
        cell = torch.cat([box, offsets[0][:, rows, columns].T, score[0][rows, columns][:, None]], 1).numpy()
        candidates.append(cell[suppress(cell[:, :4], cell[:, 8], 0.5)])
        scale *= FACTOR
    candidates = np.concatenate(candidates)
    candidates = candidates[suppress(candidates[:, :4], candidates[:, 8], 0.7)]
    return make_squares(apply_offsets(candidates[:, :4], candidates[:, 4:8])), candidates[:, 8]


def refine_boxes(offsets, score, boxes, threshold):
    """Returns the squares [n 4] that R-net's outputs confirm as faces, and their scores [n]."""
    offsets, score = offsets.numpy(), score.numpy()
    passed = score > threshold
    boxes, offsets, score = boxes[passed], offsets[passed], score[passed]
    keep = suppress(boxes, score, 0.7)
    return make_squares(apply_offsets(boxes, offsets)[keep]), score[keep]


def normalize_image(image):
    return (image - 127.5) * 0.0078125


def crop_patches(image, boxes, side):
    """Crops the squares, as far as they are inside the frame, and averages them to `side` pixels."""
    height, width = image.shape[2:]
    crops = []
    for x0, y0, x1, y1 in np.rint(boxes).astype(int).tolist():
        x0, y0 = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
        inner = image[:, :, y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
        crops.append(interpolate(inner, size=(side, side), mode="area"))
    return normalize_image(torch.cat(crops))


def apply_offsets(boxes, offsets):
    size = boxes[:, 2:] - boxes[:, :2]
    return boxes + offsets * np.concatenate([size, size], 1)


def make_squares(boxes):
    centre, side = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True)
    return np.concatenate([centre - side / 2, centre + side / 2], 1)


def suppress(boxes, scores, max_overlap, of_smaller=False):
    """Returns the indices of boxes that remain, best first, after non-maximum suppression.

    A remaining box removes all boxes that overlap it by more than `max_overlap` of their union, or of the
    smaller box with `of_smaller`.
    """
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order, keep = np.argsort(-scores, kind="stable"), []
    while len(order):
        best, rest = order[0], order[1:]
        keep.append(best)
        low, high = np.maximum(boxes[best, :2], boxes[rest, :2]), np.minimum(boxes[best, 2:], boxes[rest, 2:])
        intersection = np.maximum(high - low, 0).prod(1)
        denominator = (
            np.minimum(area[best], area[rest]) if of_smaller else area[best] + area[rest] - intersection
        )
        order = rest[intersection <= max_overlap * denominator]
    return np.array(keep, int)
