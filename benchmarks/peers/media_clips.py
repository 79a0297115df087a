"""Makes clips of a fixed length and height from other clips, and decodes clips without converting them."""

import os
from fractions import Fraction

import av


def write_looped_clip(source, target, *, seconds=None, height=None):
    """Writes `source` to `target` as H.264 (x264's defaults) and AAC, scaled and looped.

    `height` is in pixels, `seconds` is the duration; None: as in the source.
    """
    with av.open(source) as container:
        stream = container.streams.video[0]
        rate, height = round(stream.average_rate), height or stream.height
        size = {"width": 2 * round(stream.width * height / stream.height / 2), "height": height // 2 * 2}
        frames = [frame.reformat(**size, format="yuv420p") for frame in container.decode(video=0)]
    with av.open(source) as container:
        audio_frames = list(container.decode(audio=0))
    seconds = seconds or len(frames) / rate
    partial = f"{target}.part"
    with av.open(partial, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=rate, **size, pix_fmt="yuv420p")
        audio = container.add_stream(
            "aac", rate=audio_frames[0].sample_rate, layout=audio_frames[0].layout.name
        )
        for frame_index in range(round(seconds * rate)):
            frame = frames[frame_index % len(frames)]
            frame.pts, frame.time_base, frame.pict_type = frame_index, Fraction(1, rate), 0
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        sample_index, frame_index = 0, 0
        while sample_index < seconds * audio_frames[0].sample_rate:
            audio_frame = audio_frames[frame_index % len(audio_frames)]
            audio_frame.pts, audio_frame.time_base = sample_index, Fraction(1, audio_frame.sample_rate)
            container.mux(audio.encode(audio_frame))
            sample_index, frame_index = sample_index + audio_frame.samples, frame_index + 1
        container.mux(audio.encode(None))
    os.replace(partial, target)


def decode_clip(path):
    """Decodes all video and audio with PyAV on one thread without converting; returns the frame count."""
    with av.open(path) as container:
        for stream in container.streams:
            stream.codec_context.thread_count = 1
        return sum(isinstance(frame, av.VideoFrame) for frame in container.decode())
