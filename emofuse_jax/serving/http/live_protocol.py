"""A person in front of a camera: sound and pictures come in pieces, a window's answer goes out.

The caller begins with JSON: {"token": "...", "min_confidence": 0.5, "person": 1, "details": false}, all of it
optional, and is told {"window": seconds, "sample_rate": 16000}. Then come binary messages: a byte that is 1
for sound or 2 for a picture, eight bytes with the second at which it begins (little-endian float64, on one
clock for both), then 16-bit little-endian mono samples, or a JPEG. Each window is answered as JSON when its
sound and its pictures are there; the text "end" asks for the rest, and closes.
"""

import dataclasses
import io
import math
import struct

import numpy as np
from PIL import Image

from emofuse_jax.serving.http.problems import unusable
from emofuse_jax.serving.http.service import Limits

RATE = 16_000
SOUND, PICTURE = 1, 2
HEADER = struct.Struct("<Bd")
GRACE = 0.5
"""Seconds by which sound or pictures may be later than the other."""
LEAST = 0.5
"""Share of a window that is worth an answer at the end."""


@dataclasses.dataclass
class Piece:
    """Sound or a picture, and when it begins."""

    second: float
    data: bytes

    @property
    def end(self) -> float:
        """Second at which a sound is over."""
        return self.second + len(self.data) / 2 / RATE


@dataclasses.dataclass(frozen=True)
class Part:
    """What is there of a window."""

    start: float
    end: float
    sound: np.ndarray | None
    """int16 [n] from its start on; zeros where nothing came."""
    pictures: list[tuple[float, bytes]]
    """Seconds from its start, and JPEGs."""
    size: tuple[int, int]


class Gathering:
    """The pieces of a session, window by window.

    Args:
      window: seconds.
      limits: of a picture's pixels, and of pictures a second.
    """

    def __init__(self, window: float, limits: Limits):
        self.window, self.limits, self.start = window, limits, 0.0
        self._sounds: list[Piece] = []
        self._pictures: list[Piece] = []
        self._heard = self._seen = -math.inf
        self._size = (0, 0)

    def add(self, message: bytes) -> None:
        """Takes a binary message; Problem 422 where it is none, or farther than two windows ahead."""
        if len(message) <= HEADER.size:
            raise unusable("message", "expected a kind, a second, and sound or a picture")
        kind, second = HEADER.unpack_from(message)
        piece = Piece(second, message[HEADER.size :])
        if not self.start - self.window <= second <= self.start + 3 * self.window:  # false for NaN
            raise unusable(
                "second", f"{second:g}, expected {self.start:g} to {self.start + 3 * self.window:g}"
            )
        if kind == SOUND:
            self._add_sound(piece)
        elif kind == PICTURE:
            self._add_picture(piece)
        else:
            raise unusable("kind", f"{kind}, expected {SOUND} for sound or {PICTURE} for a picture")

    def _add_sound(self, piece: Piece) -> None:
        if len(piece.data) % 2 or piece.end - piece.second > self.window:
            raise unusable("sound", f"expected 16-bit samples, at most {self.window:g} s")
        if sum(len(one.data) for one in self._sounds) > 16 * self.window * RATE:
            raise unusable("sound", "more than there is time for")
        self._sounds.append(piece)
        self._heard = max(self._heard, piece.end)

    def _add_picture(self, piece: Piece) -> None:
        if len(self._pictures) >= 4 * self.window * self.limits.frame_rate:
            raise unusable("picture", f"more than {self.limits.frame_rate:g} a second")
        try:
            with Image.open(io.BytesIO(piece.data), formats=("JPEG",)) as picture:  # reads the header alone
                size = picture.size
        except (OSError, ValueError, SyntaxError) as error:
            raise unusable("picture", "not a JPEG") from error
        if size[0] * size[1] > self.limits.pixels:
            raise unusable("picture", f"{size[0] * size[1]} pixels, at most {self.limits.pixels} are taken")
        if self._size not in ((0, 0), size):
            raise unusable(
                "picture", f"{size[0]} x {size[1]} pixels, {self._size[0]} x {self._size[1]} before"
            )
        self._size = size
        self._pictures.append(piece)
        self._seen = max(self._seen, piece.second)

    def complete(self) -> bool:
        """Whether the next window is there: all that came has passed its end, or some of it by GRACE."""
        end = self.start + self.window
        clocks = [clock for clock in (self._heard, self._seen) if clock > -math.inf]
        return bool(clocks) and (min(clocks) >= end - 1e-6 or max(clocks) >= end + GRACE)

    def rest(self) -> bool:
        """Whether what is left at the end is worth an answer."""
        return max(self._heard, self._seen) - self.start >= LEAST * self.window - 1e-6

    def take(self, *, whole: bool = True) -> Part:
        """The next window, whose pieces are forgotten; not `whole`: what is left of it."""
        start, end = self.start, self.start + self.window
        if not whole:
            end = min(end, max(self._heard, self._seen))
        found = {round(p.second - start, 3): p.data for p in self._pictures if start <= p.second < end}
        part = Part(start, end, self._sound(start, end), sorted(found.items()), self._size)
        self.start = end
        self._sounds = [one for one in self._sounds if one.end > end]
        self._pictures = [one for one in self._pictures if one.second >= end]
        return part

    def _sound(self, start: float, end: float) -> np.ndarray | None:
        pieces = [one for one in self._sounds if one.end > start and one.second < end]
        if not pieces:
            return None
        samples = np.zeros(round((end - start) * RATE), np.int16)
        for piece in pieces:
            values, at = np.frombuffer(piece.data, "<i2"), round((piece.second - start) * RATE)
            values, at = values[max(-at, 0) :], max(at, 0)
            values = values[: max(len(samples) - at, 0)]
            samples[at : at + len(values)] = values
        return samples
