"""Sound of every kind: levels, channels, rates, lengths and offsets, on the clock of the picture."""

import dataclasses

import numpy as np
import pytest
import soxr

from data_prep import face_fields
from data_prep.media.audio_track import read_audio_blocks
from data_prep.media.probe import probe_media
from data_prep.process_clip import process_clip
from data_prep.settings import RECIPES, AudioSettings, FaceSettings, PrepSettings
from data_prep.spectrogram import log_spectrogram
from emofuse_jax.data.writing.corpus import MediaClip
from tests.support.face_fakes import fake_face
from tests.support.media_files import SAMPLE_RATE, copy_packets, ramp_frames, tone, write_media, write_wav

SETTINGS = PrepSettings(face=FaceSettings(frames=4, size=16))
FLASH_SECONDS = (0.4, 1.2, 2.0, 3.0, 12.4, 13.2)
"""Seconds at which white frames and a click begin together."""
CUTS = ((0.0, 4.0), (0.9, 3.7), (1.537, 3.2), (11.777, 13.6))
VIDEO_FILES = {
    "film.mp4": ("libx264", "aac", {}),
    "film.mkv": ("libx264", "aac", {}),
    "film.avi": ("mpeg4", "pcm_s16le", {}),
    "film.mpg": ("mpeg1video", "mp2", {}),
    "picture_late.mp4": ("libx264", "aac", {"video_start": 0.52}),
    "picture_late.mkv": ("libx264", "aac", {"video_start": 0.52}),
    "picture_late.mpg": ("mpeg1video", "mp2", {"video_start": 0.52}),
    "sound_late.mp4": ("libx264", "aac", {"audio_start": 0.7}),
    "sound_late.mkv": ("libx264", "aac", {"audio_start": 0.7}),
    "sound_late.mpg": ("mpeg1video", "mp2", {"audio_start": 0.7}),
}


def process_file(path, settings=SETTINGS, **cut):
    return process_clip(MediaClip("take", str(path), 0, "ann", **cut), settings)


def read_samples(path, start=0.0, end=None):
    info = probe_media(str(path))
    return np.concatenate(list(read_audio_blocks(info, start, end or info.duration, 16_000)))


@pytest.fixture
def a_face_in_every_frame(monkeypatch):
    def track(video_clip, clip_frames, *other_arguments):
        return [fake_face(32, 32, 40)] * len(clip_frames.frames), 1

    monkeypatch.setattr(face_fields, "_track_person", track)


# The clock


def write_clapper_video(
    path, video_codec, audio_codec, *, video_start=0.0, audio_start=0.0, seconds=15, fps=25
):
    """A film of `seconds` whose pictures are white, and whose sound clicks, from FLASH_SECONDS on."""
    shown_times = video_start + np.arange(round((seconds - video_start) * fps)) / fps
    is_white = [any(flash - 1e-6 <= start < flash + 0.1 for flash in FLASH_SECONDS) for start in shown_times]
    audio = np.zeros(round((seconds - audio_start) * SAMPLE_RATE), np.float32)
    for flash in FLASH_SECONDS:
        start = round((flash - audio_start) * SAMPLE_RATE)
        if 0 <= start < len(audio):
            audio[start : start + 88] = 0.5 * np.sin(2 * np.pi * 1500 * np.arange(88) / SAMPLE_RATE)
    frames = (np.full((64, 64, 3), 255 * lit, np.uint8) for lit in is_white)
    stream_starts = {"video_start": video_start, "audio_start": audio_start}
    write_media(
        path,
        frames=frames,
        audio=audio[None],
        video_codec=video_codec,
        audio_codec=audio_codec,
        fps=fps,
        **stream_starts,
    )


def find_flashes_and_clicks(path, start, end):
    """Seconds of the clip's clock at which its record turns white, and at which it is loudest."""
    num_frames = round((end - start) * 25)
    face = FaceSettings(frames=num_frames, snippet=num_frames, sampling="snippets", size=8)
    record = process_file(path, PrepSettings(face=face), start=start, end=end)
    is_bright = record.faces.mean((1, 2, 3)) > 128
    flashes = record.face_time[1:][is_bright[1:] & ~is_bright[:-1]]
    level = record.spectrogram.astype(np.float32).mean(1)
    clicks = [
        i
        for i in range(3, len(level) - 3)
        if level[i] > level.max() - 1 and level[i] == max(level[i - 3 : i + 4])
    ]
    return flashes, 0.01 * np.array(clicks)


def assert_together(path, start, end):
    """Each flash has its click within 10 ms; a frame's time is that at which it appears: exact."""
    flashes, clicks = find_flashes_and_clicks(path, start, end)
    expected_flashes = [flash - start for flash in FLASH_SECONDS if start <= flash < end]
    assert flashes[-1] == pytest.approx(expected_flashes[-1], abs=0.03)  # codecs may delay both
    late_flashes = flashes[flashes + start > 0.75]  # a late stream lacks the first
    assert len(late_flashes) == sum(flash_time + start > 0.75 for flash_time in expected_flashes) >= 2
    assert np.abs(clicks[:, None] - late_flashes).min(axis=0).max() <= 0.01


@pytest.mark.usefixtures("a_face_in_every_frame")
@pytest.mark.parametrize("name", VIDEO_FILES)
def test_flash_and_click_stay_together_after_a_cut(tmp_path, name):
    video_codec, audio_codec, stream_starts = VIDEO_FILES[name]
    write_clapper_video(tmp_path / name, video_codec, audio_codec, **stream_starts)
    for cut in CUTS:
        assert_together(tmp_path / name, *cut)


@pytest.mark.usefixtures("a_face_in_every_frame")
def test_lost_packets_leave_the_rest_in_place(tmp_path):
    """Every twentieth packet of 23 ms is lost: 92 ms are missing at the flash of second 2."""
    write_clapper_video(tmp_path / "whole.mp4", "libx264", "aac")
    packet_numbers = iter(range(10**6))

    def drop_packet(packet):
        is_lost = packet.stream.type == "audio" and next(packet_numbers) % 20 == 19
        return None if is_lost else packet

    copy_packets(tmp_path / "whole.mp4", tmp_path / "lost.mkv", drop_packet)
    for cut in CUTS[1:3]:
        assert_together(tmp_path / "lost.mkv", *cut)


@pytest.mark.usefixtures("a_face_in_every_frame")
@pytest.mark.parametrize("speed", [0.98, 1.02])
def test_a_sound_card_that_runs_fast_or_slow_stays_in_step(tmp_path, speed):
    """The timestamps say when a sample was heard, its number does not: off by 60 ms after 3 s."""
    write_clapper_video(tmp_path / "even.mp4", "libx264", "aac", seconds=4)

    def scale_timestamps(packet):
        if packet.stream.type == "video":
            return packet
        packet.pts = packet.dts = round(packet.pts * speed)
        return packet

    copy_packets(tmp_path / "even.mp4", tmp_path / "drift.mkv", scale_timestamps)
    flashes, clicks = find_flashes_and_clicks(tmp_path / "drift.mkv", 0.0, 3.8)
    assert len(flashes) == len(clicks) == 4
    np.testing.assert_allclose(clicks, flashes * speed, atol=0.016)  # in steps of 10 ms, in hops of 10 ms


@pytest.mark.usefixtures("a_face_in_every_frame")
def test_sound_shorter_than_the_picture(tmp_path):
    """The spectrogram ends with the sound, the frames go on; a part that has none is masked."""
    write_media(tmp_path / "a.mp4", frames=ramp_frames(4.0), audio=tone(2.5))
    record = process_file(tmp_path / "a.mp4")
    assert (record.audio_ok, record.video_ok, record.notes) == (True, True, "")
    assert len(record.spectrogram) == pytest.approx(251, abs=3)  # AAC fills its last packet
    np.testing.assert_allclose(record.face_time, [0.48, 1.48, 2.48, 3.48], atol=0.021)
    rest = process_file(tmp_path / "a.mp4", start=3.0)
    assert (rest.audio_ok, rest.video_ok, rest.notes) == (False, True, "no audio in this part of the file")


@pytest.mark.usefixtures("a_face_in_every_frame")
def test_sound_longer_than_the_picture(tmp_path):
    write_media(tmp_path / "a.mp4", frames=ramp_frames(2.0), audio=tone(3.5))
    record = process_file(tmp_path / "a.mp4")
    assert len(record.spectrogram) == pytest.approx(351, abs=3)
    np.testing.assert_allclose(record.face_time, [0.24, 0.72, 1.24, 1.72], atol=0.021)
    rest = process_file(tmp_path / "a.mp4", start=2.5)
    assert (rest.audio_ok, rest.video_ok, rest.notes) == (True, False, "no video in this part of the file")


@pytest.mark.usefixtures("a_face_in_every_frame")
def test_a_film_without_sound_or_with_silence_keeps_its_faces(tmp_path):
    write_media(tmp_path / "mute.mp4", frames=ramp_frames(1.0))
    write_media(tmp_path / "silent.mp4", frames=ramp_frames(1.0), audio=np.zeros(SAMPLE_RATE, np.float32))
    waveform_settings = dataclasses.replace(
        SETTINGS, audio=dataclasses.replace(SETTINGS.audio, waveform=True)
    )
    for name, notes in (("mute.mp4", "no audio stream"), ("silent.mp4", "audio is silent")):
        record = process_file(tmp_path / name, waveform_settings)
        assert (record.audio_ok, record.video_ok, record.notes) == (False, True, notes)
        assert record.spectrogram.shape == (1, 200)
        assert not record.spectrogram.any()
        assert record.waveform.shape == (0,)


# Level and channels


def test_clipped_audio_is_stored_and_noted(tmp_path):
    """A sine cut off at .45 of its height is at full scale for 1 - 2 asin(.45) / pi of the time."""
    write_wav(tmp_path / "a.wav", np.clip(tone(1.0, rate=16_000) / 0.135, -1, 1))
    record = process_file(tmp_path / "a.wav")
    assert record.audio_ok
    assert record.notes == "audio is clipped in 70 % of samples; no video stream"
    assert np.isfinite(record.spectrogram).all()
    again = process_file(tmp_path / "a.wav", start=0.5)  # what lies outside the cut does not count
    assert again.notes == record.notes


def test_one_clipped_channel_is_noted_and_audio_that_just_fits_is_not(tmp_path):
    loud, soft = np.clip(tone(1.0) / 0.135, -1, 1), 0.1 * tone(1.0)
    write_media(tmp_path / "one.flac", audio=np.stack([soft, loud]))
    assert process_file(tmp_path / "one.flac").notes.startswith("audio is clipped in 70 % of samples")
    write_wav(tmp_path / "fits.wav", tone(1.0, rate=16_000) / 0.3)
    assert process_file(tmp_path / "fits.wav").notes == "no video stream"


def test_channels_of_opposite_phase_are_averaged(tmp_path):
    audio = tone(1.0, rate=16_000)
    write_media(tmp_path / "unequal.flac", audio=np.stack([audio, -0.5 * audio]), rate=16_000)
    np.testing.assert_allclose(read_samples(tmp_path / "unequal.flac"), 0.25 * audio, atol=1e-4)
    assert process_file(tmp_path / "unequal.flac").audio_ok
    write_media(tmp_path / "equal.flac", audio=np.stack([audio, -audio]), rate=16_000)
    assert process_file(tmp_path / "equal.flac").reason == "audio is silent; no video stream"


@pytest.mark.parametrize("codec", ["flac", "pcm_s16le", "pcm_f32le"])
def test_six_channels_are_averaged(tmp_path, codec):
    audio = tone(1.0, rate=16_000)
    channels = np.stack([gain * audio for gain in (1, -0.4, 0.3, 0.2, 0.6, -0.5)])
    write_media(tmp_path / "six.mkv", audio=channels, audio_codec=codec, rate=16_000)
    np.testing.assert_allclose(read_samples(tmp_path / "six.mkv"), 0.2 * audio, atol=1e-4)


# Rates


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000])
def test_a_tone_of_any_rate_lands_in_the_same_bin(tmp_path, rate):
    write_wav(tmp_path / "a.wav", tone(1.5, 1000.0, rate=rate), rate=rate)
    assert abs(len(read_samples(tmp_path / "a.wav")) - 24_000) <= 1
    record = process_file(tmp_path / "a.wav")
    assert record.spectrogram.shape == (151, 200)
    assert (record.spectrogram[5:-5].argmax(1) == 50).all()  # 1000 Hz / (16000 Hz / 800)
    np.testing.assert_allclose(record.spectrogram[5:-5, 50], np.log(0.15 * 0.54 * 640), atol=0.01)


def test_a_rate_that_changes_midway_keeps_the_time(tmp_path):
    """Three transport streams one after the other; a tone goes on, and is loud from second 5 on."""
    with open(tmp_path / "both.ts", "wb") as file:
        for start, rate in ((0.0, 44_100), (2.0, 22_050), (4.0, 48_000)):
            t = start + np.arange(2 * rate) / rate
            audio = np.where(t < 5, 0.05, 0.5) * np.sin(2 * np.pi * 1000 * t)
            part = tmp_path / f"{rate}.ts"
            write_media(part, audio=audio.astype(np.float32), audio_codec="aac", rate=rate, audio_start=start)
            file.write(part.read_bytes())
    record = process_file(tmp_path / "both.ts")
    assert record.audio_ok
    assert len(record.spectrogram) == pytest.approx(601, abs=7)
    tones = record.spectrogram[5:-8]
    is_away_from_seams = np.abs(np.arange(len(tones)) % 200 - 195) > 10  # AAC fades in and out at the seams
    assert (tones.argmax(1) == 50)[is_away_from_seams].all()
    first_loud_frame = np.flatnonzero(tones[:, 50] > np.log(0.025 * 0.54 * 640) + np.log(10) / 2)[0] + 5
    assert first_loud_frame == pytest.approx(500, abs=4)


@pytest.mark.parametrize("recipe", ["fbp", "hgr", "cross_attention"])
def test_streamed_audio_equals_one_pass(tmp_path, recipe):
    """Decoded, averaged, resampled and transformed at once: the same to 1e-5 of full scale."""
    rng = np.random.default_rng(0)
    audio = np.float32(0.1) * rng.standard_normal((2, 9 * SAMPLE_RATE)).astype(np.float32)
    write_media(tmp_path / "a.wav", audio=audio, audio_codec="pcm_f32le")
    resampled = soxr.resample(audio.mean(0), SAMPLE_RATE, 16_000, quality="HQ")
    np.testing.assert_allclose(read_samples(tmp_path / "a.wav"), resampled, atol=1e-5)
    settings = PrepSettings(audio=RECIPES[recipe].audio)
    streamed = process_file(tmp_path / "a.wav", settings).spectrogram
    np.testing.assert_allclose(streamed, log_spectrogram(resampled, settings.audio)[0], atol=1e-5)


# The waveform


def test_the_waveform_is_the_sound_of_the_clip(tmp_path):
    settings = dataclasses.replace(SETTINGS, audio=dataclasses.replace(SETTINGS.audio, waveform=True))
    write_media(tmp_path / "a.flac", audio=tone(3.0))
    record = process_file(tmp_path / "a.flac", settings, start=0.5, end=2.0)
    assert record.waveform.dtype == np.int16
    assert abs(len(record.waveform) - 24_000) <= 1
    t = 0.5 + np.arange(len(record.waveform)) / 16_000
    expected = 32767 * 0.3 * np.sin(2 * np.pi * 440 * t)
    np.testing.assert_allclose(record.waveform[200:-200], expected[200:-200], atol=60)
    record_without_waveform = process_file(tmp_path / "a.flac", start=0.5, end=2.0)
    assert record_without_waveform.waveform is None
    np.testing.assert_array_equal(record.spectrogram, record_without_waveform.spectrogram)


def test_a_waveform_beyond_full_scale_is_cut_off(tmp_path):
    settings = dataclasses.replace(SETTINGS, audio=dataclasses.replace(SETTINGS.audio, waveform=True))
    write_media(
        tmp_path / "a.wav", audio=8 * tone(1.0, rate=16_000)[None], audio_codec="pcm_f32le", rate=16_000
    )
    waveform = process_file(tmp_path / "a.wav", settings).waveform
    assert (waveform.min(), waveform.max()) == (-32767, 32767)


@pytest.mark.usefixtures("a_face_in_every_frame")
def test_silence_is_trimmed_from_sound_and_picture_together(tmp_path):
    """0.6 s of silence, 1 s of a tone, 0.9 s of silence: 0.1 s of each stay."""
    waveform = np.concatenate([np.zeros(int(0.6 * SAMPLE_RATE)), tone(1.0), np.zeros(int(0.9 * SAMPLE_RATE))])
    write_media(
        tmp_path / "a.mkv", frames=ramp_frames(2.5), audio=waveform.astype(np.float32), audio_codec="flac"
    )
    audio_settings = AudioSettings(trim_db=35.0, waveform=True)
    face_settings = FaceSettings(frames=4, size=8)
    record = process_file(tmp_path / "a.mkv", PrepSettings(audio=audio_settings, face=face_settings))
    assert len(record.spectrogram) == pytest.approx(121, abs=4)  # the window of 40 ms reaches out of the tone
    untrimmed_settings = PrepSettings(audio=AudioSettings(waveform=True), face=face_settings)
    untrimmed, num_frames = process_file(tmp_path / "a.mkv", untrimmed_settings), len(record.spectrogram)
    first_frame = next(
        i for i in range(200) if np.array_equal(untrimmed.spectrogram[i : i + num_frames], record.spectrogram)
    )
    assert first_frame == pytest.approx(50, abs=2)
    expected_waveform = untrimmed.waveform[160 * first_frame : 160 * (first_frame + num_frames - 1)]
    np.testing.assert_array_equal(record.waveform, expected_waveform)
    cut_record = process_file(
        tmp_path / "a.mkv",
        untrimmed_settings,
        start=first_frame / 100,
        end=(first_frame + num_frames - 1) / 100,
    )
    np.testing.assert_array_equal(record.faces, cut_record.faces)
    np.testing.assert_allclose(record.face_time, cut_record.face_time, atol=1e-3)


def test_a_clip_that_is_loud_throughout_is_not_trimmed(tmp_path):
    write_wav(tmp_path / "a.wav", tone(0.7, rate=16_000))
    write_wav(tmp_path / "short.wav", tone(0.004, rate=16_000))
    trimmed = PrepSettings(audio=AudioSettings(trim_db=35.0))
    for name in ("a.wav", "short.wav"):
        np.testing.assert_array_equal(
            process_file(tmp_path / name, trimmed).spectrogram, process_file(tmp_path / name).spectrogram
        )
    with pytest.raises(ValueError, match="trim_db -1: expected decibels, 0 or more"):
        AudioSettings(trim_db=-1.0)
