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

from emofuse_jax.serving.http.problems import invalid_field
from emofuse_jax.serving.http.service import Limits

SAMPLE_RATE = 16_000
AUDIO_KIND, FRAME_KIND = 1, 2
MESSAGE_HEADER = struct.Struct("<Bd")
MAX_STREAM_LAG_SECONDS = 0.5
"""Seconds by which sound or pictures may be later than the other."""
MIN_LAST_WINDOW_FRACTION = 0.5
"""Share of a window that is worth an answer at the end."""


@dataclasses.dataclass
class MediaChunk:
    """Sound or a picture, and when it begins."""

    start_seconds: float
    data: bytes

    @property
    def end_seconds(self) -> float:
        """Second at which a sound is over."""
        return self.start_seconds + len(self.data) / 2 / SAMPLE_RATE


@dataclasses.dataclass(frozen=True)
class LiveWindow:
    """What is there of a window."""

    start: float
    end: float
    audio: np.ndarray | None
    """int16 [n] from its start on; zeros where nothing came."""
    frames: list[tuple[float, bytes]]
    """Seconds from its start, and JPEGs."""
    frame_size: tuple[int, int]


class WindowAssembler:
    """The pieces of a session, window by window.

    Args:
      window_seconds: seconds.
      limits: of a picture's pixels, and of pictures a second.
    """

    def __init__(self, window_seconds: float, limits: Limits):
        self.window_seconds, self.limits, self.window_start = window_seconds, limits, 0.0
        self._audio_chunks: list[MediaChunk] = []
        self._frame_chunks: list[MediaChunk] = []
        self._audio_end = self._video_end = -math.inf
        self._frame_size = (0, 0)

    def add(self, message: bytes) -> None:
        """Takes a binary message; Problem 422 where it is none, or farther than two windows ahead."""
        if len(message) <= MESSAGE_HEADER.size:
            raise invalid_field("message", "expected a kind, a second, and sound or a picture")
        kind, start_seconds = MESSAGE_HEADER.unpack_from(message)
        chunk = MediaChunk(start_seconds, message[MESSAGE_HEADER.size :])
        if (
            not self.window_start - self.window_seconds
            <= start_seconds
            <= self.window_start + 3 * self.window_seconds
        ):  # false for NaN
            raise invalid_field(
                "second",
                f"{start_seconds:g}, expected {self.window_start:g} to"
                f" {self.window_start + 3 * self.window_seconds:g}",
            )
        if kind == AUDIO_KIND:
            self._add_audio(chunk)
        elif kind == FRAME_KIND:
            self._add_frame(chunk)
        else:
            raise invalid_field(
                "kind", f"{kind}, expected {AUDIO_KIND} for sound or {FRAME_KIND} for a picture"
            )

    def _add_audio(self, chunk: MediaChunk) -> None:
        if len(chunk.data) % 2 or chunk.end_seconds - chunk.start_seconds > self.window_seconds:
            raise invalid_field("sound", f"expected 16-bit samples, at most {self.window_seconds:g} s")
        if (
            sum(len(stored_chunk.data) for stored_chunk in self._audio_chunks)
            > 16 * self.window_seconds * SAMPLE_RATE
        ):
            raise invalid_field("sound", "more than there is time for")
        self._audio_chunks.append(chunk)
        self._audio_end = max(self._audio_end, chunk.end_seconds)

    def _add_frame(self, chunk: MediaChunk) -> None:
        if len(self._frame_chunks) >= 4 * self.window_seconds * self.limits.max_frame_rate:
            raise invalid_field("picture", f"more than {self.limits.max_frame_rate:g} a second")
        try:
            with Image.open(io.BytesIO(chunk.data), formats=("JPEG",)) as image:  # reads the header alone
                frame_size = image.size
        except (OSError, ValueError, SyntaxError) as error:
            raise invalid_field("picture", "not a JPEG") from error
        if frame_size[0] * frame_size[1] > self.limits.max_frame_pixels:
            raise invalid_field(
                "picture",
                f"{frame_size[0] * frame_size[1]} pixels, at most {self.limits.max_frame_pixels} are taken",
            )
        if self._frame_size not in ((0, 0), frame_size):
            raise invalid_field(
                "picture",
                f"{frame_size[0]} x {frame_size[1]} pixels, {self._frame_size[0]} x"
                f" {self._frame_size[1]} before",
            )
        self._frame_size = frame_size
        self._frame_chunks.append(chunk)
        self._video_end = max(self._video_end, chunk.start_seconds)

    def is_window_ready(self) -> bool:
        """Whether the next window is there: all that came has passed its end, or some of it by
        MAX_STREAM_LAG_SECONDS."""
        end = self.window_start + self.window_seconds
        stream_ends = [
            stream_end for stream_end in (self._audio_end, self._video_end) if stream_end > -math.inf
        ]
        return bool(stream_ends) and (
            min(stream_ends) >= end - 1e-6 or max(stream_ends) >= end + MAX_STREAM_LAG_SECONDS
        )

    def has_remainder(self) -> bool:
        """Whether what is left at the end is worth an answer."""
        return (
            max(self._audio_end, self._video_end) - self.window_start
            >= MIN_LAST_WINDOW_FRACTION * self.window_seconds - 1e-6
        )

    def take_window(self, *, full_window: bool = True) -> LiveWindow:
        """The next window, whose pieces are forgotten; not `full_window`: what is left of it."""
        start, end = self.window_start, self.window_start + self.window_seconds
        if not full_window:
            end = min(end, max(self._audio_end, self._video_end))
        frames = {
            round(frame_chunk.start_seconds - start, 3): frame_chunk.data
            for frame_chunk in self._frame_chunks
            if start <= frame_chunk.start_seconds < end
        }
        live_window = LiveWindow(
            start, end, self._join_audio(start, end), sorted(frames.items()), self._frame_size
        )
        self.window_start = end
        self._audio_chunks = [chunk for chunk in self._audio_chunks if chunk.end_seconds > end]
        self._frame_chunks = [chunk for chunk in self._frame_chunks if chunk.start_seconds >= end]
        return live_window

    def _join_audio(self, start: float, end: float) -> np.ndarray | None:
        chunks = [
            audio_chunk
            for audio_chunk in self._audio_chunks
            if audio_chunk.end_seconds > start and audio_chunk.start_seconds < end
        ]
        if not chunks:
            return None
        samples = np.zeros(round((end - start) * SAMPLE_RATE), np.int16)
        for chunk in chunks:
            chunk_samples, offset = (
                np.frombuffer(chunk.data, "<i2"),
                round((chunk.start_seconds - start) * SAMPLE_RATE),
            )
            chunk_samples, offset = chunk_samples[max(-offset, 0) :], max(offset, 0)
            chunk_samples = chunk_samples[: max(len(samples) - offset, 0)]
            samples[offset : offset + len(chunk_samples)] = chunk_samples
        return samples
