"""Draws moving faces: eyes, brows and mouth with one of six expressions on a fixed image of the head.

The expression is given by (family p, state s_f) of the demo corpus. All other movement (head, gaze, blinks,
lips that follow the syllables) is irrelevant variation and does not depend on the state of the voice.
"""

import dataclasses
from collections.abc import Iterator
from typing import Protocol

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8
from numpy.typing import ArrayLike

from data_prep.synth import head
from data_prep.synth.head import Identity

FRAME_SIZE = 224
"""Side of a video frame in pixels."""
FRAME_RATE = 25
"""Frames per second."""
_FIXED_POINT_BITS = 4  # polygons have coordinates in sixteenths of a pixel


Curve = Float[np.ndarray, "#n #k"]
"""A coordinate of `k` points in eye distances, for each frame or the same for all."""
Polygons = Int32[np.ndarray, "n k 2"]
"""A polygon for each frame, in fixed point."""
RGBA = list[float]
"""Red, green, blue and alpha, 0 to 255."""
Layer = tuple[Polygons, RGBA]
"""A polygon for each frame, and its colour."""


class Shade(Protocol):
    """Function that returns a colour in the light of the clip, `light` times as bright."""

    def __call__(self, colour: ArrayLike, light: float = 1.0) -> RGBA:
        """Returns red, green, blue and alpha, 0 to 255, of a colour in the light of the clip.

        `colour` is red, green and blue, 0 to 255; `light` is a factor on them, besides the light of the clip,
        which the function knows. The result is a list of four floats, clipped to 0 to 255; alpha is always
        255.
        """


@dataclasses.dataclass(frozen=True)
class Expression:
    """A facial expression; lengths are in eye distances."""

    mouth_width: float
    """Half of the width of the mouth."""
    corner: float
    """Height of the corners above the middle of the mouth."""
    open: float
    """Opening of the mouth without speech."""
    square: float
    """Exponent of the outline of the opening: small values are boxy, 1 is pointed."""
    teeth: float
    """Fraction of the opening that shows upper teeth."""
    eye: float
    """Factor on the opening of the eyes."""
    brow: float
    """Height of the brows above their neutral position."""
    slant: float
    """Height of the inner ends of the brows above the outer ends."""


NEUTRAL_EXPRESSION = Expression(0.40, 0.0, 0.0, 0.8, 0.4, 1.0, 0.0, 0.0)
EXPRESSIONS: dict[tuple[int, int], Expression] = {
    (0, 0): NEUTRAL_EXPRESSION,
    (0, 1): Expression(0.56, 0.30, 0.17, 0.9, 0.75, 0.75, 0.04, 0.0),  # a broad smile
    (1, 0): Expression(0.34, -0.2, 0.0, 0.8, 0.2, 0.6, 0.04, 0.22),  # corners down, heavy lids
    (1, 1): Expression(0.48, -0.05, 0.19, 0.6, 1.0, 0.9, -0.1, -0.2),  # bared teeth, knitted brows
    (2, 0): Expression(0.29, 0.0, 0.25, 0.5, 0.0, 1.45, 0.19, -0.02),  # a round open mouth, wide eyes
    (2, 1): Expression(0.54, -0.20, 0.24, 0.8, 0.25, 1.45, 0.16, 0.24),  # a wide open mouth, corners down
}


@dataclasses.dataclass(frozen=True)
class Motion:
    """Everything that moves in one clip; the arrays have a value for each of `n` frames."""

    expression: Expression
    transforms: Float[np.ndarray, "n 2 3"]
    """Affine transforms from canvas pixels to frame pixels."""
    eyelid_opening: Float[np.ndarray, " n"]
    """Factor on the opening of the eyes: 0 in a blink."""
    gaze: Float[np.ndarray, "n 2"]
    """Position of the pupils relative to the eyes, x and y in eye distances."""
    lip_opening: Float[np.ndarray, " n"]
    """Opening of the lips by speech, 0 to 1."""
    brow_raise: Float[np.ndarray, " n"]
    """Movement of the brows, in eye distances."""


def draw_motion(
    identity: Identity, expression: Expression, lip_opening: Float[np.ndarray, " n"], rng: np.random.Generator
) -> Motion:
    """Draws the random motion of a clip: the variant of the expression, head, gaze, blinks and brows.

    `identity` is the speaker's face, `expression` the expression to show (an `Expression`: shape of mouth,
    eyes and brows), and `lip_opening` the opening of the lips by speech, 0 to 1, in each of n frames.

    Returns:
      A Motion: the `expression`, changed a little; the head's `transforms` [n 2 3] from canvas pixels to
      frame pixels; `eyelid_opening` [n], 1, and less in a blink; `gaze` [n 2] (x to the right, y down) and
      `brow_raise` [n] (up), in eye distances; and `lip_opening` itself.
    """
    n = len(lip_opening)
    scale, roll = rng.uniform(0.84, 1.0), rng.uniform(-4, 4)
    x, y = rng.uniform(-8, 8) + FRAME_SIZE / 2, rng.uniform(-5, 7) + 98
    sway = np.stack([_random_curve(n, rng) for _ in range(4)], -1)  # n 4
    transforms = _similarity_transforms(
        scale * (1 + 0.015 * sway[:, 0]), roll + 3.5 * sway[:, 1], x + 4 * sway[:, 2], y + 3 * sway[:, 3]
    )
    gaze = 0.03 * np.stack([_random_curve(n, rng), 0.6 * _random_curve(n, rng)], -1)
    return Motion(
        _personalise_expression(expression, identity, rng),
        transforms,
        _draw_blinks(n, rng),
        gaze,
        np.asarray(lip_opening),
        0.02 * _random_curve(n, rng) + 0.03 * np.asarray(lip_opening),
    )


def mean_transform(motion: Motion) -> Float[np.ndarray, "2 3"]:
    """Returns the mean over frames of the head's affine transforms from canvas pixels to frame pixels."""
    return motion.transforms.mean(0)


def render_frames(
    canvas: UInt8[np.ndarray, "h w 4"],
    background: UInt8[np.ndarray, "h w 3"],
    identity: Identity,
    tint: tuple[float, float, float],
    motion: Motion,
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yields the RGB frames of a clip, [224 224 3], one for each transform of the motion.

    Args:
      canvas: the head without eyes, brows and mouth, RGB times alpha, and alpha, [448 448 4].
      background: the room with the body, of the size of a frame.
      identity: the speaker.
      tint: factors of the light on red, green and blue.
      motion: the motion of the clip.
    """
    layers = _build_layers(identity, np.array(tint, np.float32), motion)
    for i, transform in enumerate(motion.transforms):
        head_image = canvas.copy()
        for points, colour in layers:
            cv2.fillPoly(head_image, [points[i]], colour, cv2.LINE_AA, _FIXED_POINT_BITS)
        warped_image = cv2.warpAffine(head_image, transform, (FRAME_SIZE, FRAME_SIZE), flags=cv2.INTER_LINEAR)
        transparency = cv2.cvtColor(255 - cv2.extractChannel(warped_image, 3), cv2.COLOR_GRAY2RGB)
        yield cv2.add(
            cv2.multiply(background, transparency, scale=1 / 255),
            cv2.cvtColor(warped_image, cv2.COLOR_RGBA2RGB),
        )


def _personalise_expression(
    expression: Expression, identity: Identity, rng: np.random.Generator
) -> Expression:
    """Returns the expression, changed a little at random for this speaker and clip.

    An `Expression` has lengths in eye distances and factors: `mouth_width` (half of it), `corner`, `open`,
    `square`, `teeth`, `eye`, `brow` and `slant`. The difference of each from that of the neutral expression
    is multiplied by the speaker's `expressiveness` and one random factor from 0.88 to 1.1 for all, then
    `mouth_width` by the speaker's factor of that name. `square`, the shape of the opening of the mouth, stays
    the same.
    """
    strength = identity.expressiveness * rng.uniform(0.88, 1.1)
    values = {}
    for field in dataclasses.fields(Expression):
        neutral, value = getattr(NEUTRAL_EXPRESSION, field.name), getattr(expression, field.name)
        values[field.name] = neutral + strength * (value - neutral)
    values["mouth_width"] *= identity.mouth_width
    values["square"] = expression.square
    return Expression(**values)


def _random_curve(n: int, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """Draws a smooth random curve with one value for each of `n` frames, mostly between -1 and 1."""
    t = np.arange(n) / FRAME_RATE
    speed, phase, size = rng.uniform(0.15, 0.7, 3), rng.uniform(0, 2 * np.pi, 3), rng.uniform(0.2, 0.5, 3)
    return (size[:, None] * np.sin(2 * np.pi * speed[:, None] * t + phase[:, None])).sum(0)


def _draw_blinks(n: int, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    eyelid_opening = np.ones(n)
    frame = rng.integers(5, 60)
    while frame < n:
        for step, value in enumerate((0.5, 0.05, 0.15, 0.6)):
            if frame + step < n:
                eyelid_opening[frame + step] = value
        frame += rng.integers(40, 110)
    return eyelid_opening


def _similarity_transforms(
    scale: Float[np.ndarray, " n"],
    roll: Float[np.ndarray, " n"],
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
) -> Float[np.ndarray, "n 2 3"]:
    """Returns, for each of n frames, the transform from canvas pixels to frame pixels.

    The transform scales the head by `scale` (1: the canvas fills the frame), turns it clockwise by `roll`
    degrees, and moves the middle of the eyes to (x, y) in frame pixels from the top left corner.
    """
    scale = scale * FRAME_SIZE / head.CANVAS_SIZE
    cosine, sine = scale * np.cos(np.radians(roll)), scale * np.sin(np.radians(roll))
    origin_x, origin_y = head.ORIGIN
    shift = np.stack(
        [x - cosine * origin_x + sine * origin_y, y - sine * origin_x - cosine * origin_y], -1
    )  # n 2
    rotation = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], 1)  # n 2 2
    return np.concatenate([rotation, shift[..., None]], -1)


def _to_fixed_point(x: Curve, y: Curve) -> Polygons:
    """Converts x and y of k points in eye distances to polygons, int32 [n k 2], in fixed point.

    `x` and `y` are [n k], [1 k] or [n 1], from the middle of the eyes to the right and down. The unit of the
    result is a sixteenth of a canvas pixel, from the top left corner. n is the number of frames, or 1 if `x`
    and `y` are the same in all.
    """
    x, y = np.broadcast_arrays(x, y)
    pixels = np.stack([x, y], -1) * head.EYE_DISTANCE + np.array(head.ORIGIN)
    return (pixels * 2**_FIXED_POINT_BITS).astype(np.int32)


def _outline_between(u: Curve, upper: Curve, lower: Curve) -> tuple[Curve, Curve]:
    """Returns x and y of the closed outline between two curves with the same k x values `u`.

    `u`, `upper` (y) and `lower` (y) are each [n k] for n frames, or [1 k] if they are the same in all, in any
    unit. The results are [n 2k] in the same unit: the points of the upper curve, then those of the lower
    curve backwards.
    """
    u, upper, lower = np.broadcast_arrays(u, upper, lower)
    return np.concatenate([u, u[:, ::-1]], 1), np.concatenate([upper, lower[:, ::-1]], 1)  # n 2k


def _build_layers(identity: Identity, tint: Float32[np.ndarray, "3"], motion: Motion) -> list[Layer]:
    """Returns the polygons of eyes, brows and mouth with their colours, from back to front.

    Each layer is a tuple `(polygons, colour)`: a polygon of k points for each of the n frames of `motion`,
    int32 [n k 2] (x, y) in sixteenths of a canvas pixel from the top left corner, and a list of red, green,
    blue and alpha, 0 to 255. `tint` has factors of the light on red, green and blue.
    """

    def shade(colour: ArrayLike, light: float = 1.0) -> RGBA:
        return [*np.clip(np.asarray(colour, np.float32) * tint * light, 0, 255).tolist(), 255.0]

    layers: list[Layer] = []
    for side in (-1.0, 1.0):
        layers += _eye_layers(identity, shade, motion, side)
        layers += _brow_layers(identity, shade, motion, side)
    return layers + _mouth_layers(identity, shade, motion)


def _eye_layers(identity: Identity, shade: Shade, motion: Motion, side: float) -> list[Layer]:
    half_width, eyelid_opening = (
        0.235 * identity.eye,
        (motion.expression.eye * motion.eyelid_opening)[:, None],
    )

    def upper_lid(x: Curve) -> Curve:
        return -0.125 * identity.eye * eyelid_opening * np.clip(1 - (x / half_width) ** 2, 0, None) ** 0.75

    def lower_lid(x: Curve) -> Curve:
        return (
            0.075
            * identity.eye
            * np.minimum(eyelid_opening, 1.3)
            * np.clip(1 - (x / half_width) ** 2, 0, None)
        )

    u = half_width * np.linspace(-1, 1, 15)[None, :]
    upper, lower = upper_lid(u), lower_lid(u)
    centre_x = 0.5 * side
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)[None, :]
    layers = [(_outline_between(u, upper - 0.09, upper), shade(identity.skin, 0.74))]  # the crease
    layers.append((_outline_between(u, upper, lower), shade((246, 243, 240), 0.98)))
    for radius, colour in ((0.12, shade(identity.iris)), (0.055, shade((12, 10, 10)))):
        x = motion.gaze[:, :1] + radius * np.cos(angles)
        y = np.clip(motion.gaze[:, 1:] + radius * np.sin(angles), upper_lid(x), lower_lid(x))
        layers.append(((x, y), colour))
    x, y = (
        motion.gaze[:, :1] + 0.04 + 0.02 * np.cos(angles),
        motion.gaze[:, 1:] - 0.04 + 0.02 * np.sin(angles),
    )
    layers.append(((x, np.clip(y, upper_lid(x), lower_lid(x))), shade((250, 250, 250))))
    layers.append((_outline_between(u, upper - 0.022, upper + 0.022), shade((34, 24, 22))))  # lashes
    layers.append((_outline_between(u, lower, lower + 0.014), shade(identity.skin, 0.6)))
    return [(_to_fixed_point(x + centre_x, y), colour) for (x, y), colour in layers]


def _brow_layers(identity: Identity, shade: Shade, motion: Motion, side: float) -> list[Layer]:
    u = np.linspace(-1, 1, 11)[None, :]  # -1 is the inner end
    brow_y = identity.brow_height - motion.expression.brow - motion.brow_raise[:, None]
    centre_line = brow_y + 0.5 * motion.expression.slant * u - 0.07 * (1 - u**2)
    thickness = identity.brow_thickness * (0.62 - 0.38 * u)
    x = side * (0.5 + 0.33 * u)
    colour = 0.75 * np.array(identity.hair, np.float32) * min(1.0, 110 / max(identity.hair))
    return [
        (
            _to_fixed_point(*_outline_between(x, centre_line - thickness / 2, centre_line + thickness / 2)),
            shade(colour),
        )
    ]


def _mouth_layers(identity: Identity, shade: Shade, motion: Motion) -> list[Layer]:
    expression = motion.expression
    u = np.linspace(-1, 1, 21)[None, :]
    width = expression.mouth_width * (1 - 0.05 * motion.lip_opening[:, None])
    opening = np.clip(expression.open, 0, None) + 0.13 * motion.lip_opening[:, None]
    closed_line = identity.mouth_height - expression.corner * (u**2 - 0.45)
    inner_gap = opening * (1 - u**2) ** expression.square
    inner_top, inner_low = closed_line - 0.42 * inner_gap, closed_line + 0.58 * inner_gap
    bow = (1 - u**2) ** 0.7
    dip = 1 - 0.25 * np.exp(-((u / 0.18) ** 2))
    outer_top = inner_top - 0.085 * identity.lip * bow * dip
    outer_low = inner_low + 0.11 * identity.lip * bow
    lip_colour = 0.72 * np.array(identity.skin, np.float32) * np.array([1.06, 0.72, 0.74], np.float32)
    teeth = inner_top + np.clip(expression.teeth, 0, 1) * np.minimum(inner_gap, 0.3)
    outer_width = width + 0.035 * identity.lip
    tongue = inner_low - 0.4 * np.clip(inner_gap - 0.1, 0, None)
    shapes = [
        (outer_width, outer_top, closed_line, shade(lip_colour, 0.88)),
        (outer_width, closed_line, outer_low, shade(lip_colour)),
        (width, inner_top, inner_low, shade((62, 26, 28))),
        (width, tongue, inner_low, shade((148, 74, 74))),
        (width, inner_top, teeth, shade((226, 218, 206))),
    ]
    if expression.teeth > 0.9:  # clenched teeth: the line between the rows
        shapes.append(
            (0.9 * width, teeth - 0.55 * inner_gap, teeth - 0.55 * inner_gap + 0.025, shade((120, 88, 80)))
        )
    if expression.open < 0.05:  # the line between closed lips
        shapes.insert(2, (width, closed_line - 0.012, closed_line + 0.012, shade(lip_colour, 0.4)))
    return [
        (_to_fixed_point(*_outline_between(u * half_width, upper, lower)), colour)
        for half_width, upper, lower, colour in shapes
    ]
