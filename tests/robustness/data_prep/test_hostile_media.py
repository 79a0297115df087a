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
from emofuse_jax.data.writing.corpus import MediaClip
from emofuse_jax.data.writing.shards import read_shard
from tests.support.damaged_media import mutate
from tests.support.media_files import ramp_frames, tone, write_media, write_wav
from tests.support.paths import SHARED_DATA
from tests.support.small_corpus import manifest_by_clip

SETTINGS = PrepSettings(face=FaceSettings(frames=4, size=32))
VIDEO_CODECS = {
    "film.mp4": ("libx264", "aac"),
    "film.mkv": ("libx264", "aac"),
    "film.ts": ("mpeg2video", "mp2"),
    "film.mpg": ("mpeg1video", "mp2"),
    "film.avi": ("mpeg4", "libmp3lame"),
    "film.webm": ("libvpx", "libopus"),
    "film.wmv": ("wmv2", "libmp3lame"),
    "film.flv": ("flv", "libmp3lame"),
}
AUDIO_CODECS = {"sound.flac": "flac", "sound.mp3": "libmp3lame", "sound.ogg": "libopus", "sound.m4a": "aac"}
REAL_CLIP = "face_3.mp4"
GOOD_FILES = ("film.mp4", "film.mpg", "sound.wav", "sound.flac")
GOOD_CLIP_INTERVAL = 5
"""Each fifth clip is a good one."""
MAX_SECONDS_PER_CLIP = 3.0
"""For each clip of a run, on a busy machine; most take a twentieth."""


@pytest.fixture(scope="session")
def samples(tmp_path_factory):
    return make_samples(tmp_path_factory.mktemp("samples"))


def make_samples(folder):
    """Name to bytes: a second of film or sound in each container, and a talking face where there is one."""
    for name, (codec_name, audio_codec) in VIDEO_CODECS.items():
        rate = 48_000 if audio_codec == "libopus" else 44_100
        media = {"frames": ramp_frames(1.0), "audio": tone(1.0, rate=rate), "rate": rate}
        write_media(folder / name, video_codec=codec_name, audio_codec=audio_codec, **media)
    for name, codec_name in AUDIO_CODECS.items():
        write_media(folder / name, audio=tone(1.0, rate=48_000), audio_codec=codec_name, rate=48_000)
    write_wav(folder / "sound.wav", tone(1.0, rate=16_000))
    samples = {path.name: path.read_bytes() for path in folder.iterdir()}
    real_path = SHARED_DATA / "talking_faces" / REAL_CLIP
    if os.path.exists(real_path):
        with open(real_path, "rb") as file:
            samples[REAL_CLIP] = file.read()
    return samples


def make_corpus(folder, samples, seeds):
    """A folder of damaged files with good ones between them, as the corpus `folder` reads it."""
    folder.mkdir()
    good_names = itertools.cycle([name for name in (*GOOD_FILES, REAL_CLIP) if name in samples])
    csv_rows = ["path,label,speaker"]
    for number, seed in enumerate(seeds):
        files = [mutate(samples, seed)]
        if number % GOOD_CLIP_INTERVAL == 0:
            name = next(good_names)
            files.append((f"{seed:05d}_good_{name}", samples[name]))
        for name, data in files:
            (folder / name).write_bytes(data)
            speaker = zlib.crc32(data) % 6  # equal files are one speaker's: `verify` wants them in one split
            csv_rows.append(f"{name},{['low', 'high'][number % 2]},speaker {speaker}")
    (folder / "clips.csv").write_text("\n".join(csv_rows) + "\n")
    return read_corpus(str(folder))


def check_outcomes(clips, outcomes, expected_data, duration_seconds):
    """`outcomes`: (status, reason, data) of each clip; `records_of_good_clips`: data of a good clip without
    bad neighbours."""
    shape = record_shape(SETTINGS)
    for clip, (status, reason, data) in zip(clips, outcomes, strict=True):
        message = f"{clip.clip_id}: {status}: {reason}"
        assert status in ("kept", "masked", "failed"), message
        assert (status == "failed") == (data is None), message
        assert reason or status == "kept", message
        assert "\n" not in reason, message
        assert "internal error" not in reason, message
        assert "it took more than" not in reason, message
        assert data == expected_data.get(clip.clip_id, data), message
        if data is not None:
            check_record(records.decode(data, shape), clip)
    assert duration_seconds < MAX_SECONDS_PER_CLIP * len(clips)


def check_record(record, clip):
    assert record.clip_id == clip.clip_id
    assert record.audio_ok or record.video_ok
    assert len(record.spectrogram)
    for field in ("spectrogram", "votes", "face_time", "face_box", "face_landmarks", "face_score"):
        assert np.isfinite(getattr(record, field)).all(), f"{clip.clip_id}: {field}"


def make_job(corpus):
    return PrepJob(SETTINGS, corpus.name, len(corpus.classes))


def records_of_good_clips(corpus):
    """Clip id to the record of each good clip, from a run without the others."""
    clips = [clip for clip in corpus.clips if "_good_" in clip.clip_id]
    outcomes = list(process_clips(clips, make_job(corpus), 1))
    assert [outcome.reason for outcome in outcomes if outcome.data is None] == []
    return {clip.clip_id: outcome.data for clip, outcome in zip(clips, outcomes, strict=True)}


def test_a_corpus_of_damaged_files_is_prepared(samples, tmp_path):
    """200 files through all of `prepare`, whose `verify` finds nothing wrong."""
    corpus = make_corpus(tmp_path / "source", samples, range(200))
    start_time = time.monotonic()
    summary = prepare(corpus, SETTINGS, str(tmp_path / "records"), workers=2, shards=3)
    duration_seconds = time.monotonic() - start_time
    assert summary.problems == ()
    stored_records = (data for path in records.shard_paths(summary.output) for data in read_shard(path))
    outcomes = [
        (row["status"], row["reason"], None if row["status"] == "failed" else next(stored_records))
        for row in manifest_by_clip(summary.output).values()
    ]
    check_outcomes(corpus.clips, outcomes, records_of_good_clips(corpus), duration_seconds)
    assert summary.num_complete + summary.masked > 80  # most damage is survived, and not all
    assert len(summary.failed) > 40


@pytest.mark.long
@pytest.mark.parametrize("part", range(4))
def test_two_thousand_damaged_files(samples, tmp_path, part):
    corpus = make_corpus(tmp_path / "source", samples, range(200 + 500 * part, 700 + 500 * part))
    start_time = time.monotonic()
    outcomes = [(o.status, o.reason, o.data) for o in process_clips(corpus.clips, make_job(corpus), 2)]
    check_outcomes(corpus.clips, outcomes, records_of_good_clips(corpus), time.monotonic() - start_time)


def test_audio_in_64_bit_numbers_is_an_error(samples, tmp_path):
    """FFmpeg decodes it; NumPy gets none of it from PyAV."""
    data = bytearray(samples["sound.wav"])
    data[28:36] = struct.pack("<IHH", 8 * 16_000, 8, 64)  # bytes a second, bytes a sample, bits
    (tmp_path / "a.wav").write_bytes(data)
    (outcome,) = process_clips(
        [MediaClip("a", str(tmp_path / "a.wav"), 0, "a")], PrepJob(SETTINGS, "test", 2), 0
    )
    assert outcome.reason.startswith("audio: sample format s64 is not supported; ")
    assert outcome.reason.endswith("; no video stream")


@pytest.mark.parametrize(("layout", "channels"), [("6.1", 7), ("7.1", 8), ("hexadecagonal", 16)])
def test_many_channels_are_their_mean(tmp_path, layout, channels):
    """A low tone in all but one, low enough for LFE; PyAV shows more planes than there are channels."""
    audio = np.stack([tone(1.0, 60, rate=48_000)] * (channels - 1) + [np.zeros(48_000, np.float32)], 1)
    with av.open(str(tmp_path / "a.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=48_000, layout=layout, bit_rate=1_000_000)
        frame = av.AudioFrame.from_ndarray(audio.reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate, frame.pts = 48_000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (first_block, *other_blocks) = read_audio_blocks(probe_media(str(tmp_path / "a.m4a")), 0.25, 0.75, 48_000)
    rms = np.sqrt(np.square(np.concatenate([first_block, *other_blocks])).mean())
    assert rms == pytest.approx(0.3 / np.sqrt(2) * (channels - 1) / channels, rel=0.03)


def test_audio_that_the_decoder_delays_to_the_end_has_a_time(samples, tmp_path):
    """Where a block is lost, Opus may keep a frame until it is drained; PyAV gives that frame no clock."""
    data, path = samples["film.webm"], tmp_path / "a.webm"
    for start in range(len(data) // 2, len(data) - 342, 50):
        path.write_bytes(data[:start] + bytes(342) + data[start + 342 :])
        with contextlib.suppress(MediaError):
            assert (
                sum(len(block) for block in read_audio_blocks(probe_media(str(path)), 0.0, 1.0, 16_000))
                <= 16_001
            )


@pytest.mark.parametrize(
    ("size", "count", "shape"), [((64, 48), 4, (48, 64, 3)), ((100_000, 1), 4000, (1, 50_166, 3))]
)
def test_pictures_shrink_to_one_line_at_least(size, count, shape):
    image, scale = _to_image(av.VideoFrame(*size, "yuv444p"), VideoReformatter(), count, None)
    assert image.shape == shape
    assert scale == pytest.approx(shape[1] / size[0], rel=1e-5)


def test_pixels_without_conversion_to_rgb_are_an_error():
    with pytest.raises(MediaError, match="pixel format gray32le"):
        _to_image(av.VideoFrame(64, 64, "gray32le"), VideoReformatter(), 1, None)


def test_equal_seeds_give_equal_files(samples):
    first, second = ([mutate(samples, seed) for seed in range(64)] for _ in range(2))
    assert first == second
    assert len({data for _, data in first}) > 50
    untouched = [name for name, data in first if "_as_it_is_" not in name and data in samples.values()]
    assert len(untouched) < 4  # a field may have been extreme before


def test_a_clip_of_no_use_beside_a_good_one(samples, tmp_path):
    """What the asserts above lean on: a good file gives a record, an empty one a reason."""
    (tmp_path / "good.wav").write_bytes(samples["sound.wav"])
    (tmp_path / "bad.wav").write_bytes(samples["sound.wav"][:10])
    clips = [MediaClip(name, str(tmp_path / name), 0, "a") for name in ("good.wav", "bad.wav")]
    good, bad = process_clips(clips, PrepJob(SETTINGS, "test", 2), 2)
    assert good.data is not None
    assert (bad.status, bad.reason, bad.data) == ("failed", "not a media file, or too damaged to read", None)
