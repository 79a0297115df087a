"""Tiny media files of known content, written with PyAV."""

import wave
from fractions import Fraction

import av
import numpy as np

RATE = 44_100
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def tone(seconds, frequency=440.0, rate=RATE, silent_until=0.0):
    """A sine of amplitude 0.3 that begins at `silent_until`."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * frequency * t) * (t >= silent_until)).astype(np.float32)


def ramp(seconds, fps=25, size=(64, 64)):
    """Frames whose grey value is twice their number: a frame tells its time."""
    for i in range(round(seconds * fps)):
        yield np.full((size[1], size[0], 3), (2 * i) % 256, np.uint8)


def write(
    path,
    *,
    frames=None,
    sound=None,
    fps=25,
    codec=None,
    sound_codec=None,
    options=None,
    rate=RATE,
    video_start=0.0,
    sound_start=0.0,
):
    """Writes RGB frames and sound [n], in stereo, or [channels n]; a start delays one against the other."""
    path = str(path)
    with av.open(path, "w") as container:
        video = audio = None
        frames = iter(frames) if frames is not None else None
        if frames is not None:
            first = next(frames)
            video = container.add_stream(codec or "libx264", rate=fps, options=options or {})
            video.height, video.width = first.shape[:2]
            video.pix_fmt = "yuv420p"
        if sound is not None:
            sound = np.stack([sound] * 2) if sound.ndim == 1 else sound
            sound_codec = sound_codec or ("aac" if frames is not None else "flac")
            audio = container.add_stream(sound_codec, rate=rate, layout=LAYOUTS[len(sound)])
        if video is not None:
            _write_video(container, video, first, frames, round(video_start * fps), fps)
        if audio is not None:
            _write_sound(container, audio, sound, rate, round(sound_start * rate))


def _write_video(container, stream, first, rest, offset, fps):
    number = offset
    for image in (first, *rest):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, fps)
        container.mux(stream.encode(frame))
        number += 1
    container.mux(stream.encode(None))


def _write_sound(container, stream, sound, rate, offset):
    layout = LAYOUTS[len(sound)]
    for start in range(0, sound.shape[1], rate):
        part = np.ascontiguousarray(sound[:, start : start + rate])
        if stream.codec_context.name == "flac":
            packed = np.ascontiguousarray((part * 32767).astype(np.int16).T.reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        else:
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, offset + start, Fraction(1, rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def copy_packets(source, target, change=None, times=1):
    """The packets of a file in another, `times` in a row; `change` alters one, or drops it by giving None."""
    with av.open(str(target), "w") as output:
        streams = None
        for turn in range(times):
            with av.open(str(source)) as container:
                streams = streams or [output.add_stream_from_template(s) for s in container.streams]
                length = container.duration / av.time_base
                for packet in container.demux():
                    if not packet.size or (change is not None and change(packet) is None):
                        continue
                    shift = round(turn * length / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = streams[packet.stream.index]
                    output.mux(packet)


def write_wav(path, sound, rate=16_000):
    """16-bit mono."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((sound * 32767).astype("<i2").tobytes())
