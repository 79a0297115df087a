"""Tiny media files of known content, written with PyAV."""

import wave
from fractions import Fraction

import av
import numpy as np

SAMPLE_RATE = 44_100
CHANNEL_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def tone(seconds, frequency=440.0, rate=SAMPLE_RATE, silent_until=0.0):
    """A sine of amplitude 0.3 that begins at `silent_until`."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * frequency * t) * (t >= silent_until)).astype(np.float32)


def ramp_frames(seconds, fps=25, size=(64, 64)):
    """Frames whose grey value is twice their number: a frame tells its time."""
    for i in range(round(seconds * fps)):
        yield np.full((size[1], size[0], 3), (2 * i) % 256, np.uint8)


def write_media(
    path,
    *,
    frames=None,
    audio=None,
    fps=25,
    video_codec=None,
    audio_codec=None,
    options=None,
    rate=SAMPLE_RATE,
    video_start=0.0,
    audio_start=0.0,
):
    """Writes RGB frames and sound [n], in stereo, or [channels n]; a start delays one against the other."""
    path = str(path)
    with av.open(path, "w") as container:
        video_stream = audio_stream = None
        frames = iter(frames) if frames is not None else None
        if frames is not None:
            first_frame = next(frames)
            video_stream = container.add_stream(video_codec or "libx264", rate=fps, options=options or {})
            video_stream.height, video_stream.width = first_frame.shape[:2]
            video_stream.pix_fmt = "yuv420p"
        if audio is not None:
            audio = np.stack([audio] * 2) if audio.ndim == 1 else audio
            audio_codec = audio_codec or ("aac" if frames is not None else "flac")
            audio_stream = container.add_stream(audio_codec, rate=rate, layout=CHANNEL_LAYOUTS[len(audio)])
        if video_stream is not None:
            _write_video(container, video_stream, first_frame, frames, round(video_start * fps), fps)
        if audio_stream is not None:
            _write_audio(container, audio_stream, audio, rate, round(audio_start * rate))


def _write_video(container, stream, first_frame, other_frames, offset, fps):
    pts = offset
    for image in (first_frame, *other_frames):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = pts, Fraction(1, fps)
        container.mux(stream.encode(frame))
        pts += 1
    container.mux(stream.encode(None))


def _write_audio(container, stream, audio, rate, offset):
    layout = CHANNEL_LAYOUTS[len(audio)]
    for start in range(0, audio.shape[1], rate):
        block = np.ascontiguousarray(audio[:, start : start + rate])
        if stream.codec_context.name == "flac":
            packed = np.ascontiguousarray((block * 32767).astype(np.int16).T.reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        else:
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, offset + start, Fraction(1, rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def copy_packets(source, target, edit_packet=None, repeats=1):
    """The packets of a file in another, `repeats` in a row; `edit_packet` alters one, or drops it by giving
    None."""
    with av.open(str(target), "w") as output:
        streams = None
        for repeat in range(repeats):
            with av.open(str(source)) as container:
                streams = streams or [output.add_stream_from_template(s) for s in container.streams]
                length = container.duration / av.time_base
                for packet in container.demux():
                    if not packet.size or (edit_packet is not None and edit_packet(packet) is None):
                        continue
                    shift = round(repeat * length / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = streams[packet.stream.index]
                    output.mux(packet)


def write_wav(path, audio, rate=16_000):
    """16-bit mono."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((audio * 32767).astype("<i2").tobytes())
