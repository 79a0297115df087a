"""Protocol of live sessions: audio and video frames arrive in pieces and are assembled into windows.

The caller first sends JSON: {"token": "...", "min_confidence": 0.5, "person": 1, "details": false}, all
optional. The server replies {"window": seconds, "sample_rate": 16000}. The caller then sends binary messages:
one byte for the kind (1: audio, 2: video frame), eight bytes with the start time in seconds (little-endian
float64, on one clock for both kinds), then 16-bit little-endian mono samples, or a JPEG. The server sends the
prediction for a window as JSON when its audio and frames are complete. The text "end" requests the prediction
for the remainder and closes the session.
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
"""Sample rate of the audio in Hz."""
AUDIO_KIND, FRAME_KIND = 1, 2
"""First byte of an audio message and of a frame message."""
MESSAGE_HEADER = struct.Struct("<Bd")
"""Kind and start time of a binary message."""
MAX_STREAM_LAG_SECONDS = 0.5
"""Seconds that audio or video may arrive later than the other before a window is predicted without it."""
MIN_LAST_WINDOW_FRACTION = 0.5
"""Smallest fraction of a window that is predicted at the end of a session."""


@dataclasses.dataclass
class MediaChunk:
    """Piece of audio, or one video frame, with its start time."""

    start_seconds: float
    """Start time on the clock of the session, in seconds."""
    data: bytes
    """16-bit little-endian mono samples, or a JPEG."""

    @property
    def end_seconds(self) -> float:
        """Returns the end time of a piece of audio, in seconds of the session; meaningless for a frame."""
        return self.start_seconds + len(self.data) / 2 / SAMPLE_RATE


@dataclasses.dataclass(frozen=True)
class LiveWindow:
    """Audio and video frames of one window."""

    start: float
    """Start of the window on the clock of the session, in seconds."""
    end: float
    """End of the window on the clock of the session, in seconds."""
    audio: np.ndarray | None
    """int16 [n] from the window's start, with zeros for missing samples; None if there is no audio."""
    frames: list[tuple[float, bytes]]
    """Seconds from the window's start, and JPEG, of each frame, in order."""
    frame_size: tuple[int, int]
    """Width and height of the frames in pixels; (0, 0) if no frame has arrived."""


class WindowAssembler:
    """Assembles the messages of a session into windows.

    Args:
      window_seconds: length of a window.
      limits: limits of frame size and frame rate.
    """

    def __init__(self, window_seconds: float, limits: Limits) -> None:
        self.window_seconds, self.limits, self.window_start = window_seconds, limits, 0.0
        self._audio_chunks: list[MediaChunk] = []
        self._frame_chunks: list[MediaChunk] = []
        self._audio_end = self._video_end = -math.inf
        self._frame_size = (0, 0)

    def add(self, message: bytes) -> None:
        """Adds a binary message: a byte for the kind, eight bytes for the start time, and audio or a JPEG.

        The kind is 1 for audio, 2 for a frame. The start time is in seconds of the session, a little-endian
        float64. Audio is 16-bit little-endian mono samples at 16000 Hz.

        Raises:
          Problem: status 422 if the message is too short; its kind is not 1 (audio) or 2 (frame); it starts
            more than one window before or more than three windows after the start of the next window; audio
            has half a sample, is longer than a window, or more than eight windows of it wait; or a frame is
            not a JPEG, has more pixels than `limits.max_frame_pixels` or another size than the first frame,
            or frames of four windows at `limits.max_frame_rate` wait.
        """
        if len(message) <= MESSAGE_HEADER.size:
            raise invalid_field(
                "message",
                "expected 1 byte for the kind, 8 bytes for the start time (little-endian float64), and audio"
                " or a JPEG",
            )
        kind, start_seconds = MESSAGE_HEADER.unpack_from(message)
        chunk = MediaChunk(start_seconds, message[MESSAGE_HEADER.size :])
        if (
            not self.window_start - self.window_seconds
            <= start_seconds
            <= self.window_start + 3 * self.window_seconds
        ):  # rejects NaN
            raise invalid_field(
                "second",
                f"start time {start_seconds:g}: expected {self.window_start - self.window_seconds:g} to"
                f" {self.window_start + 3 * self.window_seconds:g} s of the session; send it in real time",
            )
        if kind == AUDIO_KIND:
            self._add_audio(chunk)
        elif kind == FRAME_KIND:
            self._add_frame(chunk)
        else:
            raise invalid_field(
                "kind", f"{kind}: expected {AUDIO_KIND} for audio or {FRAME_KIND} for a frame"
            )

    def _add_audio(self, chunk: MediaChunk) -> None:
        if len(chunk.data) % 2 or chunk.end_seconds - chunk.start_seconds > self.window_seconds:
            raise invalid_field(
                "sound",
                f"{len(chunk.data)} bytes: expected whole 16-bit samples of at most {self.window_seconds:g} s"
                f" at {SAMPLE_RATE} Hz",
            )
        if (
            sum(len(stored_chunk.data) for stored_chunk in self._audio_chunks)
            > 16 * self.window_seconds * SAMPLE_RATE
        ):
            raise invalid_field("sound", "too much audio for the time that has passed; send it in real time")
        self._audio_chunks.append(chunk)
        self._audio_end = max(self._audio_end, chunk.end_seconds)

    def _add_frame(self, chunk: MediaChunk) -> None:
        if len(self._frame_chunks) >= 4 * self.window_seconds * self.limits.max_frame_rate:
            raise invalid_field(
                "picture", f"too many frames: expected at most {self.limits.max_frame_rate:g} per second"
            )
        try:
            with Image.open(io.BytesIO(chunk.data), formats=("JPEG",)) as image:  # reads only the header
                frame_size = image.size
        except (OSError, ValueError, SyntaxError) as error:
            raise invalid_field("picture", "expected a JPEG") from error
        if frame_size[0] * frame_size[1] > self.limits.max_frame_pixels:
            raise invalid_field(
                "picture",
                f"{frame_size[0] * frame_size[1]} pixels: expected at most"
                f" {self.limits.max_frame_pixels} per frame; send smaller frames",
            )
        if self._frame_size not in ((0, 0), frame_size):
            raise invalid_field(
                "picture",
                f"{frame_size[0]} x {frame_size[1]} pixels: expected {self._frame_size[0]} x"
                f" {self._frame_size[1]}, the size of the first frame",
            )
        self._frame_size = frame_size
        self._frame_chunks.append(chunk)
        self._video_end = max(self._video_end, chunk.start_seconds)

    def is_window_ready(self) -> bool:
        """Returns True if the next window is complete, otherwise False.

        It is complete if both streams, audio and video, have passed the end of the window; if only one stream
        has arrived so far and has passed the end; or if one stream has passed the end by
        MAX_STREAM_LAG_SECONDS (half a second).
        """
        end = self.window_start + self.window_seconds
        stream_ends = [
            stream_end for stream_end in (self._audio_end, self._video_end) if stream_end > -math.inf
        ]
        return bool(stream_ends) and (
            min(stream_ends) >= end - 1e-6 or max(stream_ends) >= end + MAX_STREAM_LAG_SECONDS
        )

    def has_remainder(self) -> bool:
        """Returns True if at least half a window has arrived after the last window, otherwise False.

        The time from the end of the last window to the end of the latest audio, or the start of the latest
        frame, counts (MIN_LAST_WINDOW_FRACTION).
        """
        return (
            max(self._audio_end, self._video_end) - self.window_start
            >= MIN_LAST_WINDOW_FRACTION * self.window_seconds - 1e-6
        )

    def take_window(self, *, full_window: bool = True) -> LiveWindow:
        """Returns the next window with its audio and video frames, and discards its messages.

        A message of audio that continues after the end of the window stays for the next one.

        A LiveWindow has `start` and `end` in seconds of the session; `audio`, int16 [n] at 16000 Hz with
        zeros for missing samples, or None if there is none; `frames`, a list of (seconds from the start of
        the window, JPEG) in order; and `frame_size` (width, height), (0, 0) if no frame has arrived. The
        window is returned even if it is incomplete or has neither audio nor frames.

        Args:
          full_window: if False, the window ends with the last message; for the remainder at the end of a
            session, if `has_remainder` returns True.
        """
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
        """Returns the int16 samples [n] from `start` to `end` (seconds of the session), with zeros for gaps.

        The sample rate is 16000 Hz. Returns None if there is no audio in this time.
        """
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
