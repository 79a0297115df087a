"""Features in a whole preparation: beside the tensors, or instead of them."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from data_prep.corpora import read_corpus
from data_prep.onnx_models.encoders import EncoderFiles
from data_prep.prepare import prepare
from data_prep.probe_encoders import with_encoders
from data_prep.settings import RECIPES, PrepSettings
from data_prep.verify.records import check_record, verify
from emofuse_jax.data import records
from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.data.writing.shards import read_shard
from emofuse_jax.utils.files import file_sha256
from tests.support import onnx_models
from tests.support.feature_corpus import FACES, make_clips, make_encoders, run_prepare
from tests.support.paths import ROOT
from tests.support.small_corpus import file_checksums, open_tfds_source

SETTINGS = PrepSettings(face=FACES)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_clips(tmp_path_factory.mktemp("clips") / "in")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_encoders(tmp_path_factory.mktemp("encoders"))


@pytest.fixture(scope="module")
def dropped(clips, files, tmp_path_factory):
    output = tmp_path_factory.mktemp("dropped")
    return output, run_prepare(clips, output, files, "drop")


def test_features_instead_of_tensors(dropped, files):
    output, summary = dropped
    assert (summary.num_complete, summary.masked, summary.failed, summary.problems) == (6, 1, (), ())
    dataset = open_dataset(str(output), recipe="features")
    assert dataset.prep["schema_version"] == 4
    assert dataset.prep["shape"] == dataclasses.asdict(records.RecordShape(200, 0, 0, 5, 7))
    paths = json.loads((output / records.ENCODER_PATHS_FILE).read_text())
    assert paths == {"audio": files.audio, "face": files.face}
    assert dataset.prep["settings"]["features"]["face"]["sha256"] == file_sha256(files.face)
    assert "onnxruntime" in dataset.prep["versions"]
    for clip, index in dataset.index.items():
        record = dataset.read(index)
        assert record.spectrogram.shape == (0, 200)
        assert record.faces.shape == (2, 0, 0, 3)
        assert record.audio_features.shape[1] == 5
        assert len(record.audio_features) > 20
        assert record.face_features.shape == (2, 7)
        assert record.face_valid.any() == record.face_features.any() == clip.endswith(".mp4")


def test_tfds_opens_them(dropped):
    output, _ = dropped
    dataset = open_dataset(str(output))
    source = open_tfds_source(output)
    for example in source:
        record = dataset.read(dataset.index[example["clip_id"].decode()])
        for field in ("audio_features", "face_features", "spectrogram", "faces"):
            np.testing.assert_array_equal(example[field], getattr(record, field))


def test_features_beside_tensors_and_the_same_bytes_from_a_worker(clips, files, dropped, tmp_path):
    run_prepare(clips, tmp_path / "keep", files, "keep", recipe="fbp")
    run_prepare(clips, tmp_path / "plain", EncoderFiles(), "keep", recipe="fbp")
    with_both, tensors_only, features_only = (
        open_dataset(str(path)) for path in (tmp_path / "keep", tmp_path / "plain", dropped[0])
    )
    assert tensors_only.prep["settings"]["features"] == {
        "tensors": "keep",
        "audio": None,
        "face": None,
        "detector": None,
    }
    assert (tensors_only.prep["schema_version"], with_both.prep["schema_version"]) == (4, 4)
    assert set(tensors_only.prep) == set(with_both.prep)
    for index in range(7):
        both_record, tensors_record, features_record = (
            dataset.read(index) for dataset in (with_both, tensors_only, features_only)
        )
        np.testing.assert_array_equal(both_record.spectrogram, tensors_record.spectrogram)
        np.testing.assert_array_equal(both_record.faces, tensors_record.faces)
        np.testing.assert_array_equal(both_record.audio_features, features_record.audio_features)
        np.testing.assert_array_equal(both_record.face_features, features_record.face_features)
        assert tensors_record.audio_features is None
    run_prepare(clips, tmp_path / "worker", files, "drop", workers=1)
    assert file_checksums(tmp_path / "worker") == file_checksums(dropped[0])


def test_the_same_encoders_elsewhere_under_other_names_go_on_with_the_same_files(
    clips, files, dropped, tmp_path
):
    """`dropped` was stopped before its last shard; then the encoders moved."""
    output, names = tmp_path / "out", {"audio": "heard", "face": "seen"}
    shutil.copytree(dropped[0], output)
    os.remove(records.shard_paths(str(output))[1])
    os.remove(output / "prep.json")
    for kind, name in names.items():
        for suffix in (".onnx", ".yaml"):
            old_stem = getattr(files, kind).removesuffix(".onnx")
            shutil.copyfile(old_stem + suffix, tmp_path / (name + suffix))
    moved_files = EncoderFiles(*(str(tmp_path / f"{name}.onnx") for name in names.values()))
    assert run_prepare(clips, output, moved_files, "drop").problems == ()
    files_before, files_after = file_checksums(dropped[0]), file_checksums(output)
    assert files_before.pop(records.ENCODER_PATHS_FILE) != files_after.pop(records.ENCODER_PATHS_FILE)
    assert files_after == files_before
    other_files = EncoderFiles(onnx_models.waveform_encoder(tmp_path / "o.onnx", gain=2.0), files.face)
    with pytest.raises(ValueError, match=r"settings\.features\.audio\.sha256 .*use another --output"):
        run_prepare(clips, output, other_files, "drop")


def test_records_of_the_same_encoder_under_another_name_are_those_of_the_checkpoint(dropped, monkeypatch):
    from types import SimpleNamespace

    from emofuse_jax.training import experiment

    settings = open_dataset(str(dropped[0])).prep["settings"]
    monkeypatch.setattr(experiment, "make_metadata", lambda _: {"settings": settings})
    fake_experiment = SimpleNamespace(dataset=SimpleNamespace(path="records"))
    saved_settings = json.loads(json.dumps(settings))
    saved_settings["features"]["audio"]["file"] = "heard.onnx"
    experiment.check_same_data(fake_experiment, {"settings": saved_settings}, ("settings",))
    saved_settings["features"]["audio"]["sha256"] = "0"
    with pytest.raises(ValueError, match="records: settings differ from those of the checkpoint"):
        experiment.check_same_data(fake_experiment, {"settings": saved_settings}, ("settings",))


def test_a_failed_encoder_of_stored_audio_is_noted_and_valid(clips, tmp_path):
    overflowing_encoder = EncoderFiles(onnx_models.waveform_encoder(tmp_path / "m.onnx", gain=1e9))
    summary = run_prepare(clips, tmp_path / "out", overflowing_encoder, "keep", recipe="fbp")
    assert (summary.num_complete, summary.masked, summary.failed, summary.problems) == (6, 1, (), ())
    manifest_text = (tmp_path / "out" / "manifest.csv").read_text()
    assert manifest_text.count("audio encoder: values are not finite in float16") == 7
    assert len(open_dataset(str(tmp_path / "out")).read(0).audio_features) == 0


def test_one_encoder_drops_only_its_tensors(clips, files, tmp_path):
    summary = run_prepare(clips, tmp_path, EncoderFiles(files.audio), "drop")
    assert summary.problems == ()
    dataset = open_dataset(str(tmp_path))
    assert dataset.prep["shape"] == dataclasses.asdict(records.RecordShape(200, 24, 24, 5))
    record = dataset.read(0)
    assert record.spectrogram.shape == (0, 200)
    assert record.faces.any()
    assert record.face_features is None


def test_preparing_checks_the_files_first(clips, files, tmp_path):
    corpus = read_corpus("folder", clips)
    settings = with_encoders(SETTINGS, files)
    with pytest.raises(ValueError, match=r"audio encoder voice\.onnx"):
        prepare(corpus, settings, str(tmp_path / "out"), workers=0)
    with pytest.raises(ValueError, match="recipe 'features' drops tensors: set --audio_encoder or"):
        prepare(corpus, RECIPES["features"], str(tmp_path / "out"), workers=0)
    assert not os.path.exists(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda r: {"audio_features": np.full_like(r.audio_features, np.nan)},
            "audio_features is finite False",
        ),
        (lambda r: {"audio_features": r.audio_features[:0]}, "audio_features has no vector"),
        (lambda r: {"face_features": np.full_like(r.face_features, np.inf)}, "face_features is finite False"),
        (
            lambda r: {"face_valid": np.array([True, False])},
            "face_features is not zero where nothing was encoded",
        ),
        (lambda r: {"audio_ok": False}, "audio_features is not zero where nothing was encoded"),
        (lambda r: {"spectrogram": np.zeros((1, 200), np.float16)}, "spectrogram has frames True"),
    ],
)
def test_verify_finds_wrong_features(dropped, change, message):
    output, _ = dropped
    dataset = open_dataset(str(output))
    record = dataset.read(0)
    row = {"clip_id": record.clip_id, "speaker": record.speaker, "label": record.label, "status": "kept"}
    assert check_record(record, row, dataset.prep) == []
    problems = check_record(dataclasses.replace(record, **change(record)), row, dataset.prep)
    assert any(message in problem for problem in problems), problems


def test_verify_finds_features_of_another_width(dropped, tmp_path):
    shutil.copytree(dropped[0], tmp_path / "copy")
    path = tmp_path / "copy" / "prep.json"
    prep = json.loads(path.read_text())
    prep["shape"]["audio_features"] = 9
    path.write_text(json.dumps(prep))
    assert any("field audio_features" in problem for problem in verify(str(tmp_path / "copy")))


def test_by_command(clips, files, tmp_path):
    """A wrong YAML is one line before any clip; the recipe of features is not another name for fbp."""

    def run(*flags):
        command_line = [sys.executable, os.path.join(ROOT, "launch", "prepare.py"), "--corpus=folder"]
        command_line += [
            f"--source={clips}",
            f"--output={tmp_path / 'out'}",
            "--workers=1",
            "--frames=2",
            *flags,
        ]
        return subprocess.run(command_line, capture_output=True, text=True, cwd=ROOT)

    wrong = onnx_models.waveform_encoder(tmp_path / "w.onnx", hop_ms="20")
    done = run(f"--audio_encoder={wrong}")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        f"emofuse: {tmp_path}/w.yaml: key 'hop_ms' is '20', expected a number above 0"
    )
    assert not os.path.exists(tmp_path / "out")
    done = run("--recipe=features", f"--audio_encoder={files.audio}", f"--face_encoder={files.face}")
    assert done.returncode == 0, done.stderr
    dataset = open_dataset(str(tmp_path / "out"), "features")
    assert dataset.prep["settings"]["features"]["tensors"] == "drop"
    (first, *_) = (read_shard(path) for path in records.shard_paths(str(tmp_path / "out")))
    assert len(next(first)) < 20_000
