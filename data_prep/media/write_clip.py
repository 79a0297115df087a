"""Writes received audio samples and JPEG images to a media file, which `process_clip` can read."""

import fractions
from collections.abc import Sequence
from typing import BinaryIO

import av
import numpy as np
from av.stream import Stream

MILLISECOND = fractions.Fraction(1, 1000)


def write_clip(
    path: str | BinaryIO,
    audio: np.ndarray | None,
    sample_rate: int,
    images: Sequence[tuple[float, bytes]],
    image_size: tuple[int, int],
    end_seconds: float,
) -> None:
    """Writes a Matroska file with 16-bit mono audio and JPEG images, without encoding them again.

    Args:
      path: path of the file, which is overwritten if it exists, or an open binary file.
      audio: int16 [n] from second 0 on; None: the file has no audio.
      sample_rate: sample rate of the audio in Hz.
      images: time in seconds and JPEG bytes of each image, in order of time; may be empty.
      image_size: width and height of the images.
      end_seconds: end of the last image in seconds.

    Raises:
      av.FFmpegError: the file can't be written (then it is also an OSError), or `audio` is empty, or
        `sample_rate`, `image_size` or the order of `images` is not valid.
      OSError: `path` is an open file and can't be written.
      ValueError: `audio` is not int16 [n].
    """
    with av.open(path, "w", format="matroska") as container:
        audio_stream = (
            container.add_stream("pcm_s16le", rate=sample_rate, layout="mono") if audio is not None else None
        )
        video_stream = (
            container.add_mux_stream("mjpeg", rate=1000, width=image_size[0], height=image_size[1])
            if images
            else None
        )
        if audio is not None and audio_stream is not None:
            frame = av.AudioFrame.from_ndarray(audio[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = sample_rate, 0
            container.mux([*audio_stream.encode(frame), *audio_stream.encode()])
        if video_stream is not None:
            image_ends = [*(image_start for image_start, _ in images), end_seconds][1:]
            for (image_start, jpeg), image_end in zip(images, image_ends, strict=True):
                container.mux(_make_packet(video_stream, jpeg, image_start, image_end))


def _make_packet(
    stream: Stream, jpeg: bytes, start_seconds: float, end_seconds: float
) -> "av.Packet[Stream]":
    packet = av.Packet(jpeg)
    packet.stream, packet.time_base, packet.is_keyframe = stream, MILLISECOND, True
    packet.pts = packet.dts = round(1000 * start_seconds)
    packet.duration = max(1, round(1000 * (end_seconds - start_seconds)))
    return packet
