"""Records with the sound itself: the same from any worker, open to TFDS, and nothing to training."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from data_prep.corpora import read_corpus
from data_prep.prepare import prepare
from data_prep.settings import PrepSettings
from data_prep.verify.records import check_record, verify
from emofuse_jax.data import records
from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.data.pipeline import load_batch
from emofuse_jax.types import InputSpec
from tests.support.media_files import ramp_frames, tone, write_media, write_wav
from tests.support.paths import ROOT
from tests.support.small_corpus import SETTINGS, file_checksums, manifest_by_clip, open_tfds_source

WAVEFORM_SETTINGS = dataclasses.replace(SETTINGS, audio=dataclasses.replace(SETTINGS.audio, waveform=True))
SPEC = InputSpec(t=50, f=200, s=4, h=32, w=32, classes=2)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A sound of each of six speakers, and a film."""
    folder, csv_rows = tmp_path_factory.mktemp("clips"), ["path,label,speaker"]
    for speaker in range(6):
        name = f"s{speaker}.wav"
        write_wav(folder / name, tone(0.2 + 0.1 * speaker, 300 + 50 * speaker, rate=16_000))
        csv_rows.append(f"{name},{['low', 'high'][speaker % 2]},s{speaker}")
    write_media(folder / "film.mp4", frames=ramp_frames(0.5), audio=tone(0.5))
    (folder / "clips.csv").write_text("\n".join([*csv_rows, "film.mp4,low,s0"]) + "\n")
    return str(folder / "clips.csv")


@pytest.fixture(scope="module")
def stored(clips, tmp_path_factory):
    output = tmp_path_factory.mktemp("stored")
    prepare(read_corpus("folder", clips), WAVEFORM_SETTINGS, str(output), workers=0, shards=2)
    return output


def test_each_record_holds_its_sound(stored):
    assert verify(str(stored)) == []
    dataset = open_dataset(str(stored), recipe="fbp")
    assert dataset.prep["schema_version"] == 4
    assert dataset.prep["shape"] == dataclasses.asdict(records.RecordShape(200, 32, 32, waveform=True))
    assert PrepSettings.from_dict(dataset.prep["settings"]) == WAVEFORM_SETTINGS
    for clip, index in dataset.index.items():
        record = dataset.read(index)
        assert record.waveform.dtype == np.int16
        assert len(record.spectrogram) == 1 + len(record.waveform) // 160
        if clip.endswith(".wav"):
            speaker = int(clip[1])
            expected = 32767 * tone(0.2 + 0.1 * speaker, 300 + 50 * speaker, rate=16_000)
            np.testing.assert_allclose(record.waveform, expected, atol=2)


def test_the_command_writes_the_same_bytes_in_workers(clips, stored, tmp_path):
    flags = [f"--source={clips}", f"--output={tmp_path}", "--waveform", "--shards=2", "--workers=2"]
    flags += ["--frames=4", "--face_size=32", "--corpus=folder"]
    command = [sys.executable, "launch/prepare.py", *flags]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours, theirs = file_checksums(stored), file_checksums(tmp_path)
    assert {name: theirs[name] for name in ours} == ours
    with pytest.raises(ValueError, match=r"was started with settings\.audio\.waveform True, now False"):
        prepare(read_corpus("folder", clips), SETTINGS, str(tmp_path), workers=0, shards=2)


def test_tfds_opens_them(stored):
    dataset, source = open_dataset(str(stored)), open_tfds_source(stored)
    assert len(source) == 7
    for index in range(len(source)):
        theirs, ours = source[index], dataset.read(index)
        assert theirs["waveform"].dtype == np.int16
        np.testing.assert_array_equal(theirs["waveform"], ours.waveform)
        np.testing.assert_array_equal(theirs["spectrogram"], ours.spectrogram)
    masked = records.encode(dataclasses.replace(ours, waveform=np.zeros(0, np.int16), audio_ok=False))
    assert source.dataset_info.features.deserialize_example_np(masked)["waveform"].shape == (0,)


def test_training_does_not_see_them(clips, stored, tmp_path):
    prepare(read_corpus("folder", clips), SETTINGS, str(tmp_path), workers=0, shards=2)
    with_waveform, without_waveform = (
        load_batch(open_dataset(str(path)), np.arange(7), SPEC) for path in (stored, tmp_path)
    )
    for field in dataclasses.fields(with_waveform):
        np.testing.assert_array_equal(
            getattr(with_waveform, field.name), getattr(without_waveform, field.name)
        )
    assert open_dataset(str(tmp_path)).prep["shape"]["waveform"] is False
    assert not any(b"waveform" in open_dataset(str(tmp_path)).read_bytes(i) for i in range(7))


def test_a_missing_waveform_is_reported(stored):
    dataset = open_dataset(str(stored))
    record = dataset.read(0)
    row = manifest_by_clip(stored)[record.clip_id]
    assert check_record(record, row, dataset.prep) == []
    record_without_waveform = dataclasses.replace(record, waveform=record.waveform[:0])
    problem = f"{record.clip_id}: waveform has samples False, expected True"
    assert check_record(record_without_waveform, row, dataset.prep) == [problem]
