"""Damaged media by the thousand: each costs itself at most, in one line, and never a neighbour or the run."""

import contextlib
import itertools
import os
import struct
import time
import zlib

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from data_prep.corpora.folder import read_corpus
from data_prep.media.audio_track import read_audio_blocks
from data_prep.media.frames import _to_image
from data_prep.media.probe import MediaError, probe_media
from data_prep.prepare import prepare
from data_prep.settings import FaceSettings, PrepSettings, record_shape
from data_prep.workers.pool import PrepJob, process_clips
from emofuse_jax.data import records
from emofuse_jax.data.writing.corpus import Clip
from emofuse_jax.data.writing.shards import read_shard
from tests.data_prep.media_files import ramp, tone, write, write_wav
from tests.data_prep.mutate import mutate
from tests.data_prep.small_corpus import manifest

SETTINGS = PrepSettings(face=FaceSettings(frames=4, size=32))
FILMS = {
    "film.mp4": ("libx264", "aac"),
    "film.mkv": ("libx264", "aac"),
    "film.ts": ("mpeg2video", "mp2"),
    "film.mpg": ("mpeg1video", "mp2"),
    "film.avi": ("mpeg4", "libmp3lame"),
    "film.webm": ("libvpx", "libopus"),
    "film.wmv": ("wmv2", "libmp3lame"),
    "film.flv": ("flv", "libmp3lame"),
}
SOUNDS = {"sound.flac": "flac", "sound.mp3": "libmp3lame", "sound.ogg": "libopus", "sound.m4a": "aac"}
REAL = "face_3.mp4"
GOOD = ("film.mp4", "film.mpg", "sound.wav", "sound.flac")
EVERY = 5
"""Each fifth clip is a good one."""
SECONDS = 3.0
"""For each clip of a run, on a busy machine; most take a twentieth."""


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    return make_samples(tmp_path_factory.mktemp("samples"))


def make_samples(folder):
    """Name to bytes: a second of film or sound in each container, and a talking face where there is one."""
    for name, (codec, sound_codec) in FILMS.items():
        rate = 48_000 if sound_codec == "libopus" else 44_100
        media = {"frames": ramp(1.0), "sound": tone(1.0, rate=rate), "rate": rate}
        write(folder / name, codec=codec, sound_codec=sound_codec, **media)
    for name, codec in SOUNDS.items():
        write(folder / name, sound=tone(1.0, rate=48_000), sound_codec=codec, rate=48_000)
    write_wav(folder / "sound.wav", tone(1.0, rate=16_000))
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    real = os.path.join(os.path.dirname(__file__), "../../../shared/data/talking_faces", REAL)
    if os.path.exists(real):
        with open(real, "rb") as file:
            found[REAL] = file.read()
    return found


def make_corpus(folder, samples, seeds):
    """A folder of damaged files with good ones between them, as the corpus `folder` reads it."""
    folder.mkdir()
    good = itertools.cycle([name for name in (*GOOD, REAL) if name in samples])
    table = ["path,label,speaker"]
    for number, seed in enumerate(seeds):
        files = [mutate(samples, seed)]
        if number % EVERY == 0:
            name = next(good)
            files.append((f"{seed:05d}_good_{name}", samples[name]))
        for name, data in files:
            (folder / name).write_bytes(data)
            speaker = zlib.crc32(data) % 6  # equal files are one speaker's: `verify` wants them in one split
            table.append(f"{name},{['low', 'high'][number % 2]},speaker {speaker}")
    (folder / "clips.csv").write_text("\n".join(table) + "\n")
    return read_corpus(str(folder))


def check(clips, found, alone, seconds):
    """`found`: (status, reason, data) of each clip; `alone`: data of a good clip without bad neighbours."""
    shape = record_shape(SETTINGS)
    for clip, (status, reason, data) in zip(clips, found, strict=True):
        told = f"{clip.clip_id}: {status}: {reason}"
        assert status in ("kept", "masked", "failed"), told
        assert (status == "failed") == (data is None), told
        assert reason or status == "kept", told
        assert "\n" not in reason, told
        assert "internal error" not in reason, told
        assert "it took more than" not in reason, told
        assert data == alone.get(clip.clip_id, data), told
        if data is not None:
            check_record(records.decode(data, shape), clip)
    assert seconds < SECONDS * len(clips)


def check_record(record, clip):
    assert record.clip_id == clip.clip_id
    assert record.audio_ok or record.video_ok
    assert len(record.spectrogram)
    for field in ("spectrogram", "votes", "face_time", "face_box", "face_landmarks", "face_score"):
        assert np.isfinite(getattr(record, field)).all(), f"{clip.clip_id}: {field}"


def job_of(corpus):
    return PrepJob(SETTINGS, corpus.name, len(corpus.classes))


def alone(corpus):
    """Clip id to the record of each good clip, from a run without the others."""
    clips = [clip for clip in corpus.clips if "_good_" in clip.clip_id]
    found = list(process_clips(clips, job_of(corpus), 1))
    assert [outcome.reason for outcome in found if outcome.data is None] == []
    return {clip.clip_id: outcome.data for clip, outcome in zip(clips, found, strict=True)}


def test_a_corpus_of_damaged_files_is_prepared(samples, tmp_path):
    """200 files through all of `prepare`, whose `verify` finds nothing wrong."""
    corpus = make_corpus(tmp_path / "source", samples, range(200))
    began = time.monotonic()
    summary = prepare(corpus, SETTINGS, str(tmp_path / "records"), workers=2, shards=3)
    seconds = time.monotonic() - began
    assert summary.problems == ()
    stored = (data for path in records.shard_paths(summary.output) for data in read_shard(path))
    found = [
        (row["status"], row["reason"], None if row["status"] == "failed" else next(stored))
        for row in manifest(summary.output).values()
    ]
    check(corpus.clips, found, alone(corpus), seconds)
    assert summary.complete + summary.masked > 80  # most damage is survived, and not all
    assert len(summary.failed) > 40


@pytest.mark.long
@pytest.mark.parametrize("part", range(4))
def test_two_thousand_damaged_files(samples, tmp_path, part):
    corpus = make_corpus(tmp_path / "source", samples, range(200 + 500 * part, 700 + 500 * part))
    began = time.monotonic()
    found = [(o.status, o.reason, o.data) for o in process_clips(corpus.clips, job_of(corpus), 2)]
    check(corpus.clips, found, alone(corpus), time.monotonic() - began)


def test_sound_in_64_bit_numbers_is_told(samples, tmp_path):
    """FFmpeg decodes it; NumPy gets none of it from PyAV."""
    data = bytearray(samples["sound.wav"])
    data[28:36] = struct.pack("<IHH", 8 * 16_000, 8, 64)  # bytes a second, bytes a sample, bits
    (tmp_path / "a.wav").write_bytes(data)
    (found,) = process_clips([Clip("a", str(tmp_path / "a.wav"), 0, "a")], PrepJob(SETTINGS, "test", 2), 0)
    assert found.reason == "sound: samples in s64, which are not read; no video stream"


@pytest.mark.parametrize(("layout", "channels"), [("6.1", 7), ("7.1", 8), ("hexadecagonal", 16)])
def test_many_channels_are_their_mean(tmp_path, layout, channels):
    """A low tone in all but one, low enough for LFE; PyAV shows more planes than there are channels."""
    sound = np.stack([tone(1.0, 60, rate=48_000)] * (channels - 1) + [np.zeros(48_000, np.float32)], 1)
    with av.open(str(tmp_path / "a.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=48_000, layout=layout, bit_rate=1_000_000)
        frame = av.AudioFrame.from_ndarray(sound.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate, frame.pts = 48_000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (block, *more) = read_audio_blocks(probe_media(str(tmp_path / "a.m4a")), 0.25, 0.75, 48_000)
    mean = np.sqrt(np.square(np.concatenate([block, *more])).mean())
    assert mean == pytest.approx(0.3 / np.sqrt(2) * (channels - 1) / channels, rel=0.03)


def test_sound_that_the_decoder_held_to_the_end_has_a_time(samples, tmp_path):
    """Where a block is lost, Opus may keep a frame until it is drained; PyAV gives that frame no clock."""
    data, film = samples["film.webm"], tmp_path / "a.webm"
    for start in range(len(data) // 2, len(data) - 342, 50):
        film.write_bytes(data[:start] + bytes(342) + data[start + 342 :])
        with contextlib.suppress(MediaError):
            assert (
                sum(len(block) for block in read_audio_blocks(probe_media(str(film)), 0.0, 1.0, 16_000))
                <= 16_001
            )


@pytest.mark.parametrize(
    ("size", "count", "shape"), [((64, 48), 4, (48, 64, 3)), ((100_000, 1), 4000, (1, 50_166, 3))]
)
def test_pictures_shrink_to_one_line_at_least(size, count, shape):
    image, scale = _to_image(av.VideoFrame(*size, "yuv444p"), VideoReformatter(), count, None)
    assert image.shape == shape
    assert scale == pytest.approx(shape[1] / size[0], rel=1e-5)


def test_pixels_without_a_way_to_rgb_are_told():
    with pytest.raises(MediaError, match="frames in gray32le"):
        _to_image(av.VideoFrame(64, 64, "gray32le"), VideoReformatter(), 1, None)


def test_equal_seeds_give_equal_files(samples):
    first, again = ([mutate(samples, seed) for seed in range(64)] for _ in range(2))
    assert first == again
    assert len({data for _, data in first}) > 50
    untouched = [name for name, data in first if "_as_it_is_" not in name and data in samples.values()]
    assert len(untouched) < 4  # a field may have been extreme before


def test_a_clip_of_no_use_beside_a_good_one(samples, tmp_path):
    """What the asserts above lean on: a good file gives a record, an empty one a reason."""
    (tmp_path / "good.wav").write_bytes(samples["sound.wav"])
    (tmp_path / "bad.wav").write_bytes(samples["sound.wav"][:10])
    clips = [Clip(name, str(tmp_path / name), 0, "a") for name in ("good.wav", "bad.wav")]
    good, bad = process_clips(clips, PrepJob(SETTINGS, "test", 2), 2)
    assert good.data is not None
    assert (bad.status, bad.reason, bad.data) == ("failed", "not media, or damaged beyond reading", None)
