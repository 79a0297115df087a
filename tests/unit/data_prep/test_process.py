"""One clip to one record: masks, cuts, notes, and memory that does not grow with the clip."""

import dataclasses
import glob
import os
import subprocess
import sys

import numpy as np
import pytest

from data_prep.process_clip import process_clip
from data_prep.settings import FaceSettings, PrepSettings
from emofuse_jax.data.records import Failure
from emofuse_jax.data.writing.corpus import MediaClip
from tests.support.media_files import copy_packets, ramp_frames, tone, write_media, write_wav
from tests.support.paths import ROOT

SETTINGS = PrepSettings(face=FaceSettings(frames=4, size=48))


def make_clip(path, **changes):
    return dataclasses.replace(MediaClip("take", str(path), 1, "ann"), **changes)


def test_sound_only(tmp_path):
    write_wav(tmp_path / "a.wav", tone(1.0, rate=16_000))
    record = process_clip(make_clip(tmp_path / "a.wav"), SETTINGS, corpus="mine", num_classes=3)
    assert (record.audio_ok, record.video_ok, record.notes) == (True, False, "no video stream")
    assert (record.clip_id, record.speaker, record.corpus, record.label) == ("take", "ann", "mine", 1)
    np.testing.assert_array_equal(record.votes, np.float32([0, 1, 0]))
    assert record.spectrogram.shape == (101, 200)
    assert record.faces.shape == (4, 48, 48, 3)
    assert not record.faces.any()
    assert not record.face_valid.any()


def test_unlabelled_has_no_votes(tmp_path):
    write_wav(tmp_path / "a.wav", tone(0.5, rate=16_000))
    record = process_clip(make_clip(tmp_path / "a.wav", label=-1), SETTINGS, num_classes=3)
    np.testing.assert_array_equal(record.votes, np.zeros(3, np.float32))
    assert process_clip(make_clip(tmp_path / "a.wav", label=-1), SETTINGS).votes.shape == (0,)


def test_a_clip_without_a_face_keeps_its_sound(tmp_path):
    write_media(tmp_path / "a.mp4", frames=ramp_frames(1.0), audio=tone(1.0))
    record = process_clip(make_clip(tmp_path / "a.mp4"), SETTINGS)
    assert (record.audio_ok, record.video_ok, record.notes) == (True, False, "no face in 4 frames")


def test_neither_stream_is_of_use(tmp_path):
    write_media(tmp_path / "a.mp4", frames=ramp_frames(1.0), audio=np.zeros(44_100, np.float32))
    result = process_clip(make_clip(tmp_path / "a.mp4"), SETTINGS)
    assert result == Failure("audio is silent; no face in 4 frames")
    write_media(tmp_path / "b.mp4", frames=ramp_frames(1.0))
    assert process_clip(make_clip(tmp_path / "b.mp4"), SETTINGS).reason.startswith("no audio stream; no face")


def test_sound_that_is_not_finite_is_masked(tmp_path):
    """A 32-bit float WAV can hold anything."""
    samples = tone(1.0, rate=16_000)
    samples[500] = np.nan
    header = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x03\0\x01\0" + np.array([16_000, 64_000], "<u4").tobytes()
    data = header + b"\x04\0\x20\0data" + np.array([64_000], "<u4").tobytes() + samples.tobytes()
    (tmp_path / "a.wav").write_bytes(data)
    result = process_clip(make_clip(tmp_path / "a.wav"), SETTINGS)
    assert result.reason.startswith("audio: samples are NaN or infinite, expected finite ones; ")
    assert result.reason.endswith("; no video stream")


def test_start_and_end_cut_both_streams(tmp_path):
    write_wav(tmp_path / "a.wav", tone(3.0, rate=16_000, silent_until=2.0))
    record = process_clip(make_clip(tmp_path / "a.wav", start=1.5, end=2.5), SETTINGS)
    assert record.spectrogram.shape == (101, 200)
    is_loud = record.spectrogram[:, 22] > 0  # 440 Hz
    assert not is_loud[:48].any()
    assert is_loud[53:-3].all()
    past_the_end = process_clip(make_clip(tmp_path / "a.wav", start=2.5, end=9.0), SETTINGS)
    assert past_the_end.spectrogram.shape == (51, 200)


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (
            {"start": 5.0},
            "start 5 s: expected 0 to 1.00 s, the length of the file; correct the start of the clip",
        ),
        (
            {"start": 0.5, "end": 0.5},
            "end 0.5 s: expected more than start 0.5 s; correct one of them",
        ),
    ],
)
def test_a_cut_that_holds_nothing(tmp_path, cut, message):
    write_wav(tmp_path / "a.wav", tone(1.0, rate=16_000))
    assert process_clip(make_clip(tmp_path / "a.wav", **cut), SETTINGS).reason == message


def test_a_clip_too_long_for_a_record(tmp_path):
    write_wav(tmp_path / "a.wav", np.zeros(3601 * 2000), rate=2000)
    reason = process_clip(make_clip(tmp_path / "a.wav"), SETTINGS).reason
    assert reason == "the clip is 3601 s long, expected at most 3600 s; cut it by start and end"


def test_what_is_no_media_is_a_failure(tmp_path):
    (tmp_path / "a.mp4").write_text("no film")
    assert process_clip(make_clip(tmp_path / "a.mp4"), SETTINGS).reason.startswith("not a media file")


def test_unknown_settings(tmp_path):
    write_media(tmp_path / "a.mp4", frames=ramp_frames(0.5), audio=tone(0.5))
    for change in ({"detector": "haar"}, {"sampling": "random"}):
        settings = PrepSettings(face=dataclasses.replace(SETTINGS.face, **change))
        with pytest.raises(ValueError, match=next(iter(change.values()))):
            process_clip(make_clip(tmp_path / "a.mp4"), settings)


def test_a_real_face_is_cut_on_the_clip_clock(shared_data):
    """Faces of a part of a real clip; the same frames as in the whole clip give the same boxes."""
    path = os.path.join(shared_data, "talking_faces", "bbaf2n.mpg")
    record = process_clip(make_clip(path, start=1.0, end=2.0), SETTINGS)
    assert record.video_ok
    assert record.notes == ""
    assert record.face_valid.all()
    np.testing.assert_allclose(record.face_time, [0.125, 0.375, 0.625, 0.875], atol=0.041)
    eyes = record.face_landmarks[:, :2]
    assert (record.face_box[:, None, :2] < eyes).all()
    assert (eyes < record.face_box[:, None, 2:]).all()
    assert record.faces.std() > 20


def test_two_people_are_noted(shared_data, tmp_path):
    """A real face twice in one picture, once large and once small."""
    from data_prep.media.frames import read_frames
    from data_prep.media.probe import probe_media

    path = os.path.join(shared_data, "talking_faces", "bbaf2n.mpg")
    image = read_frames(probe_media(path), np.array([1.0]))[0][0]
    pair = np.zeros((288, 576, 3), np.uint8)
    pair[:, :360] = image
    pair[::1, 360:540][54:198] = image[::2, ::2]
    write_media(tmp_path / "two.mp4", frames=[pair] * 25, audio=tone(1.0), options={"crf": "15"})
    record = process_clip(make_clip(tmp_path / "two.mp4"), SETTINGS)
    assert record.notes == "2 people; used the one with the best size, position and speech"
    assert (record.face_box[:, 2] < 380).all()  # the large one


MEMORY_PROGRAM = """
import dataclasses, resource, sys
from emofuse_jax.data.writing.corpus import MediaClip
from data_prep.settings import RECIPES
from data_prep.workers.pool import PrepJob, process_to_outcome
path, recipe, waveform = sys.argv[1:]
settings = RECIPES[recipe]
audio = dataclasses.replace(settings.audio, waveform=bool(waveform))
job = PrepJob(dataclasses.replace(settings, audio=audio), "mine", 2)
outcome = process_to_outcome(job, MediaClip("a", path, 0, "ann"))
print(outcome.status, len(outcome.data), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.fixture(scope="module")
def short_and_long(tmp_path_factory):
    """A film of 3 s, and one of half an hour that repeats it."""
    folder = tmp_path_factory.mktemp("lengths")
    media = {
        "frames": ramp_frames(3.0, fps=5),
        "audio": tone(3.0, rate=16_000)[None],
        "fps": 5,
        "rate": 16_000,
    }
    write_media(folder / "short.mkv", audio_codec="flac", options={"bf": "0"}, **media)
    copy_packets(folder / "short.mkv", folder / "long.mkv", repeats=600)
    return folder / "short.mkv", folder / "long.mkv"


LONG_CASES = [("fbp", "waveform"), ("hgr", ""), ("cross_attention", "")]


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory as Linux tells it")
@pytest.mark.parametrize(
    ("recipe", "waveform"),
    [("fbp", ""), *(pytest.param(*case, marks=pytest.mark.long) for case in LONG_CASES)],
)
def test_half_an_hour_takes_little_more_memory_than_three_seconds(short_and_long, recipe, waveform):
    """Up to the encoded bytes; sound is 115 MB of it, pictures are 110, spectrogram and record up to 184."""
    peaks_mb, record_bytes = [], []
    for path in short_and_long:
        command = [sys.executable, "-c", MEMORY_PROGRAM, str(path), recipe, waveform]
        output_fields = subprocess.run(
            command, cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.split()
        assert output_fields[0] == "masked"  # there is no face
        record_bytes.append(int(output_fields[1]))
        peaks_mb.append(int(output_fields[2]))
    print(f"\npeak memory, MB: {peaks_mb}; bytes of the record: {record_bytes}")
    assert record_bytes[1] - record_bytes[0] > 3e7
    assert peaks_mb[1] - peaks_mb[0] <= 250


def test_real_faces(shared_data):
    """A face is used in at least 13 of the 14 real clips, and both streams are kept."""
    paths = sorted(glob.glob(os.path.join(shared_data, "talking_faces", "*.m*")))
    assert len(paths) == 14
    records = [process_clip(make_clip(path), SETTINGS) for path in paths]
    assert all(record.audio_ok for record in records)
    assert sum(record.video_ok for record in records) >= 13
