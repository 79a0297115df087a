"""A clip's sound as 16 kHz mono float32, block by block, cut from the same clock as its frames."""

from collections.abc import Iterator

import av
import numpy as np
import soxr
from jaxtyping import Float

from data_prep.media import MediaError, MediaInfo, open_media

RATES = (2_000, 768_000)
GAP = 0.1
"""Seconds without sound between packets from which silence is put in."""
WARM_UP = 1.0
"""Seconds decoded before the wanted part after a seek: a frame leans on the one before."""
_SCALE = {"u1": (128, 128.0), "i2": (0, 2.0**15), "i4": (0, 2.0**31), "f4": (0, 1.0), "f8": (0, 1.0)}


def sound_blocks(info: MediaInfo, start: float, end: float, rate: int) -> Iterator[Float[np.ndarray, " n"]]:
    """Mono sound from `start` to `end` seconds at `rate` Hz: the mean of the channels, then soxr.

    Sample 0 is at `start`; where the stream begins later or has a hole there is silence. Memory does not
    grow with the clip. Raises MediaError when nothing of the stream can be decoded.
    """
    source = info.sound.rate
    if not RATES[0] <= source <= RATES[1]:
        raise MediaError(f"sound: a sample rate of {source} Hz, expected {RATES[0]} to {RATES[1]}")
    stream = soxr.ResampleStream(source, rate, 1, dtype="float32", quality="HQ")
    for block in _cut(info, start, end):
        yield stream.resample_chunk(block) if source != rate else block
    if source != rate:
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _cut(info: MediaInfo, start: float, end: float) -> Iterator[Float[np.ndarray, " n"]]:
    """Blocks of the source from `start` to `end`, one sample after the other."""
    rate, decoded, at = info.sound.rate, False, 0
    length = round((end - start) * rate)
    for time, block in _decoded(info, start):
        decoded = True
        place = at if time is None else round((time - start) * rate)
        if at == 0 and place < 0:
            block = block[-place:]
        elif place > at + (GAP * rate if at else 0):
            yield from _silence(min(place, length) - at, rate)
            at = min(place, length)
        block = block[: length - at]
        if not np.isfinite(block).all():
            raise MediaError("sound: samples that are not finite")
        if len(block):
            yield block
            at += len(block)
        if at >= length:
            return
    if not decoded:
        raise MediaError("sound: nothing could be decoded")


def _silence(length: int, block: int) -> Iterator[Float[np.ndarray, " n"]]:
    for done in range(0, length, block):
        yield np.zeros(min(block, length - done), np.float32)


def _decoded(info: MediaInfo, start: float) -> Iterator[tuple[float | None, Float[np.ndarray, " n"]]]:
    """(seconds, mono samples) of each decoded frame; packets that are damaged leave a hole."""
    with open_media(info.path) as container:
        stream = container.streams[info.sound.index]
        context = stream.codec_context
        context.thread_count = 1
        if info.exact and start > 10 * WARM_UP:
            container.seek(int((start + info.zero - WARM_UP) / stream.time_base), stream=stream)
        for packet in container.demux(stream):
            try:
                frames = context.decode(packet if packet.size else None)
            except (av.error.InvalidDataError, av.error.EOFError):
                continue
            for frame in frames:
                if frame.sample_rate != info.sound.rate:
                    raise MediaError(f"sound: its rate changes from {info.sound.rate} to {frame.sample_rate}")
                yield (None if frame.pts is None else frame.time - info.zero), _mono(frame)


def _mono(frame: av.AudioFrame) -> Float[np.ndarray, " n"]:
    """The mean of the channels; swresample's own mix of two is sqrt(2) louder."""
    samples = frame.to_ndarray()
    kind = samples.dtype.str[1:]
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T  # c n
    zero, scale = _SCALE[kind]
    if samples.shape[0] == 1 and samples.dtype == np.float32:
        return samples[0]
    mono = samples.mean(axis=0, dtype=np.float64)
    return ((mono - zero) / scale).astype(np.float32)
