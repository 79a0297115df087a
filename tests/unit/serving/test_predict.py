import dataclasses
import glob
import json
import math
import os
import shutil
import subprocess
import sys
import wave

import av
import numpy as np
import pytest

from data_prep.process_clip import process_clip
from data_prep.settings import PrepSettings
from emofuse_jax.data.collate import empty_batch, fill_row
from emofuse_jax.data.records import Failure
from emofuse_jax.data.writing.corpus import MediaClip
from emofuse_jax.serving import load
from tests.support.bundles import CLASSES, SETTINGS, SPEC

PREDICTION_FIELDS = {
    "path",
    "start",
    "end",
    "label",
    "confidence",
    "probabilities",
    "voice_weight",
    "face_weight",
    "audio_ok",
    "video_ok",
}


def write_audio(path, seconds: float, quiet_after: float = math.inf) -> str:
    rng = np.random.default_rng(0)
    time = np.arange(round(seconds * 16_000)) / 16_000
    samples = 0.2 * np.sin(2 * np.pi * (150 + 60 * time) * time) + 0.02 * rng.normal(size=len(time))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((samples * (time < quiet_after) * 32767).astype("<i2").tobytes())
    return str(path)


def write_video(path) -> str:
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as writer:
        stream = writer.add_stream("mpeg4", rate=25, width=64, height=64, pix_fmt="yuv420p")
        for _ in range(30):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (64, 64, 3), np.uint8), format="rgb24")
            writer.mux(stream.encode(frame))
        writer.mux(stream.encode())
    return str(path)


def write_two_people(source: str, path) -> str:
    """The same face twice, the right one at half the size."""
    with av.open(source) as reader:
        images = [frame.to_ndarray(format="rgb24") for frame in reader.decode(video=0)][:30]
    with av.open(str(path), "w") as writer:
        height, width, _ = images[0].shape
        stream = writer.add_stream("mpeg4", rate=25, width=2 * width, height=height, pix_fmt="yuv420p")
        stream.bit_rate = 4_000_000
        for image in images:
            both = np.full((height, 2 * width, 3), 120, np.uint8)
            both[:, :width], small = image, image[::2, ::2]
            both[: len(small), width : width + small.shape[1]] = small
            writer.mux(stream.encode(av.VideoFrame.from_ndarray(both, format="rgb24")))
        writer.mux(stream.encode())
    return str(path)


def copy_without_audio(source: str, path) -> str:
    with av.open(source) as reader, av.open(str(path), "w") as writer:
        video = reader.streams.video[0]
        output_stream = writer.add_stream_from_template(video)
        for packet in reader.demux(video):
            if packet.dts is not None:
                packet.stream = output_stream
                writer.mux(packet)
    return str(path)


@pytest.fixture(scope="module")
def bundle(bundle_path):
    return load(bundle_path)


def test_predicting_prepares_as_training_does(trained, bundle, tmp_path):
    path = write_audio(tmp_path / "voice.wav", 1.4)
    (window,) = bundle.predict(path)
    record = process_clip(MediaClip("voice", path, -1, ""), SETTINGS)
    batch = empty_batch(1, SPEC)
    fill_row(batch, 0, record)
    names = ("audio", "audio_mask", "faces", "face_mask")
    checkpoint_outputs = trained.predict({name: getattr(batch, name) for name in names})
    expected = dict(zip(CLASSES, checkpoint_outputs["probabilities"][0].tolist(), strict=True))
    assert window.probabilities == pytest.approx(expected, abs=1e-5)
    assert window.label == max(expected, key=expected.get)
    assert window.confidence == max(window.probabilities.values())
    assert (window.start, window.end) == (0.0, pytest.approx(1.4, abs=1e-3))
    assert (window.audio_ok, window.video_ok) == (True, False)
    assert (window.voice_weight, window.face_weight) == (1.0, 0.0)


def test_an_answer_less_sure_than_asked_for_is_unknown(bundle, tmp_path):
    path = write_audio(tmp_path / "voice.wav", 1.4)
    (window,) = bundle.predict(path)
    (confident,) = bundle.predict(path, min_confidence=window.confidence)
    (unsure,) = bundle.predict(path, min_confidence=window.confidence + 1e-4)
    assert confident == window
    assert unsure == dataclasses.replace(window, label="unknown")
    with pytest.raises(ValueError, match=r"min_confidence=1.5: expected a number from 0 to 1"):
        bundle.predict(path, min_confidence=1.5)


def test_a_long_file_is_cut_and_each_window_is_its_own_clip(bundle, tmp_path):
    path = write_audio(tmp_path / "long.wav", 4.0, quiet_after=2.2)
    first, second, third = bundle.predict(path)
    assert [(w.start, w.end) for w in (first, second, third)] == [(0.0, 1.6), (1.6, 3.2), (2.4, 4.0)]
    assert third.to_json() == {
        "path": path,
        "start": 2.4,
        "end": 4.0,
        "error": "audio is silent; no video stream",
    }
    record = process_clip(MediaClip("part", path, -1, "", start=1.6, end=3.2), SETTINGS)
    batch = empty_batch(4, SPEC)
    fill_row(batch, 0, record)
    alone = bundle.run({n: getattr(batch, n) for n in ("audio", "audio_mask", "faces", "face_mask")})
    assert list(second.probabilities.values()) == pytest.approx(alone["probabilities"][0].tolist(), abs=1e-6)
    assert first.probabilities != second.probabilities


def test_a_network_without_weights_gives_null(bundle, tmp_path):
    path = write_audio(tmp_path / "voice.wav", 1.4)

    def call(weights, inputs):
        return {k: v for k, v in bundle.call(weights, inputs).items() if k != "modality_weights"}

    (window,) = dataclasses.replace(bundle, call=call).predict(path)
    assert json.loads(json.dumps(window.to_json()))["voice_weight"] is None


def test_a_face_network_needs_a_face(bundle, tmp_path):
    path = write_audio(tmp_path / "voice.wav", 1.4)
    face_only = dataclasses.replace(bundle, metadata=bundle.metadata | {"modalities": ["face"]})
    with pytest.raises(
        ValueError,
        match=r"voice\.wav: no window has a prediction: the model needs a face, but none is usable: no video"
        r" stream",
    ):
        face_only.predict(path)


def test_the_missing_extra_is_named(bundle, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"need av: run pip install '\.\[prep\]'"):
        bundle.predict(str(tmp_path / "any.mp4"))


def run_predict(folder, bundle_path: str, *clips: str) -> tuple[int, list[dict], str]:
    """`emofuse predict` in its own process and an empty folder; nothing of the training is at hand."""
    shutil.copytree(bundle_path, folder / "bundle", dirs_exist_ok=True)
    command = [sys.executable, "-m", "emofuse_jax.cli", "predict", *clips, "--bundle=bundle"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_bad_files_are_a_line_each_and_the_others_go_on(bundle_path, tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    video_path = write_video(clips / "a_truncated.mp4")
    with open(video_path, "r+b") as file:
        file.truncate(os.path.getsize(video_path) // 2)
    write_audio(clips / "b_good.wav", 1.4)
    (clips / "c_empty.mp4").touch()
    (clips / "d_text.mp4").write_text("these are words, not a film\n" * 99)
    (clips / "notes.txt").write_text("not asked for")
    status, lines, _ = run_predict(tmp_path, bundle_path, "clips", "nowhere.mp4")
    assert status == 1
    names = ("a_truncated.mp4", "b_good.wav", "c_empty.mp4", "d_text.mp4")
    assert [line["path"] for line in lines] == [f"clips/{name}" for name in names] + ["nowhere.mp4"]
    assert [set(line) - {"notes"} for line in lines].count({"path", "error"}) == 4
    assert set(lines[1]) - {"notes"} == PREDICTION_FIELDS
    for index, words in ((0, "damaged"), (2, "empty"), (3, "not a media file"), (4, "no such file")):
        assert words in lines[index]["error"]
        assert "\n" not in lines[index]["error"]


def test_real_faces_and_voices(bundle_path, shared_data, tmp_path):
    video_paths = sorted(glob.glob(os.path.join(shared_data, "talking_faces", "*.mpg")))
    audio_path = sorted(glob.glob(os.path.join(shared_data, "ravdess_speech", "*", "*.flac")))[0]
    silent_path = copy_without_audio(
        os.path.join(shared_data, "talking_faces", "face_2.mp4"), tmp_path / "silent.mp4"
    )
    crowd_path = write_two_people(video_paths[0], tmp_path / "crowd.mp4")
    status, lines, errors = run_predict(
        tmp_path, bundle_path, video_paths[0], audio_path, silent_path, crowd_path
    )
    assert status == 0, errors
    windows = {
        path: [line for line in lines if line["path"] == path]
        for path in (video_paths[0], audio_path, silent_path, crowd_path)
    }
    flags = {
        path: {(w["audio_ok"], w["video_ok"]) for w in file_windows} for path, file_windows in windows.items()
    }
    assert flags == {
        video_paths[0]: {(True, True)},
        audio_path: {(True, False)},
        silent_path: {(False, True)},
        crowd_path: {(False, True)},
    }
    assert len(windows[video_paths[0]]) == 2  # three seconds in windows of 1.6
    assert "2 people" in windows[crowd_path][0]["notes"]
    for line in lines:
        assert set(line) - {"notes"} == PREDICTION_FIELDS
        assert sum(line["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
        assert line["probabilities"][line["label"]] == line["confidence"]
        assert line["voice_weight"] + line["face_weight"] == pytest.approx(1.0, abs=1e-5)
    assert {w["voice_weight"] for w in windows[audio_path]} == {1.0}
    assert {w["face_weight"] for w in windows[silent_path]} == {1.0}


def test_without_onnxruntime_the_extra_is_named(bundle, monkeypatch, tmp_path):
    encoder_metadata = {"encoders": {"audio": {"file": "voice.onnx", "sha256": "0"}}}
    features_bundle = dataclasses.replace(bundle, metadata=bundle.metadata | encoder_metadata)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    path = write_audio(tmp_path / "a.wav", 1.0)
    with pytest.raises(
        ValueError,
        match=r"^frozen encoders need onnxruntime: run pip install '\.\[onnx\]' in a clone of emofuse$",
    ):
        features_bundle.predict(path)
    assert bundle.predict(path)  # a model of tensors does without


def test_a_model_of_features_can_not_go_by_a_sound_that_its_encoder_refused(bundle, tmp_path):
    from emofuse_jax.serving.media.prepare_window import prep_requirements, usable_record_or_failure

    clip = MediaClip("a.wav", write_audio(tmp_path / "a.wav", 1.0), -1, "")
    record = dataclasses.replace(
        process_clip(clip, SETTINGS), audio_features=np.zeros((0, 5), np.float16), notes="audio encoder: no"
    )
    assert record.audio_ok
    assert usable_record_or_failure(prep_requirements(bundle), record) is record  # it reads the spectrogram
    features_bundle = dataclasses.replace(bundle, inputs={"audio_features": ((4, 5), np.float16)})
    failure = Failure("the model needs a voice or a face, but none is usable: audio encoder: no")
    assert usable_record_or_failure(prep_requirements(features_bundle), record) == failure


def test_settings_of_the_bundle_are_those_of_training(bundle):
    assert PrepSettings.from_dict(bundle.metadata["settings"]) == SETTINGS
