"""Video frames at asked times: as few packets are decoded, and as few frames kept, as will do."""

import math
from collections.abc import Iterator

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import Bool, Float, Int, UInt8

from data_prep.media.probe import MediaError, MediaInfo, VideoTrack, open_media

MAX_SHORT_SIDE = 1080
"""Larger frames are halved, or more, on decoding: 16 frames of 8K would take 1.6 GB."""
MAX_PIXELS_HELD = 96 << 20
"""Pixels of all frames together, 302 MB: 96 frames of up to 1 Mpx stay whole, larger ones shrink."""
FAR = 10.0
"""Seconds into the file from which seeking beats reading."""
SKIPPING = ("h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4")
"""Decoders that can be told for each packet to skip a frame that no other leans on."""


def read_frames(
    info: MediaInfo, times: Float[np.ndarray, " s"]
) -> tuple[UInt8[np.ndarray, "s h w 3"], Float[np.ndarray, " s"], float]:
    """The frames on screen at `times` (seconds), RGB and upright; their own times; and their scale.

    Pixels of the first source frame are pixels of the returned frame divided by the scale (1 for up to 1080
    lines and 96 Mpx in all); where a stream changes its size, later frames are resized like the first.
    A frame stands twice where two times fall on it. Raises MediaError when a frame can't be decoded.
    """
    track = info.video
    slots = shown_at(track, times)
    frames, found, scale = None, [], 1.0
    reformatter = VideoReformatter()  # one for all: setting it up costs more than its use
    for index, frame in _decoded(info, set(slots.tolist())):
        image, its = _image(frame, reformatter, len(slots), None if frames is None else frames[0])
        if frames is None:
            frames, scale = np.zeros((len(slots), *image.shape), np.uint8), its
        frames[slots == index] = image
        found.append(index)
    if frames is None:
        raise MediaError("video: no frame could be decoded")
    order = np.array(sorted(found, key=lambda index: track.times[index]))
    nearest = np.array([order[np.argmin(np.abs(track.times[order] - track.times[slot]))] for slot in slots])
    for i in np.flatnonzero(nearest != slots):  # those that could not be decoded
        frames[i] = frames[np.argmax(slots == nearest[i])]
    return frames, track.times[nearest], scale


def shown_at(track: VideoTrack, times: Float[np.ndarray, " s"]) -> Int[np.ndarray, " s"]:
    """Packet (in decoding order) of the frame on screen at each time: the last one not after it."""
    order = np.argsort(track.times, kind="stable")
    rank = np.searchsorted(track.times[order], np.asarray(times) + 1e-6, side="right") - 1
    return order[np.maximum(rank, 0)]


def needed(track: VideoTrack, wanted: set[int]) -> Bool[np.ndarray, " n"]:
    """Packets to decode: from the last key frame that a wanted frame can lean on, up to that frame."""
    if not track.timed:
        return np.ones(len(track.times), bool)
    mask = np.zeros(len(track.times), bool)
    for index in wanted:
        keys = np.flatnonzero(track.keyframe[: index + 1] & (track.times[: index + 1] <= track.times[index]))
        mask[keys[-1] if len(keys) else 0 : index + 1] = True
    return mask


def _decoded(info: MediaInfo, wanted: set[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    track = info.video
    index_of = dict(zip(track.keys.tolist(), range(len(track.keys)), strict=True))
    decode, last, missing, counted = needed(track, wanted), max(wanted), set(wanted), 0
    with open_media(info.path) as container:
        context = container.streams[track.index].codec_context
        context.thread_count = 1  # the work is spread over clips, not over one clip's frames
        for index, packet in _packets(container, info, index_of, int(np.argmax(decode))):
            if packet is not None and index <= last and not decode[index]:
                continue
            # frames that nothing leans on and nobody wants are parsed, not reconstructed
            skip = track.timed and context.name in SKIPPING and index not in missing
            context.skip_frame = "NONREF" if skip else "DEFAULT"
            for frame in _frames(context, packet):
                key = frame.pts if track.timed else counted
                counted += 1
                here = index_of.get(key)
                if here in missing:
                    missing.discard(here)
                    yield here, frame
            if not missing:
                return


def _packets(container, info: MediaInfo, index_of: dict[int, int], first: int):
    """(index, packet) in decoding order from `first` or before; at the end None, to drain the decoder."""
    track = info.video
    stream = container.streams[track.index]
    seek = info.exact and track.timed and track.times[first] > FAR
    if seek:
        container.seek(int(track.keys[first]), stream=stream)
    index = -1
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if seek and index < 0:
            index = index_of.get(packet.pts, 0) - 1
            if index >= first:
                raise MediaError("video: its index of key frames is wrong")
        index += 1
        yield index, packet
    yield len(track.times), None


def _frames(context, packet: av.Packet | None) -> list[av.VideoFrame]:
    try:
        return context.decode(packet)
    except av.error.EOFError:
        return []
    except av.error.InvalidDataError:
        return []  # a damaged packet; `read_frames` takes the nearest frame that there is


def _image(
    frame: av.VideoFrame, reformatter, count: int, like: np.ndarray | None
) -> tuple[np.ndarray, float]:
    """One of `count` frames as an upright picture, of the size of `like`, and its scale."""
    held = math.sqrt(MAX_PIXELS_HELD / (count * frame.width * frame.height))
    scale = min(1.0, MAX_SHORT_SIDE / min(frame.width, frame.height), held)
    turns = round(frame.rotation / 90) % 4
    height, width = max(1, round(frame.height * scale)), max(1, round(frame.width * scale))
    if like is not None:  # a stream may change its size midway; the first frame's holds
        height, width = like.shape[1::-1] if turns % 2 else like.shape[:2]
    try:
        image = reformatter.reformat(frame, width, height, "rgb24", threads=1).to_ndarray()
    except av.FFmpegError as error:
        raise MediaError(f"video: frames in {frame.format.name}, which has no way to RGB") from error
    return np.ascontiguousarray(np.rot90(image, turns)), scale
