"""Opens files that may be anything: the media in them, on one clock, or one line that says what is wrong."""

import array
import contextlib
import dataclasses
import functools
import os
import stat
from collections.abc import Iterator

import av
import numpy as np

CONTAINER_FORMATS = (
    "mov,mp4,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,wav,w64,flac,ogg,mp3,aac,aiff,caf,amr,au"
)
"""Containers that are read: no playlists, images or devices, which reach out of the file or never end."""
OPEN_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": CONTAINER_FORMATS}
RELIABLE_CONTAINERS = ("mov", "matroska", "flac", "wav")
"""Containers whose header tells the true length and whose timestamps hold after a seek."""
MAX_FRAME_PIXELS = 1 << 26
DURATION_TOLERANCE_SECONDS = 0.25
"""Seconds by which a header may promise more than there is."""


class MediaError(ValueError):
    """A file, or one of its streams, that can't be read; one line without the path."""


@dataclasses.dataclass(frozen=True)
class VideoTrack:
    """The packets of a video stream in decoding order."""

    index: int
    frame_keys: np.ndarray  # i64 [n] presentation timestamp, or rank in presentation where there are none
    times: np.ndarray  # f64 [n] seconds on the clip's clock
    is_keyframe: np.ndarray  # bool [n]
    has_timestamps: bool
    """False where packets have no presentation timestamps (AVI); frames are then counted."""
    end: float


@dataclasses.dataclass(frozen=True)
class AudioTrack:
    """Where a sound stream lies."""

    index: int
    end: float


@dataclasses.dataclass(frozen=True)
class MediaInfo:
    """One file; 0 seconds is where its first stream begins, for sound and video alike."""

    path: str
    start_time: float
    duration: float
    has_reliable_timestamps: bool
    video: VideoTrack | None
    audio: AudioTrack | None


@contextlib.contextmanager
def open_media(path: str) -> Iterator[av.container.InputContainer]:
    """Opens a regular file as media; raises MediaError on anything that is none."""
    try:
        file_status = os.stat(path)
        if not stat.S_ISREG(file_status.st_mode):
            raise MediaError("not a regular file")
        if file_status.st_size == 0:
            raise MediaError("empty file")
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
        return "not media, or damaged beyond reading"
    return (getattr(error, "strerror", None) or str(error)).lower()


def probe_media(path: str) -> MediaInfo:
    """Reads the packets' timestamps, decoding nothing, since headers can't be trusted.

    Raises MediaError when the file is not there, empty, not media, or ends before its header says.
    """
    try:
        file_status = os.stat(path)
    except OSError as error:
        raise MediaError(_error_message(error)) from error
    return _probe_cached(path, file_status.st_size, file_status.st_mtime_ns)


@functools.lru_cache(maxsize=4)  # windows of one long file are probed once
def _probe_cached(path: str, size: int, mtime_ns: int) -> MediaInfo:
    with open_media(path) as container:
        streams = {kind: _first_stream(container, kind) for kind in ("video", "audio")}
        packets_by_stream = {
            stream.index: _PacketTimes() for stream in streams.values() if stream is not None
        }
        if not packets_by_stream:
            raise MediaError("has neither sound nor video")
        _read_packet_times(container, packets_by_stream)
        has_reliable_timestamps = container.format.name.startswith(RELIABLE_CONTAINERS)
        if container.format.name == "avi":  # it stores the order of decoding; FFmpeg guesses the rest
            for packets in packets_by_stream.values():
                packets.has_timestamps = False
        start_time = min(
            (p.first_time(container.streams[i].time_base) for i, p in packets_by_stream.items() if p.size),
            default=0.0,
        )
        start_time = max(
            start_time, (container.start_time or 0) / av.time_base
        )  # priming samples lie before the start
        video = _make_video_track(streams["video"], packets_by_stream, start_time)
        audio = _make_audio_track(streams["audio"], packets_by_stream, start_time)
        duration = max((track.end for track in (video, audio) if track is not None), default=0.0)
        declared_duration = (container.duration or 0) / av.time_base
        if has_reliable_timestamps and duration < declared_duration - DURATION_TOLERANCE_SECONDS:
            raise MediaError(
                f"truncated: {duration:.2f} s of the {declared_duration:.2f} s in its header are there"
            )
        if duration <= 0:
            raise MediaError("holds no sound and no frame")
        return MediaInfo(path, start_time, duration, has_reliable_timestamps, video, audio)


class _PacketTimes:
    """Timestamps of one stream's packets."""

    def __init__(self):
        self.pts, self.end_pts, self.is_keyframe = array.array("q"), array.array("q"), array.array("b")
        self.has_timestamps = True

    @property
    def size(self) -> int:
        return len(self.pts)

    def add(self, packet: av.Packet) -> None:
        self.has_timestamps &= packet.pts is not None
        pts = packet.pts if packet.pts is not None else packet.dts
        if pts is None:
            pts = self.end_pts[-1] if self.size else 0
        self.pts.append(pts)
        self.end_pts.append(pts + (packet.duration or 0))
        self.is_keyframe.append(packet.is_keyframe)

    def first_time(self, time_base) -> float:
        return float(min(self.pts) * time_base)


def _first_stream(container, kind: str):
    for stream in getattr(container.streams, kind):
        if not stream.disposition & av.stream.Disposition.attached_pic and stream.codec_context is not None:
            return stream
    return None


def _read_packet_times(container, packets_by_stream: dict[int, _PacketTimes]) -> None:
    try:
        for packet in container.demux([container.streams[index] for index in packets_by_stream]):
            if packet.size:
                packets_by_stream[packet.stream.index].add(packet)
    except av.FFmpegError:
        return  # what came before is there; `probe_media` compares it with the header


def _make_video_track(
    stream, packets_by_stream: dict[int, _PacketTimes], start_time: float
) -> VideoTrack | None:
    if stream is None or not packets_by_stream[stream.index].size:
        return None
    if stream.width * stream.height > MAX_FRAME_PIXELS:
        raise MediaError(
            f"frames of {stream.width} x {stream.height} pixels: at most {MAX_FRAME_PIXELS} are read"
        )
    packets, time_base = packets_by_stream[stream.index], float(stream.time_base)
    pts = np.array(packets.pts, np.int64)
    frame_keys = pts if packets.has_timestamps else np.argsort(np.argsort(pts, kind="stable"), kind="stable")
    return VideoTrack(
        index=stream.index,
        frame_keys=frame_keys,
        times=pts * time_base - start_time,
        is_keyframe=np.array(packets.is_keyframe, bool),
        has_timestamps=packets.has_timestamps,
        end=max(packets.end_pts) * time_base - start_time,
    )


def _make_audio_track(
    stream, packets_by_stream: dict[int, _PacketTimes], start_time: float
) -> AudioTrack | None:
    if stream is None or not packets_by_stream[stream.index].size:
        return None
    end = float(max(packets_by_stream[stream.index].end_pts) * stream.time_base) - start_time
    return AudioTrack(stream.index, end)
