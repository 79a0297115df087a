"""Decoding: the right frames and samples on one clock, and one line for what is no media."""

import contextlib
import os
import struct

import av
import numpy as np
import pytest

from data_prep.media.audio_track import read_audio_blocks
from data_prep.media.frames import find_needed_packets, find_shown_packets, read_frames
from data_prep.media.probe import MediaError, probe_media
from tests.support.media_files import SAMPLE_RATE, ramp_frames, tone, write_media, write_wav


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A film of 4 s with sound, as mp4, mkv and AVI without presentation timestamps, and a long one."""
    path = tmp_path_factory.mktemp("media")
    for name, video_codec, options in (
        ("film.mp4", None, {"g": "40", "bf": "3"}),
        ("film.mkv", None, {}),
        ("film.mpg", "mpeg1video", {"bf": "2"}),
    ):
        audio = tone(4.0, silent_until=1.0) if name != "film.mpg" else None
        write_media(
            path / name, frames=ramp_frames(4.0), audio=audio, video_codec=video_codec, options=options
        )
    write_media(path / "film.avi", frames=ramp_frames(4.0), options={"x264-params": "b-adapt=0:bframes=2"})
    write_media(
        path / "late.mp4", frames=ramp_frames(3.0), audio=tone(4.0, silent_until=1.0), video_start=1.0
    )
    write_media(
        path / "long.mp4", frames=ramp_frames(15.0), audio=tone(15.0, silent_until=13.0), options={"g": "25"}
    )
    return path


def decode_all_frames(info):
    """Every frame by plain decoding, as (seconds, RGB)."""
    with av.open(info.path) as container:
        stream = container.streams.video[0]
        frames = [(f.pts, f.to_ndarray(format="rgb24")) for f in container.decode(stream)]
        time_base = float(stream.time_base)
    frames.sort(key=lambda pair: pair[0])
    return [(pts * time_base - info.start_time, image) for pts, image in frames]


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.mpg", "late.mp4", "long.mp4"])
def test_frames_are_those_of_plain_decoding(folder, name):
    info = probe_media(str(folder / name))
    decoded_frames = decode_all_frames(info)
    times = np.array([0.0, 0.33, 0.35, 1.21, 2.5, 3.19, 3.21, info.duration + 1])
    frames, shown_times, scale = read_frames(info, times)
    for time, frame, shown_time in zip(times, frames, shown_times, strict=True):
        earlier_frames = [pair for pair in decoded_frames if pair[0] <= time + 1e-6] or decoded_frames[:1]
        assert shown_time == pytest.approx(earlier_frames[-1][0], abs=1e-6)
        np.testing.assert_array_equal(frame, earlier_frames[-1][1])
    assert scale == 1.0


def test_frames_without_presentation_timestamps_are_counted(folder):
    info = probe_media(str(folder / "film.avi"))
    assert not info.video.has_timestamps
    frames, _, _ = read_frames(info, np.array([0.02, 2.02, 3.9]))
    np.testing.assert_allclose(frames.mean((1, 2, 3)), [0, 100, 194], atol=1.5)


def test_only_what_is_needed_is_decoded(folder):
    info = probe_media(str(folder / "long.mp4"))
    mask = find_needed_packets(
        info.video, set(find_shown_packets(info.video, np.array([1.1, 12.1])).tolist())
    )
    assert 2 <= mask.sum() <= 20  # of 375: from a key frame a second to the frame itself
    frames, shown_times, _ = read_frames(info, np.array([12.1, 12.5]))  # far in: reached by seeking
    decoded_frames = dict(decode_all_frames(info))
    for frame, shown_time in zip(frames, shown_times, strict=True):
        nearest_time = min(decoded_frames, key=lambda time: abs(time - shown_time))
        np.testing.assert_array_equal(frame, decoded_frames[nearest_time])


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "late.mp4"])
def test_sound_and_frames_share_a_clock(folder, name):
    """The tone begins at second 1; there the grey value is 50, or 0 in the film that begins late."""
    info = probe_media(str(folder / name))
    audio = np.concatenate(list(read_audio_blocks(info, 0.8, 1.8, 16_000)))
    assert abs(len(audio) - 16_000) <= 2
    onset = np.flatnonzero(np.abs(audio) > 0.05)[0] / 16_000
    assert onset == pytest.approx(0.2, abs=0.03)
    frames, shown_times, _ = read_frames(info, np.array([1.01, 2.01]))
    assert shown_times == pytest.approx([1.0, 2.0], abs=0.01)
    expected = [0, 50] if name == "late.mp4" else [50, 100]
    np.testing.assert_allclose(frames.mean((1, 2, 3)), expected, atol=4)


def test_sound_far_into_a_file(folder):
    audio = np.concatenate(list(read_audio_blocks(probe_media(str(folder / "long.mp4")), 12.5, 14.0, 16_000)))
    assert abs(len(audio) - 24_000) <= 2
    assert np.flatnonzero(np.abs(audio) > 0.05)[0] / 16_000 == pytest.approx(0.5, abs=0.03)


def test_sound_keeps_its_level_and_length(tmp_path):
    """Two equal channels average to themselves, where swresample's mix would be sqrt(2) louder."""
    write_media(tmp_path / "tone.flac", audio=tone(2.0))
    audio = np.concatenate(
        list(read_audio_blocks(probe_media(str(tmp_path / "tone.flac")), 0.0, 2.0, 16_000))
    )
    assert len(audio) == 32_000
    expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
    np.testing.assert_allclose(audio[200:-200], expected[200:-200], atol=2e-3)


def test_cover_art_is_no_video(tmp_path):
    write_wav(tmp_path / "tone.wav", tone(1.0, rate=16_000))
    info = probe_media(str(tmp_path / "tone.wav"))
    assert info.video is None
    assert info.duration == pytest.approx(1.0)


def test_turned_film_comes_upright(tmp_path):
    """A telephone writes frames on their side, and a matrix that says so."""
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, :32] = 255  # white at the left
    write_media(tmp_path / "side.mp4", frames=[image] * 10)
    data = (tmp_path / "side.mp4").read_bytes()
    unit, w = 1 << 16, 1 << 30
    identity_matrix = struct.pack(">9i", unit, 0, 0, 0, unit, 0, 0, 0, w)
    rotation_matrix = struct.pack(">9i", 0, unit, 0, -unit, 0, 0, 64 * unit, 0, w)  # clockwise
    header_start = data.index(b"tkhd")
    rotated_data = data[:header_start] + data[header_start:].replace(identity_matrix, rotation_matrix, 1)
    assert rotated_data != data
    (tmp_path / "turned.mp4").write_bytes(rotated_data)
    frames, _, _ = read_frames(probe_media(str(tmp_path / "turned.mp4")), np.array([0.1]))
    assert frames.shape[1:] == (96, 64, 3)
    assert frames[0, :28].mean() > 200  # what was left is now on top
    assert frames[0, 36:].mean() < 50


def test_large_frames_are_reduced(tmp_path):
    write_media(tmp_path / "large.mp4", frames=[np.full((1440, 2560, 3), 90, np.uint8)] * 2)
    frames, _, scale = read_frames(probe_media(str(tmp_path / "large.mp4")), np.array([0.0]))
    assert frames.shape == (1, 1080, 1920, 3)
    assert scale == pytest.approx(0.75)


def test_the_scale_is_that_of_the_first_frame_where_the_size_changes(tmp_path):
    """A transport stream takes two films one after the other: 64 lines, then 2160."""
    path = tmp_path / "both.ts"
    with open(path, "wb") as file:
        for i, side in enumerate((64, 2160)):
            part = tmp_path / f"{i}.ts"
            write_media(part, frames=[np.full((side, side, 3), 90, np.uint8)] * 5, video_start=0.2 * i)
            file.write(part.read_bytes())
    info = probe_media(str(path))
    sizes = {(image.shape[0]) for _, image in decode_all_frames(info)}
    assert sizes == {64, 2160}
    frames, _, scale = read_frames(info, info.video.times)
    assert frames.shape[1:] == (64, 64, 3)
    assert scale == 1.0


def write_broken_files(folder, target):
    """name -> what its error says."""
    video_bytes, audio = (folder / "film.mp4").read_bytes(), tone(2.0)
    (target / "empty.mp4").touch()
    (target / "text.mp4").write_text("no film\n" * 500)
    (target / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    (target / "half.mp4").write_bytes(video_bytes[: len(video_bytes) // 2])
    write_media(target / "whole.flac", audio=audio)
    data = (target / "whole.flac").read_bytes()
    (target / "half.flac").write_bytes(data[: len(data) // 2])
    (target / "half.mkv").write_bytes((folder / "film.mkv").read_bytes()[:9000])
    (target / "list.m3u8").write_text("#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    (target / "list.mp4").write_text(f"ffconcat version 1.0\nfile '{folder}/film.mp4'\n")
    os.mkfifo(target / "pipe.mp4")
    (target / "folder.mp4").mkdir()
    return {
        "empty.mp4": "empty file",
        "text.mp4": "not a media file",
        "noise.mp4": "not a media file",
        "half.mp4": "not a media file",
        "half.flac": "truncated",
        "half.mkv": "truncated",
        "list.m3u8": "not a media file",
        "list.mp4": "not a media file",
        "pipe.mp4": "not a regular file",
        "folder.mp4": "not a regular file",
        "absent.mp4": "no such file",
    }


def test_invalid_media_is_a_one_line_error(folder, tmp_path):
    for name, message in write_broken_files(folder, tmp_path).items():
        with pytest.raises(MediaError, match=message) as error:
            probe_media(str(tmp_path / name))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", range(6))
def test_damaged_bytes_end_in_frames_or_in_one_line(folder, tmp_path, seed):
    """Never a hang, never another exception."""
    rng = np.random.default_rng(seed)
    data = bytearray((folder / ["film.mp4", "film.mkv", "film.mpg"][seed % 3]).read_bytes())
    for position in rng.integers(0, len(data), 40):
        data[position] = rng.integers(256)
    (tmp_path / "film").write_bytes(data)
    with contextlib.suppress(MediaError):
        info = probe_media(str(tmp_path / "film"))
        if info.video is not None:
            assert read_frames(info, np.array([0.5, 2.0]))[0].shape[0] == 2
        if info.audio is not None:
            for block in read_audio_blocks(info, 0.0, min(info.duration, 10.0), 16_000):
                assert block.dtype == np.float32


def test_rate_is_checked(tmp_path):
    write_wav(tmp_path / "odd.wav", tone(1.0, rate=1000), rate=1000)
    with pytest.raises(MediaError, match="1000 Hz"):
        list(read_audio_blocks(probe_media(str(tmp_path / "odd.wav")), 0.0, 1.0, 16_000))
    assert SAMPLE_RATE == 44_100
