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
MAX_TOTAL_PIXELS = 96 << 20
"""Pixels of all frames together, 302 MB: 96 frames of up to 1 Mpx stay whole, larger ones shrink."""
MIN_SEEK_SECONDS = 10.0
"""Seconds into the file from which seeking beats reading."""
FRAME_SKIPPING_DECODERS = ("h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4")
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
    wanted_packets = find_shown_packets(track, times)
    frames, decoded_packets, scale = None, [], 1.0
    reformatter = VideoReformatter()  # one for all: setting it up costs more than its use
    for index, frame in _decode_frames(info, set(wanted_packets.tolist())):
        image, image_scale = _to_image(
            frame, reformatter, len(wanted_packets), None if frames is None else frames[0]
        )
        if frames is None:
            frames, scale = np.zeros((len(wanted_packets), *image.shape), np.uint8), image_scale
        frames[wanted_packets == index] = image
        decoded_packets.append(index)
    if frames is None:
        raise MediaError("video: no frame could be decoded")
    decoded_by_time = np.array(sorted(decoded_packets, key=lambda index: track.times[index]))
    nearest_packets = np.array(
        [
            decoded_by_time[np.argmin(np.abs(track.times[decoded_by_time] - track.times[packet_index]))]
            for packet_index in wanted_packets
        ]
    )
    for i in np.flatnonzero(nearest_packets != wanted_packets):  # those that could not be decoded
        frames[i] = frames[np.argmax(wanted_packets == nearest_packets[i])]
    return frames, track.times[nearest_packets], scale


def find_shown_packets(track: VideoTrack, times: Float[np.ndarray, " s"]) -> Int[np.ndarray, " s"]:
    """Packet (in decoding order) of the frame on screen at each time: the last one not after it."""
    order = np.argsort(track.times, kind="stable")
    rank = np.searchsorted(track.times[order], np.asarray(times) + 1e-6, side="right") - 1
    return order[np.maximum(rank, 0)]


def find_needed_packets(track: VideoTrack, wanted_packets: set[int]) -> Bool[np.ndarray, " n"]:
    """Packets to decode: from the last key frame that a wanted frame can lean on, up to that frame."""
    if not track.has_timestamps:
        return np.ones(len(track.times), bool)
    is_needed = np.zeros(len(track.times), bool)
    for index in wanted_packets:
        key_frames = np.flatnonzero(
            track.is_keyframe[: index + 1] & (track.times[: index + 1] <= track.times[index])
        )
        is_needed[key_frames[-1] if len(key_frames) else 0 : index + 1] = True
    return is_needed


def _decode_frames(info: MediaInfo, wanted_packets: set[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    track = info.video
    index_of = dict(zip(track.frame_keys.tolist(), range(len(track.frame_keys)), strict=True))
    is_needed, last_wanted, missing_packets, num_decoded = (
        find_needed_packets(track, wanted_packets),
        max(wanted_packets),
        set(wanted_packets),
        0,
    )
    with open_media(info.path) as container:
        context = container.streams[track.index].codec_context
        context.thread_count = 1  # the work is spread over clips, not over one clip's frames
        for index, packet in _demux_packets(container, info, index_of, int(np.argmax(is_needed))):
            if packet is not None and index <= last_wanted and not is_needed[index]:
                continue
            # frames that nothing leans on and nobody wants are parsed, not reconstructed
            should_skip = (
                track.has_timestamps
                and context.name in FRAME_SKIPPING_DECODERS
                and index not in missing_packets
            )
            context.skip_frame = "NONREF" if should_skip else "DEFAULT"
            for frame in _decode_packet(context, packet):
                frame_key = frame.pts if track.has_timestamps else num_decoded
                num_decoded += 1
                packet_index = index_of.get(frame_key)
                if packet_index in missing_packets:
                    missing_packets.discard(packet_index)
                    yield packet_index, frame
            if not missing_packets:
                return


def _demux_packets(container, info: MediaInfo, index_of: dict[int, int], first_index: int):
    """(index, packet) in decoding order from `first_index` or before; at the end None, to drain the
    decoder."""
    track = info.video
    stream = container.streams[track.index]
    should_seek = (
        info.has_reliable_timestamps and track.has_timestamps and track.times[first_index] > MIN_SEEK_SECONDS
    )
    if should_seek:
        container.seek(int(track.frame_keys[first_index]), stream=stream)
    index = -1
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if should_seek and index < 0:
            index = index_of.get(packet.pts, 0) - 1
            if index >= first_index:
                raise MediaError("video: its index of key frames is wrong")
        index += 1
        yield index, packet
    yield len(track.times), None


def _decode_packet(context, packet: av.Packet | None) -> list[av.VideoFrame]:
    try:
        return context.decode(packet)
    except av.error.EOFError:
        return []
    except av.error.InvalidDataError:
        return []  # a damaged packet; `read_frames` takes the nearest frame that there is


def _to_image(
    frame: av.VideoFrame, reformatter, num_frames: int, reference_image: np.ndarray | None
) -> tuple[np.ndarray, float]:
    """One of `num_frames` frames as an upright picture, of the size of `reference_image`, and its scale."""
    memory_scale = math.sqrt(MAX_TOTAL_PIXELS / (num_frames * frame.width * frame.height))
    scale = min(1.0, MAX_SHORT_SIDE / min(frame.width, frame.height), memory_scale)
    quarter_turns = round(frame.rotation / 90) % 4
    height, width = max(1, round(frame.height * scale)), max(1, round(frame.width * scale))
    if reference_image is not None:  # a stream may change its size midway; the first frame's holds
        height, width = reference_image.shape[1::-1] if quarter_turns % 2 else reference_image.shape[:2]
    try:
        image = reformatter.reformat(frame, width, height, "rgb24", threads=1).to_ndarray()
    except av.FFmpegError as error:
        raise MediaError(f"video: frames in {frame.format.name}, which has no way to RGB") from error
    return np.ascontiguousarray(np.rot90(image, quarter_turns)), scale
