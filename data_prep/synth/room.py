"""Draws the parts that do not move: a wall, neck and shoulders."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data_prep.synth.head import EYE_DISTANCE, ORIGIN, Identity, Light


def render_room(light: Light, rng: np.random.Generator, size: int) -> UInt8[np.ndarray, "h w 3"]:
    """Renders a plain wall with soft light and shade, an RGB image, uint8 [size size 3].

    `size` is its side in pixels, `light` tints it, and `rng` draws its colour and shade. Raises cv2.error if
    `size` is below 1.
    """
    variation = rng.uniform(-1, 1, (4, 4, 1)) * rng.uniform(8, 26) + rng.uniform(-1, 1, (4, 4, 3)) * 6
    wall = cv2.resize(variation.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    colour = rng.uniform(90, 190) + rng.uniform((-40, -20, -10), (0, 22, 34))  # different from skin colours
    return np.clip((wall + colour.astype(np.float32)) * np.array(light.tint, np.float32), 0, 255).astype(
        np.uint8
    )


def add_body(
    background: UInt8[np.ndarray, "h w 3"],
    identity: Identity,
    light: Light,
    rng: np.random.Generator,
    transform: Float[np.ndarray, "2 3"],
) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a copy of `background`, an RGB image of the room, with neck and shoulders drawn on it.

    `transform` is the mean transform of the head, from canvas pixels to frame pixels; `rng` draws the colour
    of the shirt.
    """
    neck_half_width = 0.62 if identity.sex == "m" else 0.52
    tint = np.array(light.tint, np.float32)
    neck_colour = 0.68 * np.array(identity.skin, np.float32) * tint
    shirt_colour = rng.uniform(30, 215, 3) * tint
    neck = [
        (-neck_half_width, 0.6),
        (neck_half_width, 0.6),
        (neck_half_width, 2.3),
        (neck_half_width + 0.2, 2.7),
        (-neck_half_width - 0.2, 2.7),
        (-neck_half_width, 2.3),
    ]
    body = [
        (-neck_half_width, 2.28),
        (0, 2.62),
        (neck_half_width, 2.28),
        (1.9, 2.75),
        (2.6, 5),
        (-2.6, 5),
        (-1.9, 2.75),
    ]
    image = background.copy()
    for outline, colour in ((neck, neck_colour), (body, shirt_colour)):
        pixels = np.array(outline, np.float64) * EYE_DISTANCE + np.array(ORIGIN)
        pixels = pixels @ transform[:, :2].T + transform[:, 2]
        points = (pixels * 16).astype(np.int32)
        cv2.fillPoly(image, [points], np.clip(colour, 0, 255).tolist(), cv2.LINE_AA, 4)
    return image
