"""Encodes frames and audio as mp4 (H.264 and AAC); equal input gives equal bytes."""

import io
from collections.abc import Iterable
from fractions import Fraction

import av
import cv2
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from jaxtyping import Float, UInt8

from data_prep.settings import SAMPLE_RATE

AAC_FRAME_SAMPLES = 1024
"""Number of samples in an AAC frame."""
_X264_OPTIONS = {
    "preset": "superfast",
    "crf": "28",
    "threads": "1",
    "x264-params": "threads=1:lookahead-threads=1",
}
"""Options of the video encoder; with more than one thread, the bytes may differ between runs."""


def encode_mp4(
    frames: Iterable[UInt8[np.ndarray, "h w 3"]],
    waveform: Float[np.ndarray, " n"],
    *,
    frame_rate: int,
    size: int,
) -> bytes:
    """Encodes square RGB frames and mono audio as mp4 and returns the bytes.

    Args:
      frames: the frames, uint8 [size size 3] each; one of another even size is scaled.
      waveform: samples from -1 to 1 at 16 kHz; it may be longer or shorter than the frames.
      frame_rate: frames per second.
      size: side of the frames in pixels, an even number.

    Raises:
      ValueError: `size` is odd, or `waveform` has more than one axis.
      OverflowError: `size` is negative.
      av.FFmpegError: FFmpeg can't encode the frames or the audio.
      cv2.error: a frame is not uint8, does not have three channels, or its height or width is odd.
    """
    if size % 2:
        raise ValueError(f"size: {size}, expected an even number of pixels")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        video_stream = container.add_stream("libx264", rate=frame_rate, options=_X264_OPTIONS)
        video_stream.width = video_stream.height = size
        video_stream.pix_fmt = "yuv420p"
        audio_stream = container.add_stream(
            "aac", rate=SAMPLE_RATE, layout="mono", options={"b": "48000", "aac_coder": "fast"}
        )
        for stream in (video_stream, audio_stream):
            stream.codec_context.flags |= av.codec.context.Flags.bitexact
        _mux_video(container, video_stream, frames)
        _mux_audio(container, audio_stream, waveform)
    return buffer.getvalue()


def _mux_video(
    container: av.container.OutputContainer,
    stream: VideoStream,
    frames: Iterable[UInt8[np.ndarray, "h w 3"]],
) -> None:
    for i, frame in enumerate(frames):
        pixels = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420), np.uint8)
        image = av.VideoFrame.from_ndarray(pixels, format="yuv420p")
        image.pts = i
        container.mux(stream.encode(image))
    container.mux(stream.encode())


def _mux_audio(
    container: av.container.OutputContainer, stream: AudioStream, waveform: Float[np.ndarray, " n"]
) -> None:
    waveform = np.clip(np.asarray(waveform, np.float32), -1, 1)[None, :]  # 1 n
    for start in range(0, waveform.shape[1], AAC_FRAME_SAMPLES):
        chunk = np.ascontiguousarray(waveform[:, start : start + AAC_FRAME_SAMPLES])
        frame = av.AudioFrame.from_ndarray(chunk, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
