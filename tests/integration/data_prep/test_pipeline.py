"""What a whole preparation writes, on a small corpus, on real data and by command."""

import os
import subprocess
import sys

import numpy as np
import pytest

from data_prep.corpora import read_corpus
from data_prep.prepare import prepare
from emofuse_jax.data.dataset import open_dataset, read_statistics, split_indices
from emofuse_jax.data.records import read_manifest
from emofuse_jax.data.writing.manifest import write_manifest
from emofuse_jax.utils.files import file_sha256
from tests.support.media_files import tone, write_wav
from tests.support.paths import ROOT
from tests.support.small_corpus import SETTINGS, manifest_by_clip, open_tfds_source


def test_every_clip_has_its_row(prepared, source):
    output, summary = prepared
    rows = manifest_by_clip(output)
    assert summary.problems == ()
    assert len(rows) == 42
    failure_reasons = {clip: row["reason"] for clip, row in rows.items() if row["status"] == "failed"}
    assert failure_reasons == {
        "absent.mp4": "no such file or directory",
        "empty.mp4": "empty file, expected a media file; copy it again",
        "half.mp4": "not a media file, or too damaged to read",
        "silent.wav": "audio is silent; no video stream",
        "text.mp4": "not a media file, or too damaged to read",
    }
    assert dict(summary.failed) == failure_reasons
    assert (summary.num_complete, summary.masked) == (0, 37)
    assert rows["film.mp4"]["reason"] == "no face in 4 frames"
    assert rows["s0_0.wav"]["sha256"] == file_sha256(os.path.join(source, "s0_0.wav"))
    assert {row["index"] for row in rows.values() if row["status"] == "failed"} == {"-1"}
    assert not list(output.rglob("*.tmp"))


def test_names_with_line_breaks_come_back(tmp_path):
    clips = ["a\rb", "a\nb", 'a"b', "a,b\r"]
    write_manifest(str(tmp_path), [{"clip_id": clip, "index": i} for i, clip in enumerate(clips)])
    rows = read_manifest(str(tmp_path))
    assert [(row["clip_id"], row["index"]) for row in rows] == [(c, str(i)) for i, c in enumerate(clips)]


def test_the_dataset_reads_what_was_written(prepared):
    output, _ = prepared
    dataset = open_dataset(str(output), recipe="fbp")
    assert dataset.classes == ("high", "low")
    assert dataset.speakers == tuple(f"speaker {i}" for i in range(6))
    for clip_id, index in dataset.index.items():
        record = dataset.read(index)
        assert record.clip_id == clip_id
        assert (record.audio_ok, record.video_ok) == (True, False)
        assert record.label == (0 if clip_id[-5] in "135" else 1)


def test_statistics_are_those_of_the_training_clips(prepared):
    output, _ = prepared
    dataset = open_dataset(str(output))
    for fold in range(5):
        train = split_indices(dataset, "grouped_5fold", fold, "train")
        assert len(train) > 0
        frames = np.concatenate([dataset.read(i).spectrogram for i in train]).astype(np.float64)
        mean, std = read_statistics(dataset, "grouped_5fold", fold)
        np.testing.assert_allclose(mean, frames.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(std, frames.std(0), rtol=1e-5, atol=1e-6)
    first = read_statistics(dataset, "grouped_5fold", 0)[0]
    assert np.abs(first - read_statistics(dataset, "grouped_5fold", 1)[0]).max() > 1e-3


def test_a_shard_without_a_record_and_a_corpus_without_one(tmp_path):
    """Files that fail can fill a shard; the rest is kept. If all fail the command says why."""
    write_wav(tmp_path / "z.wav", tone(0.2, rate=16_000))
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    csv_text = "path,label,speaker\na.mp4,x,ann\nb.mp4,x,ann\n"
    (tmp_path / "bad.csv").write_text(csv_text)
    (tmp_path / "good.csv").write_text(csv_text + "z.wav,x,bob\n")
    corpus = read_corpus("folder", str(tmp_path / "good.csv"))
    summary = prepare(corpus, SETTINGS, str(tmp_path / "good"), workers=0, shards=3)
    assert (summary.masked, len(summary.failed), summary.problems) == (1, 2, ())
    assert open_dataset(str(tmp_path / "good")).read(0).clip_id == "z.wav"
    assert len(open_tfds_source(tmp_path / "good")) == 1
    with pytest.raises(ValueError, match=r"none of 2 clips could be read; .*: empty file"):
        prepare(read_corpus("folder", str(tmp_path / "bad.csv")), SETTINGS, str(tmp_path / "bad"), workers=0)


@pytest.fixture
def command():
    def run(*arguments):
        command_line = [sys.executable, os.path.join(ROOT, "launch", "prepare.py"), *arguments]
        return subprocess.run(command_line, capture_output=True, text=True, cwd=ROOT)

    return run


def test_real_ravdess_by_command(shared_data, command, tmp_path):
    """Three actors, 24 clips, by links: sound kept, video masked."""
    for actor in ("01", "02", "03"):
        folder = os.path.join(shared_data, "ravdess_speech", f"Actor_{actor}")
        (tmp_path / "in" / f"Actor_{actor}").mkdir(parents=True)
        for name in sorted(os.listdir(folder))[::8]:
            (tmp_path / "in" / f"Actor_{actor}" / name).symlink_to(os.path.join(folder, name))
    done = command("--corpus=ravdess", f"--source={tmp_path}/in", f"--output={tmp_path}/out", "--workers=1")
    assert done.returncode == 0, done.stderr
    assert "0 kept, 24 masked, 0 failed" in done.stdout
    dataset = open_dataset(str(tmp_path / "out"))
    assert dataset.prep["sex"] == {"01": "m", "02": "f", "03": "m"}
    records = [dataset.read(i) for i in range(24)]
    assert all(record.audio_ok and not record.video_ok for record in records)
    assert all(250 < len(record.spectrogram) < 600 for record in records)


def test_strict_and_mistakes_by_command(source, command, tmp_path):
    (tmp_path / "clips.csv").write_text("path,label,speaker\na.mp4,x,ann\nb.wav,x,bob\n")
    (tmp_path / "a.mp4").touch()
    write_wav(tmp_path / "b.wav", tone(0.2, rate=16_000))
    flags = ("--corpus=folder", f"--source={tmp_path}", f"--output={tmp_path}/out", "--workers=1")
    strict = command(*flags, "--strict")
    assert strict.returncode == 1
    assert "failed: a.mp4: empty file" in strict.stderr
    assert command(*flags).returncode == 0
    wrong = command("--corpus=folder", "--source=/nowhere", f"--output={tmp_path}/out")
    assert wrong.returncode not in (0, 1) or "nowhere" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert "/nowhere: does not exist" in wrong.stderr
