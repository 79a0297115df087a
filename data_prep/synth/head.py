"""Draws the head of a speaker with light and shade, without the parts that move.

Lengths are in eye distances. The origin is midway between the eyes, x points right, y down. All proportions
are human, because the face detector was trained on photographs. The detector also needs a shaded nose, shaded
eye sockets, and skin that contrasts with hair and background.
"""

import dataclasses
import functools

import cv2
import numpy as np
from jaxtyping import Float, UInt8

CANVAS_SIZE = 448
"""Side of the square image of a head in pixels, twice the side of a video frame."""
EYE_DISTANCE = 96.0
"""Distance between the eyes in pixels of the canvas."""
ORIGIN = (CANVAS_SIZE / 2, 206.0)
"""Position midway between the eyes in pixels of the canvas."""

_GOLDEN_RATIO = 0.6180339887498949
_SKIN_COLOURS = np.array([[242, 208, 186], [232, 190, 160], [214, 168, 134], [190, 142, 108]], np.float32)
_HAIR_COLOURS = np.array(
    [[48, 36, 30], [72, 50, 36], [92, 66, 42], [104, 80, 50], [98, 54, 32], [84, 82, 80]], np.float32
)
_IRIS_COLOURS = np.array([[58, 40, 28], [44, 62, 74], [52, 64, 42], [40, 30, 24]], np.float32)


Grid = Float[np.ndarray, "#h #w"]
"""A value for each pixel; height or width is 1 if the value is the same for all rows or columns."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """Properties of a speaker's face, equal in all clips; lengths in eye distances, colours RGB 0 to 255."""

    sex: str
    skin: tuple[float, float, float]
    hair: tuple[float, float, float]
    iris: tuple[float, float, float]
    cheek: float
    """Half of the width of the face at the eyes."""
    jaw: float
    """Fraction by which the face is narrower at the chin."""
    chin: float
    """Distance of the chin below the eyes."""
    hairline: float
    hair_length: float
    """Length of the hair next to the face, below the eyes."""
    nose_width: float
    nose_tip: float
    mouth_height: float
    mouth_width: float
    """Factor on the width of the mouth."""
    lip: float
    """Factor on the thickness of the lips."""
    eye: float
    """Factor on the size of the eyes."""
    brow_height: float
    brow_thickness: float
    expressiveness: float
    """Factor on every difference from the neutral expression."""


def draw_identity(speaker: int, seed: int) -> Identity:
    """Draws the properties of the face of speaker 1, 2, ...; odd speakers are male, as in RAVDESS.

    These are `sex` (`m` or `f`); the colours `skin`, `hair` and `iris` (red, green, blue, 0 to 255); in eye
    distances `cheek` (half of the width of the face), `chin`, `nose_tip` and `mouth_height` (below the eyes),
    `hairline` and `brow_height` (negative: above the eyes), `hair_length`, `nose_width` and `brow_thickness`;
    `jaw`, the fraction by which the face is narrower at the chin; and the factors `mouth_width`, `lip`, `eye`
    and `expressiveness`. Skin and hair colours follow a golden-ratio sequence, so that successive speakers
    are spread evenly. Raises ValueError if `speaker` or `seed` is negative.
    """
    rng = np.random.default_rng([seed, 11, speaker])
    offset = np.random.default_rng([seed, 12]).random(2)
    is_male = speaker % 2 == 1
    skin_position, hair_position = np.modf(offset + _GOLDEN_RATIO * np.array([speaker, 2 * speaker]))[0]
    position = skin_position * (len(_SKIN_COLOURS) - 1)
    low = min(int(position), len(_SKIN_COLOURS) - 2)
    skin = (
        _SKIN_COLOURS[low]
        + (position - low) * (_SKIN_COLOURS[low + 1] - _SKIN_COLOURS[low])
        + rng.uniform(-5, 5, 3)
    )
    hair = _HAIR_COLOURS[int(hair_position * len(_HAIR_COLOURS))] + rng.uniform(-8, 8, 3)
    uniform = rng.uniform
    return Identity(
        sex="m" if is_male else "f",
        skin=tuple(skin.tolist()),
        hair=tuple(hair.tolist()),
        iris=tuple(_IRIS_COLOURS[rng.integers(len(_IRIS_COLOURS))].tolist()),
        cheek=uniform(1.06, 1.18),
        jaw=uniform(0.08, 0.2) if is_male else uniform(0.16, 0.28),
        chin=uniform(1.8, 1.95) if is_male else uniform(1.76, 1.87),
        hairline=-uniform(0.88, 1.08),
        hair_length=uniform(0.0, 0.3) if is_male else uniform(0.9, 2.2),
        nose_width=uniform(0.2, 0.26) if is_male else uniform(0.18, 0.23),
        nose_tip=uniform(0.54, 0.6),
        mouth_height=uniform(1.14, 1.21),
        mouth_width=uniform(0.93, 1.07),
        lip=uniform(0.8, 1.05) if is_male else uniform(1.0, 1.3),
        eye=uniform(0.93, 1.07),
        brow_height=-uniform(0.32, 0.38),
        brow_thickness=uniform(0.08, 0.105) if is_male else uniform(0.055, 0.08),
        expressiveness=uniform(0.88, 1.12),
    )


@dataclasses.dataclass(frozen=True)
class Light:
    """Light of one clip."""

    direction: tuple[float, float, float]
    """Unit vector to the light: x right, y down, z to the camera."""
    tint: tuple[float, float, float]
    """Factors on red, green and blue, including the exposure."""
    ambient: float
    """Brightness without direct light."""


def draw_light(rng: np.random.Generator) -> Light:
    """Draws a light from above and a little to one side.

    It has `direction`, a unit vector to the light (x right, y down, z to the camera); `tint`, factors on red,
    green and blue; and `ambient`, the brightness without direct light, 0.35 to 0.5.
    """
    vector = np.array([rng.uniform(-0.5, 0.5), rng.uniform(-0.6, -0.1), 1.0])
    tint = rng.uniform(0.86, 1.04) * (1 + np.array([1, 0, -1]) * rng.uniform(-0.05, 0.06))
    return Light(
        tuple((vector / np.linalg.norm(vector)).tolist()), tuple(tint.tolist()), rng.uniform(0.35, 0.5)
    )


def _coordinates() -> tuple[Float[np.ndarray, "1 w"], Float[np.ndarray, "h 1"]]:
    """Returns x [1 224] and y [224 1] in eye distances for every second canvas pixel, float32.

    These are the centres of the first, third, ... pixel. The origin is midway between the eyes; x points
    right, y down.
    """
    pixel = np.arange(0.5, CANVAS_SIZE, 2, dtype=np.float32)
    return ((pixel - ORIGIN[0]) / EYE_DISTANCE)[None, :], ((pixel - ORIGIN[1]) / EYE_DISTANCE)[:, None]


@dataclasses.dataclass(frozen=True)
class _Surface:
    """Properties of a head that do not depend on the light."""

    normal: Float[np.ndarray, "3 h w"]
    skin: Float[np.ndarray, "h w 3"]
    """Colour of the skin, including relief."""
    nose_shadow: Float[np.ndarray, "h w"]
    """Shadow on both sides of the nose; the light selects one side."""
    hair: Float[np.ndarray, "h w 3"]
    ear_mask: Float[np.ndarray, "h w"]
    face_mask: Float[np.ndarray, "h w"]
    back_hair_mask: Float[np.ndarray, "h w"]
    """Hair behind the face."""
    fringe_mask: Float[np.ndarray, "h w"]


@functools.lru_cache(maxsize=1)
def _build_surface(identity: Identity) -> _Surface:
    x, y = _coordinates()
    face_mask, centre_y = _face_mask(identity, x, y)
    back_hair_mask, fringe_mask = _hair_masks(identity, x, y)
    cheeks = _gaussian(np.abs(x), 0.62, 0.2) * _gaussian(y, 0.72, 0.2)
    blush = 1 + np.array([0.0, -0.1, -0.08], np.float32) * cheeks[..., None]
    skin = np.array(identity.skin, np.float32) * blush * _skin_relief(identity, x, y)[..., None]
    return _Surface(
        _surface_normals(identity, x, y, centre_y),
        skin.astype(np.float32),
        0.22 * _gaussian(np.abs(x), identity.nose_width * 0.8, 0.08) * _nose_profile(identity, y),
        np.array(identity.hair, np.float32) * _hair_texture(identity, x, y)[..., None],
        _ear_mask(identity, x, y),
        face_mask,
        back_hair_mask,
        fringe_mask,
    )


def render_head(identity: Identity, light: Light) -> UInt8[np.ndarray, "h w 4"]:
    """Renders the head without eyes, brows and mouth, as a square image with h = w = 448 (CANVAS_SIZE).

    The channels are red, green and blue times alpha, and alpha. The skin is shaded by Lambert's law on an
    ellipsoid: `ambient + (1.08 - ambient) max(0, cosine)` of the angle between the surface normal and the
    light.
    """
    surface = _build_surface(identity)
    cosine = np.tensordot(np.array(light.direction, np.float32), surface.normal, 1)
    shade = light.ambient + (1.08 - light.ambient) * np.maximum(cosine, 0)
    centre_column = shade.shape[1] // 2
    shadow_columns = slice(0, centre_column) if light.direction[0] > 0 else slice(centre_column, None)
    shade[:, shadow_columns] *= 1 - abs(light.direction[0]) * surface.nose_shadow[:, shadow_columns]
    tint = np.array(light.tint, np.float32)
    skin = surface.skin * tint * shade[..., None]
    hair = surface.hair * (tint * np.float32(light.ambient + 0.55))
    image, alpha = hair * surface.back_hair_mask[..., None], surface.back_hair_mask
    for layer, mask in (
        (skin * np.float32(0.86), surface.ear_mask),
        (skin, surface.face_mask),
        (hair, surface.fringe_mask),
    ):
        image += (layer - image) * mask[..., None]
        alpha = alpha + (1 - alpha) * mask
    image = np.minimum(image, 255 * alpha[..., None])
    image = np.dstack([image, 255 * alpha]).round().astype(np.uint8)
    return cv2.resize(image, (CANVAS_SIZE, CANVAS_SIZE), interpolation=cv2.INTER_LINEAR)


def _gaussian(x: Grid, centre: float, width: float) -> Grid:
    return np.exp(-0.5 * ((x - centre) / width) ** 2)


def _pixel_coverage(distance: Grid) -> Grid:
    """Returns which fraction of each pixel an outline covers, 0 to 1, float32.

    `distance` is the signed distance to the outline in eye distances, positive inside; the result has its
    shape.
    """
    # divided by 2, because `_coordinates` has every second pixel
    return np.clip(distance * EYE_DISTANCE / 2 + 0.5, 0, 1).astype(np.float32)


def _face_mask(identity: Identity, x: Grid, y: Grid) -> tuple[Grid, float]:
    """Returns the mask of the face, 0 (outside) to 1, and the y of its centre in eye distances.

    The mask is float32 [h w]. `x` [1 w] and `y` [h 1] are the coordinates of the pixels in eye distances,
    from the middle of the eyes to the right and down.
    """
    top = -1.7
    centre_y, radius = (top + identity.chin) / 2, (identity.chin - top) / 2
    height = np.clip(1 - ((y - centre_y) / radius) ** 2, 0, None)
    chin_fraction = np.clip((y - 0.3) / (identity.chin - 0.3), 0, 1)
    half_width = identity.cheek * height**0.42 * (1 - identity.jaw * chin_fraction**1.5)
    return _pixel_coverage(half_width - 0.02 - np.abs(x)), centre_y


def _ear_mask(identity: Identity, x: Grid, y: Grid) -> Grid:
    return _pixel_coverage(0.14 * (1 - np.hypot((np.abs(x) - identity.cheek) / 0.15, (y - 0.22) / 0.34)))


def _hair_masks(identity: Identity, x: Grid, y: Grid) -> tuple[Grid, Grid]:
    """Returns the masks of the hair behind the face and of the fringe over the forehead.

    Both are float32 [h w], 0 (outside) to 1. `x` [1 w] and `y` [h 1] are the coordinates of the pixels in eye
    distances, from the middle of the eyes to the right and down.
    """
    cap_mask = _pixel_coverage(0.9 * (1 - np.hypot(x / (identity.cheek + 0.16), (y + 0.55) / 1.42)))
    cap_mask *= np.clip((0.25 - y) * 8, 0, 1)
    side_hair_mask = _pixel_coverage(identity.cheek + 0.17 - 0.05 * y - np.abs(x))
    side_hair_mask = (
        side_hair_mask * np.clip((identity.hair_length - y) * 8, 0, 1) * np.clip((y + 0.6) * 8, 0, 1)
    )
    hairline = identity.hairline + 0.42 * (x / identity.cheek) ** 4
    fringe = np.minimum(cap_mask, _pixel_coverage(hairline - y))
    return np.maximum(cap_mask, side_hair_mask).astype(np.float32), fringe.astype(np.float32)


def _hair_texture(identity: Identity, x: Grid, y: Grid) -> Grid:
    angle = np.arctan2(x, y + 2.4)
    phase = 50 * identity.cheek  # differs between speakers
    wave = sum(np.sin(angle * f + phase * f) for f in (31, 57, 83, 119))
    return (1 + 0.06 * wave + 0.25 * _gaussian(y, -1.35, 0.3)).astype(np.float32)


def _surface_normals(identity: Identity, x: Grid, y: Grid, centre_y: float) -> Float[np.ndarray, "3 h w"]:
    nx, ny = x / (identity.cheek * 1.12), (y - centre_y) / ((identity.chin - centre_y) * 1.15)
    nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0.02, None))
    return np.stack(np.broadcast_arrays(nx, ny, nz)).astype(np.float32)


def _nose_profile(identity: Identity, y: Grid) -> Grid:
    return 1 / (1 + np.exp(-(y - 0.05) * 14)) / (1 + np.exp((y - identity.nose_tip) * 16))


def _skin_relief(identity: Identity, x: Grid, y: Grid) -> Grid:
    width, tip, nose_profile = identity.nose_width, identity.nose_tip, _nose_profile(identity, y)
    abs_x = np.abs(x)
    highlight = (
        1
        + 0.14 * _gaussian(x, 0, 0.07) * nose_profile
        + 0.12 * _gaussian(x, 0, 0.1) * _gaussian(y, tip - 0.02, 0.09)
    )
    highlight = highlight + 0.07 * _gaussian(x, 0, 0.2) * _gaussian(y, identity.chin - 0.25, 0.1)
    shadow = 0.16 * _gaussian(abs_x, width * 0.75, 0.07) * nose_profile
    shadow = shadow + 0.24 * _gaussian(abs_x, width, 0.05) * _gaussian(y, tip + 0.04, 0.08)  # wings
    shadow = shadow + 0.6 * _gaussian(abs_x, width * 0.5, 0.055) * _gaussian(y, tip + 0.12, 0.032)  # nostrils
    shadow = shadow + 0.22 * _gaussian(x, 0, width * 0.8) * _gaussian(y, tip + 0.18, 0.05)  # under the nose
    shadow = shadow + 0.2 * _gaussian(abs_x, 0.48, 0.27) * _gaussian(y, -0.1, 0.15)  # sockets
    shadow = shadow + 0.1 * _gaussian(abs_x, 0.47, 0.2) * _gaussian(y, 0.25, 0.06)  # below the eyes
    shadow = shadow + 0.12 * _gaussian(x, 0, 0.3) * _gaussian(
        y, identity.mouth_height + 0.3, 0.06
    )  # below the lips
    return highlight * (1 - np.clip(shadow, 0, 0.85))
