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

FORMATS = "mov,mp4,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,wav,w64,flac,ogg,mp3,aac,aiff,caf,amr,au"
"""Containers that are read: no playlists, images or devices, which reach out of the file or never end."""
OPTIONS = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
EXACT = ("mov", "matroska", "flac", "wav")
"""Containers whose header tells the true length and whose timestamps hold after a seek."""
MAX_PIXELS = 1 << 26
SLACK = 0.25
"""Seconds by which a header may promise more than there is."""


class MediaError(ValueError):
    """A file, or one of its streams, that can't be read; one line without the path."""


@dataclasses.dataclass(frozen=True)
class VideoTrack:
    """The packets of a video stream in decoding order."""

    index: int
    keys: np.ndarray  # i64 [n] presentation timestamp, or rank in presentation where there are none
    times: np.ndarray  # f64 [n] seconds on the clip's clock
    keyframe: np.ndarray  # bool [n]
    timed: bool
    """False where packets have no presentation timestamps (AVI); frames are then counted."""
    end: float


@dataclasses.dataclass(frozen=True)
class SoundTrack:
    """Where a sound stream lies."""

    index: int
    end: float


@dataclasses.dataclass(frozen=True)
class MediaInfo:
    """One file; 0 seconds is where its first stream begins, for sound and video alike."""

    path: str
    zero: float
    duration: float
    exact: bool
    video: VideoTrack | None
    sound: SoundTrack | None


@contextlib.contextmanager
def open_media(path: str) -> Iterator[av.container.InputContainer]:
    """Opens a regular file as media; raises MediaError on anything that is none."""
    try:
        mode = os.stat(path)
        if not stat.S_ISREG(mode.st_mode):
            raise MediaError("not a regular file")
        if mode.st_size == 0:
            raise MediaError("empty file")
        container = av.open("file:" + os.path.abspath(path), options=OPTIONS, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise MediaError(_told(error)) from error
    with container:
        try:
            yield container
        except av.FFmpegError as error:
            raise MediaError(_told(error)) from error


def _told(error: Exception) -> str:
    if isinstance(error, (av.error.InvalidDataError, av.error.ArgumentError)):
        return "not media, or damaged beyond reading"
    return (getattr(error, "strerror", None) or str(error)).lower()


def probe(path: str) -> MediaInfo:
    """Reads the packets' timestamps, decoding nothing, since headers can't be trusted.

    Raises MediaError when the file is not there, empty, not media, or ends before its header says.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise MediaError(_told(error)) from error
    return _probe(path, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=4)  # windows of one long file are probed once
def _probe(path: str, size: int, mtime: int) -> MediaInfo:
    with open_media(path) as container:
        streams = {kind: _first(container, kind) for kind in ("video", "audio")}
        used = {stream.index: _Packets() for stream in streams.values() if stream is not None}
        if not used:
            raise MediaError("has neither sound nor video")
        _scan(container, used)
        exact = container.format.name.startswith(EXACT)
        if container.format.name == "avi":  # it stores the order of decoding; FFmpeg guesses the rest
            for packets in used.values():
                packets.timed = False
        zero = min((p.first(container.streams[i].time_base) for i, p in used.items() if p.size), default=0.0)
        zero = max(zero, (container.start_time or 0) / av.time_base)  # priming samples lie before the start
        video = _video(streams["video"], used, zero)
        sound = _sound(streams["audio"], used, zero)
        duration = max((track.end for track in (video, sound) if track is not None), default=0.0)
        declared = (container.duration or 0) / av.time_base
        if exact and duration < declared - SLACK:
            raise MediaError(f"truncated: {duration:.2f} s of the {declared:.2f} s in its header are there")
        if duration <= 0:
            raise MediaError("holds no sound and no frame")
        return MediaInfo(path, zero, duration, exact, video, sound)


class _Packets:
    """Timestamps of one stream's packets."""

    def __init__(self):
        self.pts, self.ends, self.keyframe = array.array("q"), array.array("q"), array.array("b")
        self.timed = True

    @property
    def size(self) -> int:
        return len(self.pts)

    def add(self, packet: av.Packet) -> None:
        self.timed &= packet.pts is not None
        pts = packet.pts if packet.pts is not None else packet.dts
        if pts is None:
            pts = self.ends[-1] if self.size else 0
        self.pts.append(pts)
        self.ends.append(pts + (packet.duration or 0))
        self.keyframe.append(packet.is_keyframe)

    def first(self, time_base) -> float:
        return float(min(self.pts) * time_base)


def _first(container, kind: str):
    for stream in getattr(container.streams, kind):
        if not stream.disposition & av.stream.Disposition.attached_pic and stream.codec_context is not None:
            return stream
    return None


def _scan(container, used: dict[int, _Packets]) -> None:
    try:
        for packet in container.demux([container.streams[index] for index in used]):
            if packet.size:
                used[packet.stream.index].add(packet)
    except av.FFmpegError:
        return  # what came before is there; `probe` compares it with the header


def _video(stream, used: dict[int, _Packets], zero: float) -> VideoTrack | None:
    if stream is None or not used[stream.index].size:
        return None
    if stream.width * stream.height > MAX_PIXELS:
        raise MediaError(f"frames of {stream.width} x {stream.height} pixels: at most {MAX_PIXELS} are read")
    packets, base = used[stream.index], float(stream.time_base)
    pts = np.array(packets.pts, np.int64)
    keys = pts if packets.timed else np.argsort(np.argsort(pts, kind="stable"), kind="stable")
    return VideoTrack(
        index=stream.index,
        keys=keys,
        times=pts * base - zero,
        keyframe=np.array(packets.keyframe, bool),
        timed=packets.timed,
        end=max(packets.ends) * base - zero,
    )


def _sound(stream, used: dict[int, _Packets], zero: float) -> SoundTrack | None:
    if stream is None or not used[stream.index].size:
        return None
    end = float(max(used[stream.index].ends) * stream.time_base) - zero
    return SoundTrack(stream.index, end)
