"""Opens untrusted files, and reads their streams and timestamps, or raises an error of one line."""

import array
import contextlib
import dataclasses
import functools
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import TypeVar

import av
import numpy as np
from av.audio.stream import AudioStream
from av.stream import Stream
from av.video.stream import VideoStream

CONTAINER_FORMATS = (
    "mov,mp4,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,wav,w64,flac,ogg,mp3,aac,aiff,caf,amr,au"
)
"""Accepted containers; no playlists, images or devices, which may read other files or never end."""
OPEN_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": CONTAINER_FORMATS}
RELIABLE_CONTAINERS = ("mov", "matroska", "flac", "wav")
"""Containers with the true length in the header and with correct timestamps after a seek."""
MAX_FRAME_PIXELS = 1 << 26
DURATION_TOLERANCE_SECONDS = 0.25
"""Seconds by which the length in the header may exceed the length of the packets."""


StreamT = TypeVar("StreamT", VideoStream, AudioStream)


class MediaError(ValueError):
    """Error of a file or stream that can't be read; the message is one line without the path."""


@dataclasses.dataclass(frozen=True)
class VideoTrack:
    """The packets of a video stream in decoding order."""

    index: int
    frame_keys: np.ndarray  # i64 [n] presentation timestamps, or the order of presentation if there are none
    times: np.ndarray  # f64 [n] seconds of the file
    is_keyframe: np.ndarray  # bool [n]
    has_timestamps: bool
    """False if packets have no presentation timestamps (AVI); frames are then counted."""
    end: float
    """End of the last frame, in seconds of the file."""


@dataclasses.dataclass(frozen=True)
class AudioTrack:
    """Index of an audio stream in its file, and the stream's end in seconds of the file."""

    index: int
    end: float


@dataclasses.dataclass(frozen=True)
class MediaInfo:
    """A probed media file; time 0 of audio and video is the beginning of the first stream."""

    path: str
    start_time: float
    duration: float
    has_reliable_timestamps: bool
    video: VideoTrack | None
    audio: AudioTrack | None

    def require_video(self) -> VideoTrack:
        """Returns the video track; raises MediaError if the file has no video stream.

        It has `index`, that of the stream; `end` in seconds of the file; `has_timestamps`; and for each of n
        packets in decoding order `times` in seconds of the file, `is_keyframe` and `frame_keys`: presentation
        timestamps in ticks, or without timestamps the numbers in order of presentation.
        """
        if self.video is None:
            raise MediaError("no video stream, expected a file with video; use another file")
        return self.video

    def require_audio(self) -> AudioTrack:
        """Returns the audio track: `index` of the stream, and its `end` in seconds of the file.

        Raises MediaError if the file has no audio stream.
        """
        if self.audio is None:
            raise MediaError("no audio stream, expected a file with audio; use another file")
        return self.audio


@contextlib.contextmanager
def open_media(path: str) -> Iterator[av.container.InputContainer]:
    """Opens a media file, yields its PyAV container for the block, and closes it afterwards.

    Raises MediaError if the file does not exist, can't be read, is empty, is not a regular file, or is not in
    one of CONTAINER_FORMATS: mov, mp4, matroska, webm, avi, mpeg, mpegts, mpegvideo, flv, asf, wav, w64,
    flac, ogg, mp3, aac, aiff, caf, amr and au. An av.FFmpegError that the block raises becomes a MediaError
    too; its other errors pass through.
    """
    try:
        file_status = os.stat(path)
        if not stat.S_ISREG(file_status.st_mode):
            raise MediaError("not a regular file, expected a media file; correct the path")
        if file_status.st_size == 0:
            raise MediaError("empty file, expected a media file; copy it again")
        container = av.open("file:" + os.path.abspath(path), options=OPEN_OPTIONS, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise MediaError(_error_message(error)) from error
    with container:
        try:
            yield container
        except av.FFmpegError as error:
            raise MediaError(_error_message(error)) from error


def _error_message(error: Exception) -> str:
    if isinstance(error, (av.error.InvalidDataError, av.error.ArgumentError)):
        return "not a media file, or too damaged to read"
    return (getattr(error, "strerror", None) or str(error)).lower()


def probe_media(path: str) -> MediaInfo:
    """Reads the streams of a file and the timestamps of all packets, without decoding.

    Timestamps are read because headers can't be trusted.

    Returns:
      A MediaInfo: `path`; `start_time`, the timestamp in seconds that is time 0 of both tracks; `duration` in
      seconds; `has_reliable_timestamps`, True if they are correct after a seek; and the tracks `video` and
      `audio`, None if the file has no such stream or it has no packets. Both have `index`, that of the
      stream, and `end` in seconds from time 0. `video` also has `has_timestamps`, and for each of n packets
      in decoding order `times` in seconds from time 0, `is_keyframe` and `frame_keys`: presentation
      timestamps in ticks, or without timestamps the numbers in order of presentation.

    Raises:
      MediaError: the file does not exist, can't be read, is empty, is not a media file, has neither audio nor
        video, no packets or no time base, has frames above 2**26 pixels, or (mp4, matroska, flac, wav) ends
        more than 0.25 s before the length in its header.
    """
    try:
        file_status = os.stat(path)
    except OSError as error:
        raise MediaError(_error_message(error)) from error
    return _probe_cached(path, file_status.st_size, file_status.st_mtime_ns)


@functools.lru_cache(maxsize=4)  # so that all windows of a long file need one probe
def _probe_cached(path: str, size: int, mtime_ns: int) -> MediaInfo:
    with open_media(path) as container:
        video_stream = _first_playable(container.streams.video)
        audio_stream = _first_playable(container.streams.audio)
        packets_by_stream = {
            stream.index: _PacketTimes() for stream in (video_stream, audio_stream) if stream is not None
        }
        if not packets_by_stream:
            raise MediaError("has neither audio nor video, expected at least one of them; use another file")
        _read_packet_times(container, packets_by_stream)
        has_reliable_timestamps = container.format.name.startswith(RELIABLE_CONTAINERS)
        if container.format.name == "avi":  # AVI stores the decoding order only; FFmpeg guesses timestamps
            for packets in packets_by_stream.values():
                packets.has_timestamps = False
        start_time = min(
            (p.first_time(time_base(container.streams[i])) for i, p in packets_by_stream.items() if p.size),
            default=0.0,
        )
        start_time = max(
            start_time, (container.start_time or 0) / av.time_base
        )  # priming samples are before the start
        video = _make_video_track(video_stream, packets_by_stream, start_time)
        audio = _make_audio_track(audio_stream, packets_by_stream, start_time)
        duration = max((track.end for track in (video, audio) if track is not None), default=0.0)
        declared_duration = (container.duration or 0) / av.time_base
        if has_reliable_timestamps and duration < declared_duration - DURATION_TOLERANCE_SECONDS:
            raise MediaError(
                f"truncated: {duration:.2f} s, expected {declared_duration:.2f} s by its header;"
                " copy the file again"
            )
        if duration <= 0:
            raise MediaError(
                "contains no audio samples and no frames, expected at least one of them; encode it again"
            )
        return MediaInfo(path, start_time, duration, has_reliable_timestamps, video, audio)


class _PacketTimes:
    """Timestamps and key frame flags of the packets of one stream."""

    def __init__(self) -> None:
        self.pts, self.end_pts, self.is_keyframe = array.array("q"), array.array("q"), array.array("b")
        self.has_timestamps = True

    @property
    def size(self) -> int:
        return len(self.pts)

    def add(self, packet: "av.Packet[Stream]") -> None:
        self.has_timestamps &= packet.pts is not None
        pts = packet.pts if packet.pts is not None else packet.dts
        if pts is None:
            pts = self.end_pts[-1] if self.size else 0
        self.pts.append(pts)
        self.end_pts.append(pts + (packet.duration or 0))
        self.is_keyframe.append(packet.is_keyframe)

    def first_time(self, time_base: Fraction) -> float:
        return float(min(self.pts) * time_base)


def time_base(stream: Stream) -> Fraction:
    """Returns the seconds of one tick of a stream's timestamps; raises MediaError if the stream has none."""
    if stream.time_base is None:
        raise MediaError("a stream has no time base, the unit of its timestamps; encode the file again")
    return stream.time_base


def _first_playable(streams: Iterable[StreamT]) -> StreamT | None:
    """Returns the first stream that is not a cover picture and can be decoded, or None if there is none."""
    for stream in streams:
        if not stream.disposition & av.stream.Disposition.attached_pic and stream.codec_context is not None:
            return stream
    return None


def find_stream(container: av.container.InputContainer, index: int, kind: type[StreamT]) -> StreamT:
    """Returns stream `index` of an open file; `kind` is its class in PyAV, VideoStream or AudioStream.

    Raises MediaError if stream `index` does not exist or is of another class, because the file has changed
    since it was probed.
    """
    stream = container.streams[index] if index < len(container.streams) else None
    if not isinstance(stream, kind):
        name = "audio" if kind is AudioStream else "video"
        raise MediaError(f"{name}: the file has changed since it was probed; process it again")
    return stream


def _read_packet_times(
    container: av.container.InputContainer, packets_by_stream: Mapping[int, _PacketTimes]
) -> None:
    try:
        for packet in container.demux([container.streams[index] for index in packets_by_stream]):
            if packet.size:
                packets_by_stream[packet.stream.index].add(packet)
    except av.FFmpegError:
        return  # the packets so far are used; `probe_media` compares their length with the header


def _make_video_track(
    stream: VideoStream | None, packets_by_stream: Mapping[int, _PacketTimes], start_time: float
) -> VideoTrack | None:
    if stream is None or not packets_by_stream[stream.index].size:
        return None
    if stream.width * stream.height > MAX_FRAME_PIXELS:
        raise MediaError(
            f"frames of {stream.width} x {stream.height} pixels: expected at most {MAX_FRAME_PIXELS} pixels;"
            " reduce the size of the video"
        )
    packets, tick_seconds = packets_by_stream[stream.index], float(time_base(stream))
    pts = np.array(packets.pts, np.int64)
    frame_keys = pts if packets.has_timestamps else np.argsort(np.argsort(pts, kind="stable"), kind="stable")
    return VideoTrack(
        index=stream.index,
        frame_keys=frame_keys,
        times=pts * tick_seconds - start_time,
        is_keyframe=np.array(packets.is_keyframe, bool),
        has_timestamps=packets.has_timestamps,
        end=max(packets.end_pts) * tick_seconds - start_time,
    )


def _make_audio_track(
    stream: AudioStream | None, packets_by_stream: Mapping[int, _PacketTimes], start_time: float
) -> AudioTrack | None:
    if stream is None or not packets_by_stream[stream.index].size:
        return None
    end = float(max(packets_by_stream[stream.index].end_pts) * time_base(stream)) - start_time
    return AudioTrack(stream.index, end)
