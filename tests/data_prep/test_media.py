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
from tests.data_prep.media_files import RATE, ramp, tone, write, write_wav


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A film of 4 s with sound, as mp4, mkv and AVI without presentation timestamps, and a long one."""
    path = tmp_path_factory.mktemp("media")
    for name, codec, options in (
        ("film.mp4", None, {"g": "40", "bf": "3"}),
        ("film.mkv", None, {}),
        ("film.mpg", "mpeg1video", {"bf": "2"}),
    ):
        sound = tone(4.0, silent_until=1.0) if name != "film.mpg" else None
        write(path / name, frames=ramp(4.0), sound=sound, codec=codec, options=options)
    write(path / "film.avi", frames=ramp(4.0), options={"x264-params": "b-adapt=0:bframes=2"})
    write(path / "late.mp4", frames=ramp(3.0), sound=tone(4.0, silent_until=1.0), video_start=1.0)
    write(path / "long.mp4", frames=ramp(15.0), sound=tone(15.0, silent_until=13.0), options={"g": "25"})
    return path


def all_frames(info):
    """Every frame by plain decoding, as (seconds, RGB)."""
    with av.open(info.path) as container:
        stream = container.streams.video[0]
        frames = [(f.pts, f.to_ndarray(format="rgb24")) for f in container.decode(stream)]
        base = float(stream.time_base)
    frames.sort(key=lambda pair: pair[0])
    return [(pts * base - info.start_time, image) for pts, image in frames]


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.mpg", "late.mp4", "long.mp4"])
def test_frames_are_those_of_plain_decoding(folder, name):
    info = probe_media(str(folder / name))
    every = all_frames(info)
    times = np.array([0.0, 0.33, 0.35, 1.21, 2.5, 3.19, 3.21, info.duration + 1])
    frames, shown, scale = read_frames(info, times)
    for time, frame, at in zip(times, frames, shown, strict=True):
        before = [pair for pair in every if pair[0] <= time + 1e-6] or every[:1]
        assert at == pytest.approx(before[-1][0], abs=1e-6)
        np.testing.assert_array_equal(frame, before[-1][1])
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
    frames, shown, _ = read_frames(info, np.array([12.1, 12.5]))  # far in: reached by seeking
    every = dict(all_frames(info))
    for frame, at in zip(frames, shown, strict=True):
        match = min(every, key=lambda time: abs(time - at))
        np.testing.assert_array_equal(frame, every[match])


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "late.mp4"])
def test_sound_and_frames_share_a_clock(folder, name):
    """The tone begins at second 1; there the grey value is 50, or 0 in the film that begins late."""
    info = probe_media(str(folder / name))
    sound = np.concatenate(list(read_audio_blocks(info, 0.8, 1.8, 16_000)))
    assert abs(len(sound) - 16_000) <= 2
    onset = np.flatnonzero(np.abs(sound) > 0.05)[0] / 16_000
    assert onset == pytest.approx(0.2, abs=0.03)
    frames, shown, _ = read_frames(info, np.array([1.01, 2.01]))
    assert shown == pytest.approx([1.0, 2.0], abs=0.01)
    expected = [0, 50] if name == "late.mp4" else [50, 100]
    np.testing.assert_allclose(frames.mean((1, 2, 3)), expected, atol=4)


def test_sound_far_into_a_file(folder):
    sound = np.concatenate(list(read_audio_blocks(probe_media(str(folder / "long.mp4")), 12.5, 14.0, 16_000)))
    assert abs(len(sound) - 24_000) <= 2
    assert np.flatnonzero(np.abs(sound) > 0.05)[0] / 16_000 == pytest.approx(0.5, abs=0.03)


def test_sound_keeps_its_level_and_length(tmp_path):
    """Two equal channels average to themselves, where swresample's mix would be sqrt(2) louder."""
    write(tmp_path / "tone.flac", sound=tone(2.0))
    sound = np.concatenate(
        list(read_audio_blocks(probe_media(str(tmp_path / "tone.flac")), 0.0, 2.0, 16_000))
    )
    assert len(sound) == 32_000
    expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
    np.testing.assert_allclose(sound[200:-200], expected[200:-200], atol=2e-3)


def test_cover_art_is_no_video(tmp_path):
    write_wav(tmp_path / "tone.wav", tone(1.0, rate=16_000))
    info = probe_media(str(tmp_path / "tone.wav"))
    assert info.video is None
    assert info.duration == pytest.approx(1.0)


def test_turned_film_comes_upright(tmp_path):
    """A telephone writes frames on their side, and a matrix that says so."""
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, :32] = 255  # white at the left
    write(tmp_path / "side.mp4", frames=[image] * 10)
    data = (tmp_path / "side.mp4").read_bytes()
    one, w = 1 << 16, 1 << 30
    straight = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, w)
    quarter = struct.pack(">9i", 0, one, 0, -one, 0, 0, 64 * one, 0, w)  # clockwise
    at = data.index(b"tkhd")
    turned = data[:at] + data[at:].replace(straight, quarter, 1)
    assert turned != data
    (tmp_path / "turned.mp4").write_bytes(turned)
    frames, _, _ = read_frames(probe_media(str(tmp_path / "turned.mp4")), np.array([0.1]))
    assert frames.shape[1:] == (96, 64, 3)
    assert frames[0, :28].mean() > 200  # what was left is now on top
    assert frames[0, 36:].mean() < 50


def test_large_frames_are_reduced(tmp_path):
    write(tmp_path / "large.mp4", frames=[np.full((1440, 2560, 3), 90, np.uint8)] * 2)
    frames, _, scale = read_frames(probe_media(str(tmp_path / "large.mp4")), np.array([0.0]))
    assert frames.shape == (1, 1080, 1920, 3)
    assert scale == pytest.approx(0.75)


def test_the_scale_is_that_of_the_first_frame_where_the_size_changes(tmp_path):
    """A transport stream takes two films one after the other: 64 lines, then 2160."""
    film = tmp_path / "both.ts"
    with open(film, "wb") as both:
        for i, side in enumerate((64, 2160)):
            part = tmp_path / f"{i}.ts"
            write(part, frames=[np.full((side, side, 3), 90, np.uint8)] * 5, video_start=0.2 * i)
            both.write(part.read_bytes())
    info = probe_media(str(film))
    sizes = {(image.shape[0]) for _, image in all_frames(info)}
    assert sizes == {64, 2160}
    frames, _, scale = read_frames(info, info.video.times)
    assert frames.shape[1:] == (64, 64, 3)
    assert scale == 1.0


def broken_files(folder, target):
    """name -> what its error says."""
    film, sound = (folder / "film.mp4").read_bytes(), tone(2.0)
    (target / "empty.mp4").touch()
    (target / "text.mp4").write_text("no film\n" * 500)
    (target / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    (target / "half.mp4").write_bytes(film[: len(film) // 2])
    write(target / "whole.flac", sound=sound)
    data = (target / "whole.flac").read_bytes()
    (target / "half.flac").write_bytes(data[: len(data) // 2])
    (target / "half.mkv").write_bytes((folder / "film.mkv").read_bytes()[:9000])
    (target / "list.m3u8").write_text("#EXTM3U\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    (target / "list.mp4").write_text(f"ffconcat version 1.0\nfile '{folder}/film.mp4'\n")
    os.mkfifo(target / "pipe.mp4")
    (target / "folder.mp4").mkdir()
    return {
        "empty.mp4": "empty file",
        "text.mp4": "not media",
        "noise.mp4": "not media",
        "half.mp4": "not media",
        "half.flac": "truncated",
        "half.mkv": "truncated",
        "list.m3u8": "not media",
        "list.mp4": "not media",
        "pipe.mp4": "not a regular file",
        "folder.mp4": "not a regular file",
        "absent.mp4": "no such file",
    }


def test_what_is_no_media_is_told_in_one_line(folder, tmp_path):
    for name, told in broken_files(folder, tmp_path).items():
        with pytest.raises(MediaError, match=told) as error:
            probe_media(str(tmp_path / name))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", range(6))
def test_damaged_bytes_end_in_frames_or_in_one_line(folder, tmp_path, seed):
    """Never a hang, never another exception."""
    rng = np.random.default_rng(seed)
    data = bytearray((folder / ["film.mp4", "film.mkv", "film.mpg"][seed % 3]).read_bytes())
    for at in rng.integers(0, len(data), 40):
        data[at] = rng.integers(256)
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
    assert RATE == 44_100
