"""Reads the video frames at certain times, decoding as few packets and storing as few frames as possible."""

import math
from collections.abc import Iterator

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import Bool, Float, Int, UInt8

from data_prep.media.probe import MediaError, MediaInfo, VideoTrack, find_stream, open_media

MAX_SHORT_SIDE = 1080
"""Largest shorter side in pixels; larger frames are reduced, because 16 frames of 8K would take 1.6 GB."""
MAX_TOTAL_PIXELS = 96 << 20
"""Largest number of pixels of all frames, 302 MB: 96 frames of 1 Mpx fit, larger ones are reduced."""
MIN_SEEK_SECONDS = 10.0
"""Time in the file, in seconds, from which seeking is faster than reading from the beginning."""
FRAME_SKIPPING_DECODERS = ("h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4")
"""Decoders that can skip, for each packet, a frame that no other frame refers to."""


def read_frames(
    info: MediaInfo, times: Float[np.ndarray, " s"]
) -> tuple[UInt8[np.ndarray, "s h w 3"], Float[np.ndarray, " s"], float]:
    """Reads the frames that are on screen at certain times.

    If a frame can't be decoded, the decoded frame with the nearest time replaces it. If a stream changes
    its size, later frames are resized to the size of the first.

    Args:
      info: the probed file, which has a video stream.
      times: s times in seconds of the file, at least one.

    Returns:
      A tuple: the s frames, RGB and upright, of height h and width w; the s times at which
      these frames begin, in seconds of the file; and their scale, by which coordinates in a frame are divided
      to get source pixels. The scale is 1, or below 1 if the shorter side is above 1080 pixels or all frames
      have more than 96 * 2**20 pixels in all.

    Raises:
      MediaError: the file has no video stream, has changed since it was probed or can't be read, its index of
        key frames is wrong, no frame can be decoded, or frames can't be converted to RGB.
      ValueError: `times` is empty.
    """
    track = info.require_video()
    wanted_packets = find_shown_packets(track, times)
    frames: UInt8[np.ndarray, "s h w 3"] | None = None
    decoded_packets: list[int] = []
    scale = 1.0
    reformatter = VideoReformatter()  # one for all frames: creating it is slower than using it
    for index, frame in _decode_frames(info, set(wanted_packets.tolist())):
        image, image_scale = _to_image(
            frame, reformatter, len(wanted_packets), None if frames is None else frames[0]
        )
        if frames is None:
            frames, scale = np.zeros((len(wanted_packets), *image.shape), np.uint8), image_scale
        frames[wanted_packets == index] = image
        decoded_packets.append(index)
    if frames is None:
        raise MediaError("video: no frame could be decoded, expected an intact file; encode it again")
    decoded_by_time = np.array(sorted(decoded_packets, key=lambda index: track.times[index]))
    nearest_packets = np.array(
        [
            decoded_by_time[np.argmin(np.abs(track.times[decoded_by_time] - track.times[packet_index]))]
            for packet_index in wanted_packets
        ]
    )
    for i in np.flatnonzero(nearest_packets != wanted_packets):  # frames that could not be decoded
        frames[i] = frames[np.argmax(wanted_packets == nearest_packets[i])]
    return frames, track.times[nearest_packets], scale


def find_shown_packets(track: VideoTrack, times: Float[np.ndarray, " s"]) -> Int[np.ndarray, " s"]:
    """Returns the packet index, in decoding order, of the frame that is on screen at each of s times.

    `times` are seconds of the file; indices count from 0. Before the first frame, this is the first frame.
    """
    order = np.argsort(track.times, kind="stable")
    rank = np.searchsorted(track.times[order], np.asarray(times) + 1e-6, side="right") - 1
    return order[np.maximum(rank, 0)]


def find_needed_packets(track: VideoTrack, wanted_packets: set[int]) -> Bool[np.ndarray, " n"]:
    """Returns a mask of the packets to decode for the wanted frames, True or False for each of the n packets.

    `wanted_packets` are indices of packets in decoding order. For each, the packets from the last key frame
    at or before it (from the first packet if there is none) up to itself are needed. If the stream has no
    timestamps, all n packets are.
    """
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
    track = info.require_video()
    index_of = dict(zip(track.frame_keys.tolist(), range(len(track.frame_keys)), strict=True))
    is_needed, last_wanted, missing_packets, num_decoded = (
        find_needed_packets(track, wanted_packets),
        max(wanted_packets),
        set(wanted_packets),
        0,
    )
    with open_media(info.path) as container:
        stream = find_stream(container, track.index, VideoStream)
        context = stream.codec_context
        context.thread_count = 1  # different clips are decoded in parallel instead
        for index, packet in _demux_packets(container, stream, info, index_of, int(np.argmax(is_needed))):
            if packet is not None and index <= last_wanted and not is_needed[index]:
                continue
            # frames that no other frame refers to and that are not wanted are parsed, but not reconstructed
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


def _demux_packets(
    container: av.container.InputContainer,
    stream: VideoStream,
    info: MediaInfo,
    index_of: dict[int, int],
    first_index: int,
) -> Iterator[tuple[int, "av.Packet[VideoStream] | None"]]:
    """Yields (index, packet) in decoding order, from `first_index` or an earlier packet to the last.

    The last pair is (number of packets, None), which makes the decoder return its remaining frames.
    `index_of` has the index of each packet by its presentation timestamp. Raises MediaError if `info` has no
    video stream or the index of key frames in the file is wrong, av.FFmpegError if the file can't be read.
    """
    track = info.require_video()
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
            index = (0 if packet.pts is None else index_of.get(packet.pts, 0)) - 1
            if index >= first_index:
                raise MediaError(
                    "video: the file's index of key frames is wrong; copy it with ffmpeg -i IN -c copy OUT"
                )
        index += 1
        yield index, packet
    yield len(track.times), None


def _decode_packet(
    context: VideoCodecContext, packet: "av.Packet[VideoStream] | None"
) -> list[av.VideoFrame]:
    try:
        return context.decode(packet)
    except av.error.EOFError:
        return []
    except av.error.InvalidDataError:
        return []  # a damaged packet; `read_frames` uses the nearest decoded frame


def _to_image(
    frame: av.VideoFrame, reformatter: VideoReformatter, num_frames: int, reference_image: np.ndarray | None
) -> tuple[np.ndarray, float]:
    """Converts one of `num_frames` frames to an upright RGB image.

    Returns the image, uint8 [h w 3], and its scale, the factor from source pixels to image pixels. The scale
    is 1, or below 1 if the shorter side is above 1080 pixels or `num_frames` such frames have more than 96 *
    2**20 pixels. If there is a `reference_image`, the image has its size instead, which the scale does not
    consider. Raises MediaError if the pixel format can't be converted to RGB.
    """
    memory_scale = math.sqrt(MAX_TOTAL_PIXELS / (num_frames * frame.width * frame.height))
    scale = min(1.0, MAX_SHORT_SIDE / min(frame.width, frame.height), memory_scale)
    quarter_turns = round(frame.rotation / 90) % 4
    height, width = max(1, round(frame.height * scale)), max(1, round(frame.width * scale))
    if reference_image is not None:  # a stream may change its size; all images get the size of the first
        height, width = reference_image.shape[1::-1] if quarter_turns % 2 else reference_image.shape[:2]
    try:
        image = reformatter.reformat(frame, width, height, "rgb24", threads=1).to_ndarray()
    except av.FFmpegError as error:
        raise MediaError(
            f"video: pixel format {frame.format.name} can't be converted to RGB; encode it as yuv420p"
        ) from error
    return np.ascontiguousarray(np.rot90(image, quarter_turns)), scale
