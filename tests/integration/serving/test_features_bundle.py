"""From raw clips through frozen encoders to an answer: prepare, train, export, predict."""

import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from data_prep.onnx_models.encoders import EncoderFiles
from data_prep.process_clip import process_clip
from data_prep.settings import PrepSettings
from emofuse_jax.api.evaluation import evaluate_workdir, load_trained_experiment
from emofuse_jax.api.export import export_bundle
from emofuse_jax.data.collate import empty_batch, fill_row
from emofuse_jax.data.dataset import read_json
from emofuse_jax.data.records import ENCODER_PATHS_FILE
from emofuse_jax.data.writing.corpus import MediaClip
from emofuse_jax.serving import load
from emofuse_jax.serving.bundle import format
from emofuse_jax.serving.media.prepare_window import prep_settings
from emofuse_jax.serving.predict import bundle_input_spec
from emofuse_jax.training.metric_writer import read_metric_rows
from emofuse_jax.utils.files import file_sha256
from tests.support import onnx_models
from tests.support.feature_corpus import make_clips, make_encoders, run_prepare
from tests.support.paths import ROOT

FUSIONS = ("am_fbp", "audio_only")
"""Vectors with trunks, and one stream."""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "1"}


def run_script(verb, *arguments, cwd):
    command_line = [sys.executable, os.path.join(ROOT, "launch", f"{verb}.py"), *arguments]
    return subprocess.run(command_line, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Clips, encoders, records of features alone."""
    home = tmp_path_factory.mktemp("features")
    source, files = make_clips(home / "clips"), make_encoders(home / "encoders", "spectrogram")
    assert run_prepare(source, home / "records", files, "drop", frames=4).problems == ()
    return home


@pytest.fixture(scope="module")
def workdirs(home):
    """Two steps of each fusion, by command."""
    small = {"model.audio.embedding": 8, "model.video.embedding": 8, "data.batch_size": 2, "train.epochs": 2}
    small |= {"train.eval_batch_size": 2, "train.log_every": 1, "data.path": home / "records"}
    fields = [f"--config.{name}={value}" for name, value in small.items()]
    for fusion in FUSIONS:
        extra = ["--config.model.fusion.width=8"] if fusion == "am_fbp" else []
        arguments = [f"--config=features:{fusion}", *fields, *extra, f"--workdir={fusion}"]
        done = run_script("train", *arguments, cwd=home)
        assert done.returncode == 0, done.stderr[-3000:]
    return {fusion: str(home / fusion) for fusion in FUSIONS}


@pytest.fixture(scope="module")
def bundle_without_encoders(home, workdirs):
    """A bundle that only names its encoders."""
    export_bundle(workdirs["am_fbp"], str(home / "named"))
    return str(home / "named")


@pytest.fixture(scope="module")
def bundle_with_encoders(home, workdirs):
    """A bundle that carries them, exported by command."""
    done = run_script("export", "--workdir=am_fbp", "--output=carrying", "--include_encoders", cwd=home)
    assert done.returncode == 0, done.stderr[-3000:]
    return str(home / "carrying")


@pytest.fixture(scope="module")
def encoder_paths(home):
    files = {
        kind: str(home / "encoders" / f"{name}.onnx") for kind, name in (("audio", "voice"), ("face", "face"))
    }
    return {f"{kind}_encoder": path for kind, path in files.items()}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_trained_two_steps_and_is_scored(workdirs, fusion):
    rows = [
        row
        for row in read_metric_rows(os.path.join(workdirs[fusion], "metrics.jsonl"))
        if "gradient_norm" in row
    ]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(np.isfinite(row["loss"]) and row["gradient_norm"] > 0 for row in rows)
    results, examples = evaluate_workdir(workdirs[fusion], split="validation", example_count=3)
    assert np.isfinite(results["probabilities"]).all()
    assert set(results["modalities"]) == ({"audio"} if fusion == "audio_only" else {"both", "audio", "video"})
    assert examples[0]["faces"] is None
    assert examples[0]["spectrogram"] is None


def test_the_report_draws_clips_of_features_alone(workdirs, tmp_path):
    from emofuse_jax.reporting.run_report import write_report

    results, examples = evaluate_workdir(workdirs["am_fbp"], split="validation", example_count=3)
    page = tmp_path / "report.html"
    write_report(str(page), results=results, history=[], examples=examples, title="features")
    assert page.stat().st_size > 10_000


CARDS = {"MODEL_CARD.md", "DATA_CARD.md"}


def predict_from_checkpoint(workdir, path):
    """What the checkpoint says of a clip that is prepared as its records were."""
    experiment, params, state, metadata = load_trained_experiment(workdir, "best", "")
    settings = PrepSettings.from_dict(metadata["settings"])
    files = EncoderFiles(**read_json(os.path.join(experiment.dataset.path, ENCODER_PATHS_FILE)))
    record = process_clip(MediaClip("new", path, -1, ""), settings, encoder_files=files)
    batch = empty_batch(1, experiment.spec)
    fill_row(batch, 0, record)
    outputs, _ = jax.jit(lambda p, s, b: experiment.model.apply(p, s, b))(params, state, batch)
    return np.asarray(jax.nn.softmax(outputs.logits / metadata["temperature"]))[0]


def test_a_bundle_names_its_encoders_and_takes_them(home, bundle_without_encoders, workdirs, encoder_paths):
    metadata = json.loads((home / "named" / "bundle.json").read_text())
    assert set(metadata["encoders"]) == {"audio", "face"}
    assert metadata["encoders"]["audio"] == {
        "file": "voice.onnx",
        "sha256": file_sha256(encoder_paths["audio_encoder"]),
    }
    assert set(metadata["files"]) == {"model.stablehlo", "params.safetensors", "parity.npz", *CARDS}
    assert metadata["window"] == {"steps": 100, "seconds": 4.0}
    bundle = load(bundle_without_encoders, **encoder_paths)
    assert set(bundle.inputs) == {"audio_features", "audio_features_mask", "face_features", "face_mask"}
    assert bundle.inputs["audio_features"] == ((100, 6), np.float16)
    video_path = str(home / "clips" / "s2_1.mp4")
    (prediction,) = bundle.predict(video_path)
    assert (prediction.audio_ok, prediction.video_ok) == (True, True)
    np.testing.assert_allclose(
        list(prediction.probabilities.values()),
        predict_from_checkpoint(workdirs["am_fbp"], video_path),
        atol=1e-4,
    )
    (audio_prediction,) = bundle.predict(str(home / "clips" / "voice.wav"))
    assert (audio_prediction.voice_weight, audio_prediction.face_weight, audio_prediction.video_ok) == (
        1.0,
        0.0,
        False,
    )
    assert audio_prediction.probabilities != prediction.probabilities


def test_without_them_it_says_which_hash_is_missing(home, bundle_without_encoders, encoder_paths):
    digest = file_sha256(encoder_paths["audio_encoder"])
    message = (
        rf"named: the bundle does not contain its audio encoder voice\.onnx; pass"
        rf" --audio_encoder=FILE .* {digest}$"
    )
    bundle = load(bundle_without_encoders)  # what is prepared elsewhere it can answer
    arrays = {name: np.zeros((2, *shape), dtype) for name, (shape, dtype) in bundle.inputs.items()}
    assert np.isfinite(bundle.run(arrays)["probabilities"]).all()
    with pytest.raises(ValueError, match=message):
        bundle.predict(str(home / "clips" / "voice.wav"))
    face = f"--face_encoder={encoder_paths['face_encoder']}"
    done = run_script("predict", "--bundle=named", "clips/voice.wav", face, cwd=home)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip() == (
        "emofuse: named: the bundle does not contain its audio encoder voice.onnx; pass --audio_encoder=FILE"
        f" (audio_encoder=FILE to `load` in Python) with sha256 {digest}"
    )
    both = [f"--{flag}={path}" for flag, path in encoder_paths.items()]
    done = run_script("predict", "--bundle=named", "clips/s0_0.mp4", *both, cwd=home)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["audio_ok"]


def test_another_encoder_is_refused(bundle_without_encoders, encoder_paths, tmp_path):
    other = onnx_models.spectrogram_encoder(tmp_path / "o.onnx", bins=200, hop_ms=41)
    with open(other, "ab") as file:
        file.write(b"\0")
    digest = file_sha256(encoder_paths["audio_encoder"])
    with pytest.raises(ValueError, match=rf"o\.onnx: sha256 \w+: expected {digest}, .*named"):
        load(bundle_without_encoders, audio_encoder=other)
    with pytest.raises(ValueError, match=r"none\.onnx: cannot be read: No such file"):
        load(bundle_without_encoders, audio_encoder=str(tmp_path / "none.onnx"))


def test_a_bundle_carries_its_encoders(
    home, bundle_with_encoders, bundle_without_encoders, encoder_paths, tmp_path
):
    moved_bundle = shutil.copytree(bundle_with_encoders, tmp_path / "bundle")
    files = json.loads((moved_bundle / "bundle.json").read_text())["files"]
    assert files["audio_encoder.onnx"] == file_sha256(encoder_paths["audio_encoder"])
    assert {"audio_encoder.yaml", "face_encoder.onnx", "face_encoder.yaml"} <= set(files)
    bundle = load(str(moved_bundle))
    assert all(path.startswith(str(moved_bundle)) for path in bundle.encoders.values())
    video_path = str(home / "clips" / "s1_0.mp4")
    (prediction,), (other_prediction,) = (
        bundle.predict(video_path),
        load(bundle_without_encoders, **encoder_paths).predict(video_path),
    )
    assert prediction.probabilities == pytest.approx(other_prediction.probabilities, abs=1e-6)
    data = (moved_bundle / "face_encoder.onnx").read_bytes()
    (moved_bundle / "face_encoder.onnx").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"face_encoder\.onnx: modified or damaged"):
        load(str(moved_bundle))


def test_an_encoder_that_was_moved_is_asked_for(home, workdirs, encoder_paths, tmp_path):
    moved_path = tmp_path / "moved.onnx"
    os.rename(encoder_paths["face_encoder"], moved_path)
    try:
        digest = file_sha256(moved_path)
        with pytest.raises(
            ValueError, match=rf"face\.onnx was not found; pass --face_encoder=FILE .* {digest}"
        ):
            export_bundle(workdirs["am_fbp"], str(tmp_path / "bundle"), encoders={})
        assert not os.path.exists(tmp_path / "bundle")
        wrong = {"face": encoder_paths["audio_encoder"]}
        with pytest.raises(ValueError, match=rf"voice\.onnx: sha256 \w+: expected {digest}"):
            export_bundle(workdirs["am_fbp"], str(tmp_path / "bundle"), encoders=wrong)
        export_bundle(workdirs["am_fbp"], str(tmp_path / "bundle"), encoders={"face": str(moved_path)})
        assert file_sha256(tmp_path / "bundle" / "face_encoder.onnx") == digest
        assert not os.path.exists(tmp_path / "bundle" / "face_encoder.yaml")
    finally:
        os.rename(moved_path, encoder_paths["face_encoder"])


def test_a_model_of_one_stream_asks_for_its_own_encoder_alone(home, workdirs, encoder_paths, tmp_path):
    export_bundle(workdirs["audio_only"], str(tmp_path / "bundle"))
    audio = {"audio_encoder": encoder_paths["audio_encoder"]}
    bundle = load(str(tmp_path / "bundle"), **audio)
    assert set(bundle.inputs) == {"audio_features", "audio_features_mask"}
    settings, spec = prep_settings(bundle), bundle_input_spec(bundle)
    assert settings.features.face is None
    assert (spec.face_features, spec.audio_features, spec.h) == (0, 6, 0)
    video_path = str(home / "clips" / "s2_0.mp4")
    (prediction,) = bundle.predict(video_path)
    expected = predict_from_checkpoint(workdirs["audio_only"], video_path)
    np.testing.assert_allclose(list(prediction.probabilities.values()), expected, atol=1e-4)
    with pytest.raises(ValueError, match="uses no face encoder"):
        load(str(tmp_path / "bundle"), **encoder_paths)


def test_bundles_of_tensors_know_no_encoder(bundle_path, encoder_paths):
    bundle = load(bundle_path)
    assert bundle.encoders == {}
    assert list(bundle.inputs) == ["audio", "audio_mask", "face_mask", "faces"]
    assert "encoders" not in bundle.metadata
    with pytest.raises(ValueError, match="uses no audio encoder"):
        load(bundle_path, audio_encoder=encoder_paths["audio_encoder"])


def test_a_manifest_with_odd_encoders_is_refused(bundle_without_encoders, tmp_path):
    bundle_copy = shutil.copytree(bundle_without_encoders, tmp_path / "copy")
    metadata = format.read_manifest(str(bundle_copy))
    for bad_encoders, message in (
        ([], "field encoders: expected dict"),
        ({"audio": {"file": "x"}}, "audio.sha256: expected"),
    ):
        (bundle_copy / "bundle.json").write_text(json.dumps(metadata | {"encoders": bad_encoders}))
        with pytest.raises(ValueError, match=message):
            load(str(bundle_copy))


def test_a_record_of_one_stream_only_fills_what_is_read(bundle_without_encoders):
    settings, spec = (
        prep_settings(load(bundle_without_encoders)),
        bundle_input_spec(load(bundle_without_encoders)),
    )
    assert (spec.t, spec.h, spec.feature_steps) == (0, 0, 100)
    assert settings.features.drops_faces
