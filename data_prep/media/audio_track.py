"""A clip's sound as 16 kHz mono float32, block by block, cut from the same clock as its frames."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import av
import numpy as np
import soxr
from jaxtyping import Float

from data_prep.media.probe import MediaError, MediaInfo, open_media

RATES = (2_000, 768_000)
TOLERANCE = 0.01
"""Seconds that timestamps may be off, since some containers round them to 1 ms, before sound is moved."""
TICK = 0.001
"""Seconds: the coarsest clock of the usual containers."""
JOINED = 8192
"""Samples, a multiple of what codecs give at once."""
WARM_UP = 1.0
"""Seconds decoded before the wanted part after a seek: a frame leans on the one before."""
FULL_SCALE = 1 - 2**-15
"""A sample is clipped from here: the largest that 16 bits hold."""
CLIPPED = 0.01
"""Share of clipped samples from which it is told: a sine that just fits has half as many, speech fewer."""
PLANES = 8
"""Channels from which PyAV misses the end of a frame's planes, and takes memory beyond them for sound."""
_SCALE = {"u1": (128, 128.0), "i2": (0, 2.0**15), "i4": (0, 2.0**31), "f4": (0, 1.0), "f8": (0, 1.0)}

Part = tuple[float | None, int, Float[np.ndarray, "c n"]]
"""Seconds, rate and samples of sound; no time: it follows what came before."""


@dataclasses.dataclass
class Meter:
    """Counts the samples of the source as they go by, and those at full scale in any channel."""

    samples: int = 0
    clipped: int = 0

    def add(self, sound: Float[np.ndarray, "c n"]) -> None:
        """Counts samples of all channels."""
        self.samples += sound.shape[1]
        if max(sound.max(), -sound.min()) >= FULL_SCALE:
            self.clipped += int((np.abs(sound) >= FULL_SCALE).any(axis=0).sum())

    def note(self) -> str:
        """The remark on a sound that is heavily clipped, or nothing."""
        share = self.clipped / max(self.samples, 1)
        return f"sound is clipped in {100 * share:.0f} % of samples" if share >= CLIPPED else ""


def sound_blocks(
    info: MediaInfo, start: float, end: float, rate: int, meter: Meter | None = None
) -> Iterator[Float[np.ndarray, " n"]]:
    """Mono sound from `start` to `end` seconds at `rate` Hz: the mean of the channels, then soxr.

    Sample 0 is at `start`; where the stream begins later or has a hole there is silence, and where it ends
    before `end` the blocks end too; there may be none. Each run of one source rate is resampled by itself.
    `meter` counts what goes by. Memory does not grow with the clip. Raises MediaError when nothing of the
    stream can be decoded.
    """
    for source, run in itertools.groupby(_cut(info, start, end, meter or Meter()), lambda pair: pair[0]):
        stream = soxr.ResampleStream(source, rate, 1, dtype="float32", quality="HQ")
        for _, block in run:
            yield stream.resample_chunk(block) if source != rate else block
        if source != rate:
            yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def kept(blocks: Iterable[Float[np.ndarray, " n"]], store: bytearray) -> Iterator[Float[np.ndarray, " n"]]:
    """The same blocks; each is added to `store` as int16, of which 32767 is full scale."""
    for block in blocks:
        store += np.rint(np.clip(block, -1, 1) * 32767).astype(np.int16).tobytes()
        yield block


def _cut(
    info: MediaInfo, start: float, end: float, meter: Meter
) -> Iterator[tuple[int, Float[np.ndarray, " n"]]]:
    """(rate, samples) of the source from `start` to `end`, one sample after the other."""
    decoded, at = False, start
    for time, rate, sound in _joined(_decoded(info, start)):
        decoded = True
        late = 0 if time is None else round((time - at) * rate)
        if at == start or abs(late) > TOLERANCE * rate:
            silent = max(0, min(late, round((end - at) * rate)))
            for done in range(0, silent, rate):
                yield rate, np.zeros(min(rate, silent - done), np.float32)
            at += silent / rate
            sound = sound[:, max(0, -late) :]  # before the start, or there already
        sound = sound[:, : max(0, round((end - at) * rate))]
        if sound.shape[1]:
            mono = sound.mean(axis=0, dtype=np.float32)
            if not np.isfinite(mono).all():
                raise MediaError("sound: samples that are not finite")
            meter.add(sound)
            yield rate, mono
            at += len(mono) / rate
        if round((end - at) * rate) <= 0:
            return
    if not decoded:
        raise MediaError("sound: nothing could be decoded")


def _joined(parts: Iterable[Part]) -> Iterator[Part]:
    """Parts that follow each other to the tick as one, up to JOINED samples: fewer, larger steps."""
    held, first, count, rate = [], None, 0, 0
    for time, its, sound in parts:
        follows = held and its == rate and len(sound) == len(held[0]) and None not in (first, time)
        if held and not (follows and count < JOINED and abs(time - first - count / rate) <= TICK):
            yield first, rate, np.concatenate(held, 1)
            held = []
        if not held:
            first, count, rate = time, 0, its
        held.append(sound)
        count += sound.shape[1]
    if held:
        yield first, rate, np.concatenate(held, 1)


def _decoded(info: MediaInfo, start: float) -> Iterator[Part]:
    """Each decoded frame; packets that are damaged leave a hole."""
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
                if not RATES[0] <= frame.sample_rate <= RATES[1]:
                    raise MediaError(
                        f"sound: a sample rate of {frame.sample_rate} Hz, expected {RATES[0]} to {RATES[1]}"
                    )
                # not `frame.time`, which is NaN for what a decoder still held at the end
                time = None if frame.pts is None else float(frame.pts * stream.time_base) - info.zero
                yield time, frame.sample_rate, _samples(frame)


def _samples(frame: av.AudioFrame) -> Float[np.ndarray, "c n"]:
    """The channels as they are, full scale at 1; swresample's own mix of two would be sqrt(2) louder."""
    if frame.format.is_planar and frame.layout.nb_channels >= PLANES:
        (frame,) = av.AudioResampler(format=frame.format.packed).resample(frame)
    try:
        samples = frame.to_ndarray()
    except ValueError as error:
        raise MediaError(f"sound: samples in {frame.format.name}, which are not read") from error
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T  # c n
    zero, scale = _SCALE[samples.dtype.str[1:]]
    if scale == 1:
        return samples
    return (samples.astype(np.float64) - zero) / scale
