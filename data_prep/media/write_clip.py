"""Sound and pictures that come one by one into a media file, which `process_clip` reads as any other."""

import fractions
from collections.abc import Sequence
from typing import BinaryIO

import av
import numpy as np

MILLISECOND = fractions.Fraction(1, 1000)


def write_clip(
    path: str | BinaryIO,
    audio: np.ndarray | None,
    sample_rate: int,
    images: Sequence[tuple[float, bytes]],
    image_size: tuple[int, int],
    end_seconds: float,
) -> None:
    """Writes Matroska: 16-bit mono sound as it is, and JPEG pictures as they are; nothing is encoded again.

    Args:
      path: of the file, or the file itself.
      audio: int16 [n] from second 0 on, or None.
      sample_rate: samples a second.
      images: second and bytes of each, in order.
      image_size: width and height of the pictures.
      end_seconds: where the last picture ends.
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
        if audio_stream is not None:
            frame = av.AudioFrame.from_ndarray(audio[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = sample_rate, 0
            container.mux([*audio_stream.encode(frame), *audio_stream.encode()])
        image_ends = [*(image_start for image_start, _ in images), end_seconds][1:]
        for (image_start, jpeg), image_end in zip(images, image_ends, strict=True):
            container.mux(_make_packet(video_stream, jpeg, image_start, image_end))


def _make_packet(stream, jpeg: bytes, start_seconds: float, end_seconds: float) -> av.Packet:
    packet = av.Packet(jpeg)
    packet.stream, packet.time_base, packet.is_keyframe = stream, MILLISECOND, True
    packet.pts = packet.dts = round(1000 * start_seconds)
    packet.duration = max(1, round(1000 * (end_seconds - start_seconds)))
    return packet
