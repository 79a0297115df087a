"""What frozen encoders make of a clip is what the formulas say."""

import dataclasses
import re

import numpy as np
import pytest

from data_prep.feature_fields import extract_face_features
from data_prep.onnx_models import encoders
from data_prep.onnx_models.encoder_settings import EncoderSettings
from data_prep.onnx_models.encoders import EncoderError, EncoderFiles, encode_audio, normalize_audio
from data_prep.onnx_models.layouts import AudioLayout
from data_prep.probe_encoders import with_encoders
from data_prep.process_clip import process_clip
from data_prep.settings import PrepSettings
from emofuse_jax.data.records import Failure
from emofuse_jax.data.writing.corpus import MediaClip
from emofuse_jax.utils.files import file_sha256
from tests.support import onnx_models
from tests.support.face_fakes import fake_face
from tests.support.feature_corpus import FACES, make_encoders
from tests.support.media_files import ramp_frames, tone, write_media, write_wav

SETTINGS = PrepSettings(face=FACES)


def waveform_formula(samples):
    """What the waveform encoder should give: five filters of 640 samples, every 320."""
    starts = range(0, len(samples) - 639, 320)
    return np.stack([onnx_models.AUDIO_KERNEL @ samples[i : i + 640] for i in starts])


def make_clip(path):
    return MediaClip("take", str(path), 1, "ann")


def process_file(path, settings, files):
    return process_clip(make_clip(path), settings, encoder_files=files)


@pytest.mark.parametrize(
    ("normalisation", "formula"),
    [
        ("none", lambda x: x),
        ("zero_mean_unit_variance", lambda x: (x - np.mean(x)) / np.sqrt(np.var(x) + 1e-7)),
        ({"mean": 0.25, "std": 0.5}, lambda x: (x - 0.25) / 0.5),
    ],
)
def test_features_of_the_waveform(tmp_path, normalisation, formula):
    audio = tone(0.5, rate=16_000) + 0.1
    write_wav(tmp_path / "a.wav", audio)
    samples = (audio * 32767).astype("<i2") / np.float32(32768)
    files = EncoderFiles(onnx_models.waveform_encoder(tmp_path / "m.onnx", normalisation=normalisation))
    record = process_file(tmp_path / "a.wav", with_encoders(SETTINGS, files), files)
    assert record.audio_features.dtype == np.float16
    expected = waveform_formula(formula(samples))
    np.testing.assert_allclose(record.audio_features, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())
    assert record.spectrogram.shape == (51, 200)
    assert record.face_features is None


def test_audio_that_is_too_short_is_padded_with_zeros(tmp_path):
    write_wav(tmp_path / "a.wav", tone(0.01, rate=16_000))
    files = EncoderFiles(onnx_models.waveform_encoder(tmp_path / "m.onnx"))
    record = process_file(tmp_path / "a.wav", with_encoders(SETTINGS, files), files)
    samples = np.zeros(640, np.float32)
    samples[:160] = (tone(0.01, rate=16_000) * 32767).astype("<i2") / np.float32(32768)
    np.testing.assert_allclose(record.audio_features, waveform_formula(samples), rtol=2e-3, atol=1e-2)


def test_a_short_spectrogram_gets_the_frames_of_the_shortest_sound(tmp_path):
    """110 ms of sound have twelve frames: eleven steps between them, and both ends."""
    files = EncoderFiles(onnx_models.spectrogram_encoder(tmp_path / "m.onnx", minimum_ms=110.0))
    layout = with_encoders(SETTINGS, files).features.audio
    write_wav(tmp_path / "a.wav", tone(0.11, rate=16_000))
    spectrogram = process_file(tmp_path / "a.wav", SETTINGS, EncoderFiles()).spectrogram
    assert len(spectrogram) == 12  # three vectors of four frames
    assert len(encode_audio(spectrogram, layout, files, 10.0)) == 3
    padded = encode_audio(spectrogram[:5], layout, files, 10.0)
    expected = (
        np.concatenate([spectrogram[:5], np.zeros((7, 200))])[:, :192].reshape(3, 4, 6, 32).mean((1, 3))
    )
    np.testing.assert_allclose(padded, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("has_fixed_statistics", [False, True])
def test_features_of_the_spectrogram(tmp_path, has_fixed_statistics):
    write_wav(tmp_path / "a.wav", tone(0.5, rate=16_000))
    mean, std = np.linspace(-9, -5, 200), np.linspace(1, 2, 200)
    layout = {"normalisation": {"mean": mean.tolist(), "std": std.tolist()}} if has_fixed_statistics else {}
    files = EncoderFiles(onnx_models.spectrogram_encoder(tmp_path / "m.onnx", **layout))
    record = process_file(tmp_path / "a.wav", with_encoders(SETTINGS, files), files)
    rows = record.spectrogram.astype(np.float64)
    rows = (rows - mean) / std if has_fixed_statistics else rows
    expected = rows[:48, :192].reshape(12, 4, 6, 32).mean((1, 3))
    np.testing.assert_allclose(record.audio_features, expected, rtol=2e-3, atol=2e-3)


def write_talking_face(path):
    from data_prep.synth.clip import render_clip

    path.write_bytes(render_clip(speaker=90, p=1, s_f=0, s_v=1, damage="", corpus_seed=0, seed=0))
    return path


def face_formula(crops, channels):
    """What the face encoder should give for RGB crops."""
    x = crops.astype(np.float64) * 0.00392157
    x = x[..., ::-1] if channels == "bgr" else x
    return ((x - [0.1, 0.2, 0.3]) / [0.5, 0.25, 1.0]).mean((1, 2)) @ onnx_models.FACE_PROJECTION


@pytest.mark.parametrize(
    ("shape", "axes", "layout"),
    [
        (("n", 3, 24, 24), (2, 3), {}),
        ((1, 3, "h", "w"), (2, 3), {"channels": "rgb"}),
        (("n", 24, 24, 3), (1, 2), {"layout": "nhwc", "channels": "rgb"}),
    ],
)
def test_features_of_faces(tmp_path, shape, axes, layout):
    """Crops of the encoder's size are those of the record, so that the formula can start from them."""
    path = write_talking_face(tmp_path / "a.mp4")
    files = EncoderFiles(face=onnx_models.face_encoder(tmp_path / "m.onnx", shape=shape, axes=axes, **layout))
    record = process_file(path, with_encoders(SETTINGS, files), files)
    assert record.face_valid.all()
    expected = face_formula(record.faces, layout.get("channels", "bgr"))
    np.testing.assert_allclose(record.face_features, expected, rtol=2e-3, atol=2e-3)


def test_only_valid_faces_are_encoded(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (20, 60, 60, 3), np.uint8)
    faces = [None if i % 7 == 3 else fake_face(30, 30, 20) for i in range(20)]  # two runs of the encoder
    files = EncoderFiles(face=onnx_models.face_encoder(tmp_path / "m.onnx"))
    features = extract_face_features(frames, faces, with_encoders(SETTINGS, files), files)["face_features"]
    has_no_face = np.array([face is None for face in faces])
    assert not features[has_no_face].any()
    assert features[~has_no_face].any(1).all()
    assert len(np.unique(features[~has_no_face], axis=0)) == 17
    assert extract_face_features(frames, faces, SETTINGS, EncoderFiles()) == {}


def test_a_stored_spectrogram_does_not_depend_on_its_encoder(tmp_path):
    write_media(tmp_path / "a.mp4", frames=ramp_frames(0.5), audio=tone(0.5))
    overflowing_encoder = EncoderFiles(onnx_models.waveform_encoder(tmp_path / "m.onnx", gain=1e9))
    record = process_file(
        tmp_path / "a.mp4", with_encoders(SETTINGS, overflowing_encoder, "keep"), overflowing_encoder
    )
    record_without_encoder = process_file(tmp_path / "a.mp4", SETTINGS, EncoderFiles())
    assert (record.audio_ok, record.video_ok) == (True, False)
    np.testing.assert_array_equal(record.spectrogram, record_without_encoder.spectrogram)
    assert record.audio_features.shape == (0, 5)
    assert record.notes.startswith("audio encoder: values are not finite in float16, ")
    assert record.notes.endswith("; no face in 2 frames")


def test_an_encoder_that_fails_masks_its_stream(tmp_path):
    write_media(tmp_path / "a.mp4", frames=ramp_frames(0.5), audio=tone(0.5))
    video_path = write_talking_face(tmp_path / "b.mp4")
    overflowing_encoders = EncoderFiles(
        onnx_models.waveform_encoder(tmp_path / "m.onnx", gain=1e9),
        onnx_models.face_encoder(tmp_path / "f.onnx"),
    )
    settings = with_encoders(SETTINGS, overflowing_encoders, "drop")
    result = process_file(tmp_path / "a.mp4", settings, overflowing_encoders)
    assert isinstance(result, Failure)
    assert result.reason.startswith("audio encoder: values are not finite in float16, ")
    assert result.reason.endswith("; no face in 2 frames")
    record = process_file(video_path, settings, overflowing_encoders)
    assert (record.audio_ok, record.video_ok) == (False, True)
    assert record.audio_features.shape == (1, 5)
    assert not record.audio_features.any()
    assert record.spectrogram.shape == (0, 200)
    assert record.face_features.any()
    overflowing_face_encoder = dataclasses.replace(
        overflowing_encoders, face=onnx_models.face_encoder(tmp_path / "f.onnx", gain=1e9)
    )
    record = process_file(
        video_path,
        with_encoders(SETTINGS, EncoderFiles(face=overflowing_face_encoder.face)),
        overflowing_face_encoder,
    )
    assert (record.audio_ok, record.video_ok) == (True, False)
    assert record.notes.startswith("face encoder: values are not finite in float16, expected at most 65504;")


def test_a_missing_or_other_file_is_named_by_its_hash(tmp_path):
    files = make_encoders(tmp_path)
    settings = with_encoders(SETTINGS, files)
    digest = file_sha256(files.audio)
    write_wav(tmp_path / "a.wav", tone(0.5, rate=16_000))
    message = rf"audio encoder voice\.onnx \(sha256 {digest}\) is needed: set --audio_encoder"
    with pytest.raises(ValueError, match=message):
        process_clip(make_clip(tmp_path / "a.wav"), settings)
    other_files = EncoderFiles(onnx_models.waveform_encoder(tmp_path / "o.onnx", gain=2.0), files.face)
    with pytest.raises(ValueError, match=rf"o\.onnx: sha256 [0-9a-f]*, expected {digest}"):
        process_clip(make_clip(tmp_path / "a.wav"), settings, encoder_files=other_files)
    missing_files = EncoderFiles(str(tmp_path / "gone.onnx"), files.face)
    message = r"^--audio_encoder=.*/gone\.onnx: file does not exist; correct the path$"
    with pytest.raises(ValueError, match=message):
        process_clip(make_clip(tmp_path / "a.wav"), settings, encoder_files=missing_files)


@pytest.mark.parametrize("key", ["mean", "std"])
def test_constants_without_a_key(key):
    with pytest.raises(ValueError, match=f"normalisation: key '{key}' is missing, expected 'mean' and 'std'"):
        normalize_audio(np.zeros(9, np.float32), {name: 1.0 for name in ("mean", "std") if name != key})


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (0, 3, 5), (1, 1, 3, 5)])
def test_audio_features_of_a_wrong_rank(monkeypatch, shape):
    monkeypatch.setattr(encoders, "open_encoder", lambda *_: None)
    monkeypatch.setattr(encoders, "run_session", lambda *_: np.zeros(shape, np.float32))
    layout = AudioLayout("x", "y", "waveform", "none", 20.0, 25.0)
    with pytest.raises(
        EncoderError, match=rf"output has shape {re.escape(str(list(shape)))}, expected \[1, u, 5\]"
    ):
        encode_audio(
            np.zeros(9000, np.float32),
            EncoderSettings("m.onnx", "", 5, layout),
            EncoderFiles("m.onnx"),
            1 / 16,
        )
