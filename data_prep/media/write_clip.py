"""Sound and pictures that come one by one into a media file, which `process_clip` reads as any other."""

import fractions
from collections.abc import Sequence
from typing import BinaryIO

import av
import numpy as np

MILLISECOND = fractions.Fraction(1, 1000)


def write_clip(
    path: str | BinaryIO,
    sound: np.ndarray | None,
    rate: int,
    pictures: Sequence[tuple[float, bytes]],
    size: tuple[int, int],
    seconds: float,
) -> None:
    """Writes Matroska: 16-bit mono sound as it is, and JPEG pictures as they are; nothing is encoded again.

    Args:
      path: of the file, or the file itself.
      sound: int16 [n] from second 0 on, or None.
      rate: samples a second.
      pictures: second and bytes of each, in order.
      size: width and height of the pictures.
      seconds: where the last picture ends.
    """
    with av.open(path, "w", format="matroska") as target:
        voice = target.add_stream("pcm_s16le", rate=rate, layout="mono") if sound is not None else None
        face = target.add_mux_stream("mjpeg", rate=1000, width=size[0], height=size[1]) if pictures else None
        if voice is not None:
            frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = rate, 0
            target.mux([*voice.encode(frame), *voice.encode()])
        ends = [*(second for second, _ in pictures), seconds][1:]
        for (second, data), end in zip(pictures, ends, strict=True):
            target.mux(_packet(face, data, second, end))


def _packet(stream, data: bytes, second: float, end: float) -> av.Packet:
    packet = av.Packet(data)
    packet.stream, packet.time_base, packet.is_keyframe = stream, MILLISECOND, True
    packet.pts = packet.dts = round(1000 * second)
    packet.duration = max(1, round(1000 * (end - second)))
    return packet
