"""Decodes the audio of a clip to mono float32, block by block, with the same time axis as its frames."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

import av
import numpy as np
import soxr
from av.audio.stream import AudioStream
from jaxtyping import Float

from data_prep.media.probe import MediaError, MediaInfo, find_stream, open_media, time_base

SAMPLE_RATE_LIMITS = (2_000, 768_000)
"""Lowest and highest accepted sample rate of a file in Hz."""
TIMESTAMP_TOLERANCE_SECONDS = 0.01
"""Largest error of timestamps in seconds before audio is moved; some containers round them to 1 ms."""
CLOCK_TICK_SECONDS = 0.001
"""Coarsest resolution of timestamps in common containers, in seconds."""
MAX_JOINED_SAMPLES = 8192
"""Largest number of samples joined to one block; a multiple of the frame sizes of codecs."""
WARM_UP_SECONDS = 1.0
"""Seconds decoded before the requested part after a seek, because frames depend on previous ones."""
FULL_SCALE = 1 - 2**-15
"""Absolute value from which a sample counts as clipped: the largest value of 16 bits."""
MIN_REPORTED_CLIPPED_FRACTION = 0.01
"""Smallest fraction of clipped samples that is reported; a full-scale sine has half as many, speech fewer."""
MIN_CHANNELS_TO_REPACK = 8
"""Number of channels from which PyAV reads beyond the end of planar frames; they are repacked first."""
_SAMPLE_SCALES = {"u1": (128, 128.0), "i2": (0, 2.0**15), "i4": (0, 2.0**31), "f4": (0, 1.0), "f8": (0, 1.0)}

TimedAudio = tuple[float | None, int, Float[np.ndarray, "c n"]]
"""Start in seconds, sample rate and samples; a start of None means directly after the previous part."""


@dataclasses.dataclass
class ClippingMeter:
    """Counts the decoded samples of a source, and those at full scale in any channel."""

    num_samples: int = 0
    num_clipped: int = 0

    def add(self, audio: Float[np.ndarray, "c n"]) -> None:
        """Adds a block, n samples of c channels with full scale 1, to the counts; returns nothing.

        Raises ValueError if the block is empty.
        """
        self.num_samples += audio.shape[1]
        if max(audio.max(), -audio.min()) >= FULL_SCALE:
            self.num_clipped += int((np.abs(audio) >= FULL_SCALE).any(axis=0).sum())

    def clipping_note(self) -> str:
        """Returns a note such as `audio is clipped in 7 % of samples`, or an empty string below 1 %.

        Without any sample, it is empty too. A sample is clipped if any channel has at least the largest value
        of 16 bits, positive or negative.
        """
        clipped_fraction = self.num_clipped / max(self.num_samples, 1)
        return (
            f"audio is clipped in {100 * clipped_fraction:.0f} % of samples"
            if clipped_fraction >= MIN_REPORTED_CLIPPED_FRACTION
            else ""
        )


def read_audio_blocks(
    info: MediaInfo, start: float, end: float, sample_rate: int, meter: ClippingMeter | None = None
) -> Iterator[Float[np.ndarray, " n"]]:
    """Decodes audio to mono and resamples it with soxr; memory does not grow with the length.

    The first sample is at `start`. Silence fills the time before a stream that begins later, and gaps. The
    blocks end early if the stream ends before `end`; there may be none. Channels are averaged. If the sample
    rate changes within the file, each part is resampled separately.

    Args:
      info: the probed file, which has an audio stream.
      start: start in seconds of the file.
      end: end in seconds of the file.
      sample_rate: sample rate of the result in Hz.
      meter: counts the decoded samples and the clipped ones; None: they are not counted.

    Yields:
      Blocks of mono samples, float32 with full scale 1, of any length; a block may be empty.

    Raises:
      MediaError: the file can't be opened or read, has changed since it was probed, or has no audio stream,
        nothing can be decoded, samples are not finite, a rate is not 2,000 to 768,000 Hz, or a sample format
        is not supported. The error is raised while the blocks are read.
      ValueError: `sample_rate` is not above 0.
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
    """Yields the blocks unchanged, and appends the bytes of each to `int16_bytes`, as int16.

    The bytes have the order of the machine. Full scale 1 becomes 32767; values outside -1 to 1 are clipped.
    Errors of `blocks` pass through.
    """
    for block in blocks:
        int16_bytes += np.rint(np.clip(block, -1, 1) * 32767).astype(np.int16).tobytes()
        yield block


def _cut_to_span(
    info: MediaInfo, start: float, end: float, meter: ClippingMeter
) -> Iterator[tuple[int, Float[np.ndarray, " n"]]]:
    """Yields (sample rate in Hz, mono samples float32 [n]) from `start` to `end` without gaps and overlaps.

    `start` and `end` are seconds of the file. Gaps become zeros; the blocks end early if the stream does.
    `meter` counts the samples. Raises MediaError if the file can't be opened or read, has changed since it
    was probed, or has no audio stream, nothing can be decoded, samples are not finite, a rate is not 2,000 to
    768,000 Hz, or a sample format is not supported.
    """
    has_audio, position = False, start
    for timestamp, sample_rate, audio in _join_parts(_decode_frames(info, start)):
        has_audio = True
        gap_samples = 0 if timestamp is None else round((timestamp - position) * sample_rate)
        if position == start or abs(gap_samples) > TIMESTAMP_TOLERANCE_SECONDS * sample_rate:
            num_silent = max(0, min(gap_samples, round((end - position) * sample_rate)))
            for num_filled in range(0, num_silent, sample_rate):
                yield sample_rate, np.zeros(min(sample_rate, num_silent - num_filled), np.float32)
            position += num_silent / sample_rate
            audio = audio[:, max(0, -gap_samples) :]  # before the start, or overlapping
        audio = audio[:, : max(0, round((end - position) * sample_rate))]
        if audio.shape[1]:
            mono = audio.mean(axis=0, dtype=np.float32)
            if not np.isfinite(mono).all():
                raise MediaError("audio: samples are NaN or infinite, expected finite ones; encode it again")
            meter.add(audio)
            yield sample_rate, mono
            position += len(mono) / sample_rate
        if round((end - position) * sample_rate) <= 0:
            return
    if not has_audio:
        raise MediaError("audio: nothing could be decoded, expected an intact file; encode it again")


def _join_parts(parts: Iterable[TimedAudio]) -> Iterator[TimedAudio]:
    """Joins contiguous parts to blocks of about 8192 samples (MAX_JOINED_SAMPLES) or fewer.

    Parts are contiguous if their rates and numbers of channels are equal, and the gap is at most 1 ms. Yields
    (start in seconds or None, sample rate in Hz, samples [c n] of c channels) for each block; a start of None
    means directly after the previous block. Errors of `parts` pass through.
    """
    pending: list[Float[np.ndarray, "c n"]] = []
    start_time: float | None = None
    num_samples, sample_rate = 0, 0
    for timestamp, part_rate, audio in parts:
        if pending and not (
            part_rate == sample_rate
            and len(audio) == len(pending[0])
            and start_time is not None
            and timestamp is not None
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
    """Yields (start in seconds or None, sample rate in Hz, samples [c n]) of each decoded frame.

    c is the number of channels; a start of None means directly after the previous frame. Times are seconds
    of the file. Frames before `start` may come first. Damaged packets are skipped. Raises MediaError if the
    file can't be opened or read, has no audio stream or has changed since it was probed, a rate is not 2,000
    to 768,000 Hz, or a sample format is not supported.
    """
    with open_media(info.path) as container:
        stream = find_stream(container, info.require_audio().index, AudioStream)
        context, tick_seconds = stream.codec_context, time_base(stream)
        context.thread_count = 1
        if info.has_reliable_timestamps and start > 10 * WARM_UP_SECONDS:
            container.seek(int((start + info.start_time - WARM_UP_SECONDS) / tick_seconds), stream=stream)
        for packet in container.demux(stream):
            try:
                frames = context.decode(packet if packet.size else None)
            except (av.error.InvalidDataError, av.error.EOFError):
                continue
            for frame in frames:
                if not SAMPLE_RATE_LIMITS[0] <= frame.sample_rate <= SAMPLE_RATE_LIMITS[1]:
                    raise MediaError(
                        f"audio: sample rate {frame.sample_rate} Hz, expected"
                        f" {SAMPLE_RATE_LIMITS[0]} to {SAMPLE_RATE_LIMITS[1]} Hz; encode it with such a rate"
                    )
                # not `frame.time`, which is NaN for frames that a decoder returns at the end
                timestamp = None if frame.pts is None else float(frame.pts * tick_seconds) - info.start_time
                yield timestamp, frame.sample_rate, _to_float_samples(frame)


def _to_float_samples(frame: av.AudioFrame) -> Float[np.ndarray, "c n"]:
    """Returns the n samples of a frame in c separate channels, with full scale 1.

    They are float32 if the frame has float32, otherwise float64. The channels are not mixed by swresample,
    whose mix of two channels is louder by a factor of sqrt(2). Raises MediaError if the sample format is not
    supported, av.FFmpegError if FFmpeg can't repack eight or more channels.
    """
    if frame.format.is_planar and frame.layout.nb_channels >= MIN_CHANNELS_TO_REPACK:
        (frame,) = av.AudioResampler(format=frame.format.packed).resample(frame)
    try:
        samples = frame.to_ndarray()
    except ValueError as error:
        raise MediaError(
            f"audio: sample format {frame.format.name} is not supported; encode it as 16-bit samples"
        ) from error
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T  # c n
    offset, scale = _SAMPLE_SCALES[samples.dtype.str[1:]]
    if scale == 1:
        return samples
    return (samples.astype(np.float64) - offset) / scale
