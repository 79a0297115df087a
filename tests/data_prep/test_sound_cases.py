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
from emofuse_jax.data.writing.corpus import Clip
from tests.data_prep.face_fakes import fake_face
from tests.data_prep.media_files import RATE, copy_packets, ramp, tone, write, write_wav

SETTINGS = PrepSettings(face=FaceSettings(frames=4, size=16))
FLASHES = (0.4, 1.2, 2.0, 3.0, 12.4, 13.2)
"""Seconds at which white frames and a click begin together."""
CUTS = ((0.0, 4.0), (0.9, 3.7), (1.537, 3.2), (11.777, 13.6))
FILMS = {
    "film.mp4": ("libx264", "aac", {}),
    "film.mkv": ("libx264", "aac", {}),
    "film.avi": ("mpeg4", "pcm_s16le", {}),
    "film.mpg": ("mpeg1video", "mp2", {}),
    "picture_late.mp4": ("libx264", "aac", {"video_start": 0.52}),
    "picture_late.mkv": ("libx264", "aac", {"video_start": 0.52}),
    "picture_late.mpg": ("mpeg1video", "mp2", {"video_start": 0.52}),
    "sound_late.mp4": ("libx264", "aac", {"sound_start": 0.7}),
    "sound_late.mkv": ("libx264", "aac", {"sound_start": 0.7}),
    "sound_late.mpg": ("mpeg1video", "mp2", {"sound_start": 0.7}),
}


def record_of(path, settings=SETTINGS, **cut):
    return process_clip(Clip("take", str(path), 0, "ann", **cut), settings)


def samples_of(path, start=0.0, end=None):
    info = probe_media(str(path))
    return np.concatenate(list(read_audio_blocks(info, start, end or info.duration, 16_000)))


@pytest.fixture
def a_face_in_every_frame(monkeypatch):
    def track(film, shots, *rest):
        return [fake_face(32, 32, 40)] * len(shots.frames), 1

    monkeypatch.setattr(face_fields, "_track_person", track)


# The clock


def clapper(path, codec, sound_codec, *, video_start=0.0, sound_start=0.0, seconds=15, fps=25):
    """A film of `seconds` whose pictures are white, and whose sound clicks, from FLASHES on."""
    shown = video_start + np.arange(round((seconds - video_start) * fps)) / fps
    white = [any(flash - 1e-6 <= at < flash + 0.1 for flash in FLASHES) for at in shown]
    sound = np.zeros(round((seconds - sound_start) * RATE), np.float32)
    for flash in FLASHES:
        at = round((flash - sound_start) * RATE)
        if 0 <= at < len(sound):
            sound[at : at + 88] = 0.5 * np.sin(2 * np.pi * 1500 * np.arange(88) / RATE)
    frames = (np.full((64, 64, 3), 255 * lit, np.uint8) for lit in white)
    starts = {"video_start": video_start, "sound_start": sound_start}
    write(path, frames=frames, sound=sound[None], codec=codec, sound_codec=sound_codec, fps=fps, **starts)


def flashes_and_clicks(path, start, end):
    """Seconds of the clip's clock at which its record turns white, and at which it is loudest."""
    frames = round((end - start) * 25)
    face = FaceSettings(frames=frames, snippet=frames, sampling="snippets", size=8)
    record = record_of(path, PrepSettings(face=face), start=start, end=end)
    bright = record.faces.mean((1, 2, 3)) > 128
    flashes = record.face_time[1:][bright[1:] & ~bright[:-1]]
    level = record.spectrogram.astype(np.float32).mean(1)
    clicks = [
        i
        for i in range(3, len(level) - 3)
        if level[i] > level.max() - 1 and level[i] == max(level[i - 3 : i + 4])
    ]
    return flashes, 0.01 * np.array(clicks)


def assert_together(path, start, end):
    """Each flash has its click within 10 ms; a frame's time is that at which it appears: exact."""
    flashes, clicks = flashes_and_clicks(path, start, end)
    wanted = [flash - start for flash in FLASHES if start <= flash < end]
    assert flashes[-1] == pytest.approx(wanted[-1], abs=0.03)  # codecs may delay both
    both = flashes[flashes + start > 0.75]  # a late stream lacks the first
    assert len(both) == sum(at + start > 0.75 for at in wanted) >= 2
    assert np.abs(clicks[:, None] - both).min(axis=0).max() <= 0.01


@pytest.mark.usefixtures("a_face_in_every_frame")
@pytest.mark.parametrize("name", FILMS)
def test_flash_and_click_stay_together_after_a_cut(tmp_path, name):
    codec, sound_codec, starts = FILMS[name]
    clapper(tmp_path / name, codec, sound_codec, **starts)
    for cut in CUTS:
        assert_together(tmp_path / name, *cut)


@pytest.mark.usefixtures("a_face_in_every_frame")
def test_lost_packets_leave_the_rest_in_place(tmp_path):
    """Every twentieth packet of 23 ms is lost: 92 ms are missing at the flash of second 2."""
    clapper(tmp_path / "whole.mp4", "libx264", "aac")
    count = iter(range(10**6))

    def lose(packet):
        lost = packet.stream.type == "audio" and next(count) % 20 == 19
        return None if lost else packet

    copy_packets(tmp_path / "whole.mp4", tmp_path / "lost.mkv", lose)
    for cut in CUTS[1:3]:
        assert_together(tmp_path / "lost.mkv", *cut)


@pytest.mark.usefixtures("a_face_in_every_frame")
@pytest.mark.parametrize("speed", [0.98, 1.02])
def test_a_sound_card_that_runs_fast_or_slow_stays_in_step(tmp_path, speed):
    """The timestamps say when a sample was heard, its number does not: off by 60 ms after 3 s."""
    clapper(tmp_path / "even.mp4", "libx264", "aac", seconds=4)

    def drift(packet):
        if packet.stream.type == "video":
            return packet
        packet.pts = packet.dts = round(packet.pts * speed)
        return packet

    copy_packets(tmp_path / "even.mp4", tmp_path / "drift.mkv", drift)
    flashes, clicks = flashes_and_clicks(tmp_path / "drift.mkv", 0.0, 3.8)
    assert len(flashes) == len(clicks) == 4
    np.testing.assert_allclose(clicks, flashes * speed, atol=0.016)  # in steps of 10 ms, in hops of 10 ms


@pytest.mark.usefixtures("a_face_in_every_frame")
def test_sound_shorter_than_the_picture(tmp_path):
    """The spectrogram ends with the sound, the frames go on; a part that has none is masked."""
    write(tmp_path / "a.mp4", frames=ramp(4.0), sound=tone(2.5))
    record = record_of(tmp_path / "a.mp4")
    assert (record.audio_ok, record.video_ok, record.notes) == (True, True, "")
    assert len(record.spectrogram) == pytest.approx(251, abs=3)  # AAC fills its last packet
    np.testing.assert_allclose(record.face_time, [0.48, 1.48, 2.48, 3.48], atol=0.021)
    rest = record_of(tmp_path / "a.mp4", start=3.0)
    assert (rest.audio_ok, rest.video_ok, rest.notes) == (False, True, "no sound in this part")


@pytest.mark.usefixtures("a_face_in_every_frame")
def test_sound_longer_than_the_picture(tmp_path):
    write(tmp_path / "a.mp4", frames=ramp(2.0), sound=tone(3.5))
    record = record_of(tmp_path / "a.mp4")
    assert len(record.spectrogram) == pytest.approx(351, abs=3)
    np.testing.assert_allclose(record.face_time, [0.24, 0.72, 1.24, 1.72], atol=0.021)
    rest = record_of(tmp_path / "a.mp4", start=2.5)
    assert (rest.audio_ok, rest.video_ok, rest.notes) == (True, False, "no video in this part")


@pytest.mark.usefixtures("a_face_in_every_frame")
def test_a_film_without_sound_or_with_silence_keeps_its_faces(tmp_path):
    write(tmp_path / "mute.mp4", frames=ramp(1.0))
    write(tmp_path / "silent.mp4", frames=ramp(1.0), sound=np.zeros(RATE, np.float32))
    kept = dataclasses.replace(SETTINGS, audio=dataclasses.replace(SETTINGS.audio, waveform=True))
    for name, told in (("mute.mp4", "no sound stream"), ("silent.mp4", "sound is silent")):
        record = record_of(tmp_path / name, kept)
        assert (record.audio_ok, record.video_ok, record.notes) == (False, True, told)
        assert record.spectrogram.shape == (1, 200)
        assert not record.spectrogram.any()
        assert record.waveform.shape == (0,)


# Level and channels


def test_clipped_sound_is_kept_and_told(tmp_path):
    """A sine cut off at .45 of its height is at full scale for 1 - 2 asin(.45) / pi of the time."""
    write_wav(tmp_path / "a.wav", np.clip(tone(1.0, rate=16_000) / 0.135, -1, 1))
    record = record_of(tmp_path / "a.wav")
    assert record.audio_ok
    assert record.notes == "sound is clipped in 70 % of samples; no video stream"
    assert np.isfinite(record.spectrogram).all()
    again = record_of(tmp_path / "a.wav", start=0.5)  # what lies outside the cut does not count
    assert again.notes == record.notes


def test_one_clipped_channel_is_told_and_a_sound_that_just_fits_is_not(tmp_path):
    loud, soft = np.clip(tone(1.0) / 0.135, -1, 1), 0.1 * tone(1.0)
    write(tmp_path / "one.flac", sound=np.stack([soft, loud]))
    assert record_of(tmp_path / "one.flac").notes.startswith("sound is clipped in 70 % of samples")
    write_wav(tmp_path / "fits.wav", tone(1.0, rate=16_000) / 0.3)
    assert record_of(tmp_path / "fits.wav").notes == "no video stream"


def test_channels_of_opposite_phase_are_averaged(tmp_path):
    sound = tone(1.0, rate=16_000)
    write(tmp_path / "unequal.flac", sound=np.stack([sound, -0.5 * sound]), rate=16_000)
    np.testing.assert_allclose(samples_of(tmp_path / "unequal.flac"), 0.25 * sound, atol=1e-4)
    assert record_of(tmp_path / "unequal.flac").audio_ok
    write(tmp_path / "equal.flac", sound=np.stack([sound, -sound]), rate=16_000)
    assert record_of(tmp_path / "equal.flac").reason == "sound is silent; no video stream"


@pytest.mark.parametrize("codec", ["flac", "pcm_s16le", "pcm_f32le"])
def test_six_channels_are_averaged(tmp_path, codec):
    sound = tone(1.0, rate=16_000)
    channels = np.stack([share * sound for share in (1, -0.4, 0.3, 0.2, 0.6, -0.5)])
    write(tmp_path / "six.mkv", sound=channels, sound_codec=codec, rate=16_000)
    np.testing.assert_allclose(samples_of(tmp_path / "six.mkv"), 0.2 * sound, atol=1e-4)


# Rates


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000])
def test_a_tone_of_any_rate_lands_in_the_same_bin(tmp_path, rate):
    write_wav(tmp_path / "a.wav", tone(1.5, 1000.0, rate=rate), rate=rate)
    assert abs(len(samples_of(tmp_path / "a.wav")) - 24_000) <= 1
    record = record_of(tmp_path / "a.wav")
    assert record.spectrogram.shape == (151, 200)
    assert (record.spectrogram[5:-5].argmax(1) == 50).all()  # 1000 Hz / (16000 Hz / 800)
    np.testing.assert_allclose(record.spectrogram[5:-5, 50], np.log(0.15 * 0.54 * 640), atol=0.01)


def test_a_rate_that_changes_midway_keeps_the_time(tmp_path):
    """Three transport streams one after the other; a tone goes on, and is loud from second 5 on."""
    with open(tmp_path / "both.ts", "wb") as both:
        for start, rate in ((0.0, 44_100), (2.0, 22_050), (4.0, 48_000)):
            t = start + np.arange(2 * rate) / rate
            sound = np.where(t < 5, 0.05, 0.5) * np.sin(2 * np.pi * 1000 * t)
            part = tmp_path / f"{rate}.ts"
            write(part, sound=sound.astype(np.float32), sound_codec="aac", rate=rate, sound_start=start)
            both.write(part.read_bytes())
    record = record_of(tmp_path / "both.ts")
    assert record.audio_ok
    assert len(record.spectrogram) == pytest.approx(601, abs=7)
    tones = record.spectrogram[5:-8]
    away = np.abs(np.arange(len(tones)) % 200 - 195) > 10  # AAC fades in and out at the seams
    assert (tones.argmax(1) == 50)[away].all()
    loud = np.flatnonzero(tones[:, 50] > np.log(0.025 * 0.54 * 640) + np.log(10) / 2)[0] + 5
    assert loud == pytest.approx(500, abs=4)


@pytest.mark.parametrize("recipe", ["fbp", "hgr", "cross_attention"])
def test_streamed_sound_equals_the_whole(tmp_path, recipe):
    """Decoded, averaged, resampled and transformed at once: the same to 1e-5 of full scale."""
    rng = np.random.default_rng(0)
    sound = np.float32(0.1) * rng.standard_normal((2, 9 * RATE)).astype(np.float32)
    write(tmp_path / "a.wav", sound=sound, sound_codec="pcm_f32le")
    whole = soxr.resample(sound.mean(0), RATE, 16_000, quality="HQ")
    np.testing.assert_allclose(samples_of(tmp_path / "a.wav"), whole, atol=1e-5)
    settings = PrepSettings(audio=RECIPES[recipe].audio)
    streamed = record_of(tmp_path / "a.wav", settings).spectrogram
    np.testing.assert_allclose(streamed, log_spectrogram(whole, settings.audio)[0], atol=1e-5)


# The waveform


def test_the_waveform_is_the_sound_of_the_clip(tmp_path):
    settings = dataclasses.replace(SETTINGS, audio=dataclasses.replace(SETTINGS.audio, waveform=True))
    write(tmp_path / "a.flac", sound=tone(3.0))
    record = record_of(tmp_path / "a.flac", settings, start=0.5, end=2.0)
    assert record.waveform.dtype == np.int16
    assert abs(len(record.waveform) - 24_000) <= 1
    t = 0.5 + np.arange(len(record.waveform)) / 16_000
    expected = 32767 * 0.3 * np.sin(2 * np.pi * 440 * t)
    np.testing.assert_allclose(record.waveform[200:-200], expected[200:-200], atol=60)
    bare = record_of(tmp_path / "a.flac", start=0.5, end=2.0)
    assert bare.waveform is None
    np.testing.assert_array_equal(record.spectrogram, bare.spectrogram)


def test_a_waveform_beyond_full_scale_is_cut_off(tmp_path):
    settings = dataclasses.replace(SETTINGS, audio=dataclasses.replace(SETTINGS.audio, waveform=True))
    write(tmp_path / "a.wav", sound=8 * tone(1.0, rate=16_000)[None], sound_codec="pcm_f32le", rate=16_000)
    waveform = record_of(tmp_path / "a.wav", settings).waveform
    assert (waveform.min(), waveform.max()) == (-32767, 32767)


@pytest.mark.usefixtures("a_face_in_every_frame")
def test_silence_is_trimmed_from_sound_and_picture_together(tmp_path):
    """0.6 s of silence, 1 s of a tone, 0.9 s of silence: 0.1 s of each stay."""
    sound = np.concatenate([np.zeros(int(0.6 * RATE)), tone(1.0), np.zeros(int(0.9 * RATE))])
    write(tmp_path / "a.mkv", frames=ramp(2.5), sound=sound.astype(np.float32), sound_codec="flac")
    audio = AudioSettings(trim_db=35.0, waveform=True)
    face = FaceSettings(frames=4, size=8)
    record = record_of(tmp_path / "a.mkv", PrepSettings(audio=audio, face=face))
    assert len(record.spectrogram) == pytest.approx(121, abs=4)  # the window of 40 ms reaches out of the tone
    plain = PrepSettings(audio=AudioSettings(waveform=True), face=face)
    whole, frames = record_of(tmp_path / "a.mkv", plain), len(record.spectrogram)
    first = next(
        i for i in range(200) if np.array_equal(whole.spectrogram[i : i + frames], record.spectrogram)
    )
    assert first == pytest.approx(50, abs=2)
    wanted = whole.waveform[160 * first : 160 * (first + frames - 1)]
    np.testing.assert_array_equal(record.waveform, wanted)
    cut = record_of(tmp_path / "a.mkv", plain, start=first / 100, end=(first + frames - 1) / 100)
    np.testing.assert_array_equal(record.faces, cut.faces)
    np.testing.assert_allclose(record.face_time, cut.face_time, atol=1e-3)


def test_a_clip_that_is_loud_throughout_is_not_trimmed(tmp_path):
    write_wav(tmp_path / "a.wav", tone(0.7, rate=16_000))
    write_wav(tmp_path / "short.wav", tone(0.004, rate=16_000))
    trimmed = PrepSettings(audio=AudioSettings(trim_db=35.0))
    for name in ("a.wav", "short.wav"):
        np.testing.assert_array_equal(
            record_of(tmp_path / name, trimmed).spectrogram, record_of(tmp_path / name).spectrogram
        )
    with pytest.raises(ValueError, match="trim_db -1: expected decibels, 0 or more"):
        AudioSettings(trim_db=-1.0)
