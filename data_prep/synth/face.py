"""Drawn faces that move: eyes, brows and mouth of one of six looks over a still head.

The look is the pair (family p, state s_f) of the demo corpus. All other movement (head, gaze, blinks,
lips that follow the syllables) is nuisance, and none of it depends on the state of the voice.
"""

import dataclasses
from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data_prep.synth import head
from data_prep.synth.head import Identity

SIZE = 224
"""Side of a video frame."""
FRAME_RATE = 25
_SHIFT = 4  # polygons are given in sixteenths of a pixel


@dataclasses.dataclass(frozen=True)
class Look:
    """An expression; lengths in eye distances."""

    mouth_width: float
    """Half width."""
    corner: float
    """How far the corners rise above the middle of the mouth."""
    open: float
    """Opening at rest."""
    square: float
    """Exponent of the opening's outline: small is boxy, 1 is pointed."""
    teeth: float
    """Share of the opening that shows upper teeth."""
    eye: float
    """Factor on the opening of the eyes."""
    brow: float
    """How far the brows rise."""
    slant: float
    """How far the inner ends of the brows rise above the outer ones."""


NEUTRAL = Look(0.40, 0.0, 0.0, 0.8, 0.4, 1.0, 0.0, 0.0)
LOOKS: dict[tuple[int, int], Look] = {
    (0, 0): NEUTRAL,
    (0, 1): Look(0.56, 0.30, 0.17, 0.9, 0.75, 0.75, 0.04, 0.0),  # a broad smile
    (1, 0): Look(0.34, -0.2, 0.0, 0.8, 0.2, 0.6, 0.04, 0.22),  # corners down, heavy lids
    (1, 1): Look(0.48, -0.05, 0.19, 0.6, 1.0, 0.9, -0.1, -0.2),  # bared teeth, knitted brows
    (2, 0): Look(0.29, 0.0, 0.25, 0.5, 0.0, 1.45, 0.19, -0.02),  # a round open mouth, wide eyes
    (2, 1): Look(0.54, -0.20, 0.24, 0.8, 0.25, 1.45, 0.16, 0.24),  # a wide open mouth, corners down
}


@dataclasses.dataclass(frozen=True)
class Take:
    """All that moves in one clip; each array has a value for each of `n` frames."""

    look: Look
    placing: Float[np.ndarray, "n 2 3"]
    """From canvas pixels to frame pixels."""
    lids: Float[np.ndarray, " n"]
    """Factor on the opening of the eyes: 0 in a blink."""
    gaze: Float[np.ndarray, "n 2"]
    lips: Float[np.ndarray, " n"]
    """Opening of the lips by speech, 0 to 1."""
    brows: Float[np.ndarray, " n"]


def draw_take(
    identity: Identity, look: Look, lips: Float[np.ndarray, " n"], rng: np.random.Generator
) -> Take:
    """Draws how a speaker wears a look in one clip, and how the head moves."""
    n = len(lips)
    scale, roll = rng.uniform(0.84, 1.0), rng.uniform(-4, 4)
    x, y = rng.uniform(-8, 8) + SIZE / 2, rng.uniform(-5, 7) + 98
    sway = np.stack([_wander(n, rng) for _ in range(4)], -1)  # n 4
    placing = _placing(
        scale * (1 + 0.015 * sway[:, 0]), roll + 3.5 * sway[:, 1], x + 4 * sway[:, 2], y + 3 * sway[:, 3]
    )
    gaze = 0.03 * np.stack([_wander(n, rng), 0.6 * _wander(n, rng)], -1)
    return Take(
        _personal(look, identity, rng),
        placing,
        _blinks(n, rng),
        gaze,
        np.asarray(lips),
        0.02 * _wander(n, rng) + 0.03 * np.asarray(lips),
    )


def rest_placing(take: Take) -> Float[np.ndarray, "2 3"]:
    """Where the head is on average: the body is drawn there."""
    return take.placing.mean(0)


def render(
    canvas: UInt8[np.ndarray, "h w 4"], room: UInt8[np.ndarray, "h w 3"], identity: Identity, tint, take: Take
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yields the frames of a take: features drawn on the head, the head moved, laid over room and body."""
    layers = _layers(identity, np.float32(tint), take)
    for i, placing in enumerate(take.placing):
        drawn = canvas.copy()
        for points, colour in layers:
            cv2.fillPoly(drawn, [points[i]], colour, cv2.LINE_AA, _SHIFT)
        moved = cv2.warpAffine(drawn, placing, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
        clear = cv2.cvtColor(255 - cv2.extractChannel(moved, 3), cv2.COLOR_GRAY2RGB)
        yield cv2.add(cv2.multiply(room, clear, scale=1 / 255), cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB))


def _personal(look: Look, identity: Identity, rng: np.random.Generator) -> Look:
    """A speaker's and a take's own form of a look."""
    gain = identity.expressiveness * rng.uniform(0.88, 1.1)
    mixed = {}
    for field in dataclasses.fields(Look):
        neutral, value = getattr(NEUTRAL, field.name), getattr(look, field.name)
        mixed[field.name] = neutral + gain * (value - neutral)
    mixed["mouth_width"] *= identity.mouth_width
    mixed["square"] = look.square
    return Look(**mixed)


def _wander(n: int, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """A smooth random curve, mostly within -1 and 1."""
    t = np.arange(n) / FRAME_RATE
    speed, phase, size = rng.uniform(0.15, 0.7, 3), rng.uniform(0, 2 * np.pi, 3), rng.uniform(0.2, 0.5, 3)
    return (size[:, None] * np.sin(2 * np.pi * speed[:, None] * t + phase[:, None])).sum(0)


def _blinks(n: int, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    lids = np.ones(n)
    frame = rng.integers(5, 60)
    while frame < n:
        for step, value in enumerate((0.5, 0.05, 0.15, 0.6)):
            if frame + step < n:
                lids[frame + step] = value
        frame += rng.integers(40, 110)
    return lids


def _placing(scale, roll, x, y) -> Float[np.ndarray, "n 2 3"]:
    """Similarities that bring the middle of the eyes to (x, y); `roll` in degrees."""
    scale = scale * SIZE / head.CANVAS
    cosine, sine = scale * np.cos(np.radians(roll)), scale * np.sin(np.radians(roll))
    left, top = head.ORIGIN
    shift = np.stack([x - cosine * left + sine * top, y - sine * left - cosine * top], -1)  # n 2
    turn = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], 1)  # n 2 2
    return np.concatenate([turn, shift[..., None]], -1)


def _points(x, y):
    """Polygons in fixed point, [n k 2], from x and y in eye distances, [n k] or [k]."""
    x, y = np.broadcast_arrays(x, y)
    pixels = np.stack([x, y], -1) * head.EYE_DISTANCE + head.ORIGIN
    return (pixels * 2**_SHIFT).astype(np.int32)


def _between(u, upper, lower):
    """The closed outline between two curves over the same abscissa."""
    u, upper, lower = np.broadcast_arrays(u, upper, lower)
    return np.concatenate([u, u[:, ::-1]], 1), np.concatenate([upper, lower[:, ::-1]], 1)  # n 2k


def _layers(identity: Identity, tint, take: Take):
    """Polygons of every frame and their colours, from back to front."""

    def paint(colour, light=1.0):
        return [*np.clip(np.float32(colour) * tint * light, 0, 255).tolist(), 255.0]

    layers = []
    for side in (-1.0, 1.0):
        layers += _eye(identity, paint, take, side)
        layers += _brow(identity, paint, take, side)
    return layers + _mouth(identity, paint, take)


def _eye(identity: Identity, paint, take: Take, side: float):
    half, lids = 0.235 * identity.eye, (take.look.eye * take.lids)[:, None]

    def upper_lid(x):
        return -0.125 * identity.eye * lids * np.clip(1 - (x / half) ** 2, 0, None) ** 0.75

    def lower_lid(x):
        return 0.075 * identity.eye * np.minimum(lids, 1.3) * np.clip(1 - (x / half) ** 2, 0, None)

    u = half * np.linspace(-1, 1, 15)[None, :]
    upper, lower = upper_lid(u), lower_lid(u)
    middle = 0.5 * side
    turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)[None, :]
    layers = [(_between(u, upper - 0.09, upper), paint(identity.skin, 0.74))]  # the crease
    layers.append((_between(u, upper, lower), paint((246, 243, 240), 0.98)))
    for radius, colour in ((0.12, paint(identity.iris)), (0.055, paint((12, 10, 10)))):
        x = take.gaze[:, :1] + radius * np.cos(turn)
        y = np.clip(take.gaze[:, 1:] + radius * np.sin(turn), upper_lid(x), lower_lid(x))
        layers.append(((x, y), colour))
    x, y = take.gaze[:, :1] + 0.04 + 0.02 * np.cos(turn), take.gaze[:, 1:] - 0.04 + 0.02 * np.sin(turn)
    layers.append(((x, np.clip(y, upper_lid(x), lower_lid(x))), paint((250, 250, 250))))
    layers.append((_between(u, upper - 0.022, upper + 0.022), paint((34, 24, 22))))  # lashes
    layers.append((_between(u, lower, lower + 0.014), paint(identity.skin, 0.6)))
    return [(_points(x + middle, y), colour) for (x, y), colour in layers]


def _brow(identity: Identity, paint, take: Take, side: float):
    u = np.linspace(-1, 1, 11)[None, :]  # -1 is the inner end
    height = identity.brow_height - take.look.brow - take.brows[:, None]
    line = height + 0.5 * take.look.slant * u - 0.07 * (1 - u**2)
    thick = identity.brow_thickness * (0.62 - 0.38 * u)
    x = side * (0.5 + 0.33 * u)
    colour = 0.75 * np.float32(identity.hair) * min(1.0, 110 / max(identity.hair))
    return [(_points(*_between(x, line - thick / 2, line + thick / 2)), paint(colour))]


def _mouth(identity: Identity, paint, take: Take):
    look = take.look
    u = np.linspace(-1, 1, 21)[None, :]
    width = look.mouth_width * (1 - 0.05 * take.lips[:, None])
    opening = np.clip(look.open, 0, None) + 0.13 * take.lips[:, None]
    rest = identity.mouth_height - look.corner * (u**2 - 0.45)
    gap = opening * (1 - u**2) ** look.square
    inner_top, inner_low = rest - 0.42 * gap, rest + 0.58 * gap
    bow = (1 - u**2) ** 0.7
    dip = 1 - 0.25 * np.exp(-((u / 0.18) ** 2))
    outer_top = inner_top - 0.085 * identity.lip * bow * dip
    outer_low = inner_low + 0.11 * identity.lip * bow
    lips = 0.72 * np.float32(identity.skin) * np.float32([1.06, 0.72, 0.74])
    teeth = inner_top + np.clip(look.teeth, 0, 1) * np.minimum(gap, 0.3)
    rim = width + 0.035 * identity.lip
    tongue = inner_low - 0.4 * np.clip(gap - 0.1, 0, None)
    shapes = [
        (rim, outer_top, rest, paint(lips, 0.88)),
        (rim, rest, outer_low, paint(lips)),
        (width, inner_top, inner_low, paint((62, 26, 28))),
        (width, tongue, inner_low, paint((148, 74, 74))),
        (width, inner_top, teeth, paint((226, 218, 206))),
    ]
    if look.teeth > 0.9:  # clenched: where the rows meet
        shapes.append((0.9 * width, teeth - 0.55 * gap, teeth - 0.55 * gap + 0.025, paint((120, 88, 80))))
    if look.open < 0.05:  # the line between closed lips
        shapes.insert(2, (width, rest - 0.012, rest + 0.012, paint(lips, 0.4)))
    return [(_points(*_between(u * across, top, low)), colour) for across, top, low, colour in shapes]
