"""A clip's sound as 16 kHz mono float32, block by block, cut from the same clock as its frames."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import av
import numpy as np
import soxr
from jaxtyping import Float

from data_prep.media.probe import MediaError, MediaInfo, open_media

SAMPLE_RATE_LIMITS = (2_000, 768_000)
TIMESTAMP_TOLERANCE_SECONDS = 0.01
"""Seconds that timestamps may be off, since some containers round them to 1 ms, before sound is moved."""
CLOCK_TICK_SECONDS = 0.001
"""Seconds: the coarsest clock of the usual containers."""
MAX_JOINED_SAMPLES = 8192
"""Samples, a multiple of what codecs give at once."""
WARM_UP_SECONDS = 1.0
"""Seconds decoded before the wanted part after a seek: a frame leans on the one before."""
FULL_SCALE = 1 - 2**-15
"""A sample is clipped from here: the largest that 16 bits hold."""
MIN_REPORTED_CLIPPED_FRACTION = 0.01
"""Share of clipped samples from which it is told: a sine that just fits has half as many, speech fewer."""
MIN_CHANNELS_TO_REPACK = 8
"""Channels from which PyAV misses the end of a frame's planes, and takes memory beyond them for sound."""
_SAMPLE_SCALES = {"u1": (128, 128.0), "i2": (0, 2.0**15), "i4": (0, 2.0**31), "f4": (0, 1.0), "f8": (0, 1.0)}

TimedAudio = tuple[float | None, int, Float[np.ndarray, "c n"]]
"""Seconds, rate and samples of sound; no time: it follows what came before."""


@dataclasses.dataclass
class ClippingMeter:
    """Counts the samples of the source as they go by, and those at full scale in any channel."""

    num_samples: int = 0
    num_clipped: int = 0

    def add(self, audio: Float[np.ndarray, "c n"]) -> None:
        """Counts samples of all channels."""
        self.num_samples += audio.shape[1]
        if max(audio.max(), -audio.min()) >= FULL_SCALE:
            self.num_clipped += int((np.abs(audio) >= FULL_SCALE).any(axis=0).sum())

    def clipping_note(self) -> str:
        """The remark on a sound that is heavily clipped, or nothing."""
        clipped_fraction = self.num_clipped / max(self.num_samples, 1)
        return (
            f"sound is clipped in {100 * clipped_fraction:.0f} % of samples"
            if clipped_fraction >= MIN_REPORTED_CLIPPED_FRACTION
            else ""
        )


def read_audio_blocks(
    info: MediaInfo, start: float, end: float, sample_rate: int, meter: ClippingMeter | None = None
) -> Iterator[Float[np.ndarray, " n"]]:
    """Mono sound from `start` to `end` seconds at `sample_rate` Hz: the mean of the channels, then soxr.

    Sample 0 is at `start`; where the stream begins later or has a hole there is silence, and where it ends
    before `end` the blocks end too; there may be none. Each run of one source rate is resampled by itself.
    `meter` counts what goes by. Memory does not grow with the clip. Raises MediaError when nothing of the
    stream can be decoded.
    """
    for source_rate, same_rate_blocks in itertools.groupby(
        _cut_to_span(info, start, end, meter or ClippingMeter()), lambda pair: pair[0]
    ):
        resampler = soxr.ResampleStream(source_rate, sample_rate, 1, dtype="float32", quality="HQ")
        for _, block in same_rate_blocks:
            yield resampler.resample_chunk(block) if source_rate != sample_rate else block
        if source_rate != sample_rate:
            yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def tee_int16(
    blocks: Iterable[Float[np.ndarray, " n"]], int16_bytes: bytearray
) -> Iterator[Float[np.ndarray, " n"]]:
    """The same blocks; each is added to `int16_bytes` as int16, of which 32767 is full scale."""
    for block in blocks:
        int16_bytes += np.rint(np.clip(block, -1, 1) * 32767).astype(np.int16).tobytes()
        yield block


def _cut_to_span(
    info: MediaInfo, start: float, end: float, meter: ClippingMeter
) -> Iterator[tuple[int, Float[np.ndarray, " n"]]]:
    """(rate, samples) of the source from `start` to `end`, one sample after the other."""
    has_audio, position = False, start
    for timestamp, sample_rate, audio in _join_parts(_decode_frames(info, start)):
        has_audio = True
        gap_samples = 0 if timestamp is None else round((timestamp - position) * sample_rate)
        if position == start or abs(gap_samples) > TIMESTAMP_TOLERANCE_SECONDS * sample_rate:
            num_silent = max(0, min(gap_samples, round((end - position) * sample_rate)))
            for num_filled in range(0, num_silent, sample_rate):
                yield sample_rate, np.zeros(min(sample_rate, num_silent - num_filled), np.float32)
            position += num_silent / sample_rate
            audio = audio[:, max(0, -gap_samples) :]  # before the start, or there already
        audio = audio[:, : max(0, round((end - position) * sample_rate))]
        if audio.shape[1]:
            mono = audio.mean(axis=0, dtype=np.float32)
            if not np.isfinite(mono).all():
                raise MediaError("sound: samples that are not finite")
            meter.add(audio)
            yield sample_rate, mono
            position += len(mono) / sample_rate
        if round((end - position) * sample_rate) <= 0:
            return
    if not has_audio:
        raise MediaError("sound: nothing could be decoded")


def _join_parts(parts: Iterable[TimedAudio]) -> Iterator[TimedAudio]:
    """Parts that follow each other to the tick as one, up to MAX_JOINED_SAMPLES: fewer, larger steps."""
    pending, start_time, num_samples, sample_rate = [], None, 0, 0
    for timestamp, part_rate, audio in parts:
        is_contiguous = (
            pending
            and part_rate == sample_rate
            and len(audio) == len(pending[0])
            and None not in (start_time, timestamp)
        )
        if pending and not (
            is_contiguous
            and num_samples < MAX_JOINED_SAMPLES
            and abs(timestamp - start_time - num_samples / sample_rate) <= CLOCK_TICK_SECONDS
        ):
            yield start_time, sample_rate, np.concatenate(pending, 1)
            pending = []
        if not pending:
            start_time, num_samples, sample_rate = timestamp, 0, part_rate
        pending.append(audio)
        num_samples += audio.shape[1]
    if pending:
        yield start_time, sample_rate, np.concatenate(pending, 1)


def _decode_frames(info: MediaInfo, start: float) -> Iterator[TimedAudio]:
    """Each decoded frame; packets that are damaged leave a hole."""
    with open_media(info.path) as container:
        stream = container.streams[info.audio.index]
        context = stream.codec_context
        context.thread_count = 1
        if info.has_reliable_timestamps and start > 10 * WARM_UP_SECONDS:
            container.seek(int((start + info.start_time - WARM_UP_SECONDS) / stream.time_base), stream=stream)
        for packet in container.demux(stream):
            try:
                frames = context.decode(packet if packet.size else None)
            except (av.error.InvalidDataError, av.error.EOFError):
                continue
            for frame in frames:
                if not SAMPLE_RATE_LIMITS[0] <= frame.sample_rate <= SAMPLE_RATE_LIMITS[1]:
                    raise MediaError(
                        f"sound: a sample rate of {frame.sample_rate} Hz, expected"
                        f" {SAMPLE_RATE_LIMITS[0]} to {SAMPLE_RATE_LIMITS[1]}"
                    )
                # not `frame.time`, which is NaN for what a decoder still held at the end
                timestamp = (
                    None if frame.pts is None else float(frame.pts * stream.time_base) - info.start_time
                )
                yield timestamp, frame.sample_rate, _to_float_samples(frame)


def _to_float_samples(frame: av.AudioFrame) -> Float[np.ndarray, "c n"]:
    """The channels as they are, full scale at 1; swresample's own mix of two would be sqrt(2) louder."""
    if frame.format.is_planar and frame.layout.nb_channels >= MIN_CHANNELS_TO_REPACK:
        (frame,) = av.AudioResampler(format=frame.format.packed).resample(frame)
    try:
        samples = frame.to_ndarray()
    except ValueError as error:
        raise MediaError(f"sound: samples in {frame.format.name}, which are not read") from error
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T  # c n
    offset, scale = _SAMPLE_SCALES[samples.dtype.str[1:]]
    if scale == 1:
        return samples
    return (samples.astype(np.float64) - offset) / scale
