"""What is wrong with an encoder or its YAML is told before any clip, in one line."""

import json
import sys

import pytest

from data_prep.onnx_models.encoder_settings import NO_ENCODERS, FeatureSettings
from data_prep.onnx_models.encoders import EncoderFiles, open_session
from data_prep.onnx_models.layouts import read_layout
from data_prep.probe_encoders import with_encoders
from data_prep.settings import RECIPES, AudioSettings, PrepSettings, record_shape
from emofuse_jax.data import records
from emofuse_jax.utils.files import file_sha256
from tests.support import onnx_models
from tests.support.feature_corpus import FACES, make_encoders

SETTINGS = PrepSettings(face=FACES)


def one_line_message(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# The YAML


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("audio", {"input": 3}, "key 'input' is 3, expected a name"),
        ("audio", {"output": ""}, "key 'output' is '', expected a name"),
        ("audio", {"layout": "mel"}, "key 'layout' is 'mel', expected one of waveform, spectrogram"),
        ("audio", {"normalisation": "fixed"}, "key 'normalisation' is 'fixed', expected none"),
        ("audio", {"normalisation": {"mean": 1}}, "key 'normalisation' is {'mean': 1}"),
        ("audio", {"normalisation": {"mean": 1, "std": 0}}, "s above 0"),
        ("audio", {"normalisation": {"mean": [], "std": 1}}, "key 'normalisation'"),
        ("audio", {"hop_ms": 0}, "key 'hop_ms' is 0, expected a number above 0"),
        ("audio", {"hop_ms": True}, "key 'hop_ms' is True"),
        ("audio", {"minimum_ms": "25"}, "key 'minimum_ms' is '25'"),
        ("audio", {"minimum_ms": float("inf")}, "key 'minimum_ms' is inf"),
        ("face", {"layout": ["nchw"]}, "key 'layout' is ['nchw'], expected one of nchw, nhwc"),
        ("face", {"size": 24.0}, "key 'size' is 24.0, expected an integer above 0"),
        ("face", {"channels": "gray"}, "key 'channels' is 'gray', expected one of rgb, bgr"),
        ("face", {"scale": -1}, "key 'scale' is -1"),
        ("face", {"mean": [0, 0]}, "key 'mean' is [0, 0], expected three numbers"),
        ("face", {"mean": 0.5}, "key 'mean' is 0.5"),
        ("face", {"std": [1, 1, 0]}, "key 'std' is [1, 1, 0], expected three numbers above 0"),
        ("face", {"hop_ms": 20}, "key 'hop_ms' is unknown, expected input, output, layout, size"),
        ("audio", {"hop": 20}, "key 'hop' is unknown"),
    ],
)
def test_a_wrong_key_is_named(tmp_path, kind, change, message):
    valid_layout = onnx_models.WAVEFORM_LAYOUT if kind == "audio" else onnx_models.FACE_LAYOUT
    onnx_models.write_layout(tmp_path / "model.onnx", valid_layout | change)
    with pytest.raises(ValueError, match="key") as error:
        read_layout(kind, str(tmp_path / "model.onnx"))
    assert one_line_message(error).startswith(f"{tmp_path}/model.yaml: ")
    assert message in one_line_message(error)


@pytest.mark.parametrize("kind", ["audio", "face"])
def test_every_key_is_needed(tmp_path, kind):
    valid_layout = onnx_models.WAVEFORM_LAYOUT if kind == "audio" else onnx_models.FACE_LAYOUT
    for key in valid_layout:
        onnx_models.write_layout(tmp_path / "m.onnx", {k: v for k, v in valid_layout.items() if k != key})
        with pytest.raises(ValueError, match=rf"m\.yaml: key '{key}' is missing, expected "):
            read_layout(kind, str(tmp_path / "m.onnx"))


@pytest.mark.parametrize(
    ("text", "message"), [("a: [1", "not YAML"), ("waveform", "expected the keys"), (None, "does not exist")]
)
def test_invalid_yaml_is_an_error(tmp_path, text, message):
    if text is not None:
        (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_layout("audio", str(tmp_path / "m.onnx"))
    assert one_line_message(error).startswith(f"{tmp_path}/m.yaml: ")


# Shapes, before any clip


def assert_refused(tmp_path, message, **files):
    with pytest.raises(ValueError, match=r"expected|names|ONNX|fails") as error:
        with_encoders(SETTINGS, EncoderFiles(**files))
    assert one_line_message(error).startswith(str(tmp_path))
    assert message in one_line_message(error), one_line_message(error)


def test_wrong_audio_shapes_are_errors(tmp_path):
    path = tmp_path / "m.onnx"
    make_encoder = onnx_models.waveform_encoder
    message = "input 'samples' is tensor(float)[1, 16000], expected tensor(float)[1, n] by "
    assert_refused(tmp_path, message, audio=make_encoder(path, shape=(1, 16000)))
    assert_refused(tmp_path, "its inputs are samples; ", audio=make_encoder(path, input="x"))
    assert_refused(tmp_path, "its outputs are features; ", audio=make_encoder(path, output="y"))
    assert_refused(
        tmp_path, "has 199 steps for 4 s of zeros, expected about 400 by", audio=make_encoder(path, hop_ms=10)
    )
    assert_refused(
        tmp_path, "expected tensor(float)[1, t, 200]", audio=make_encoder(path, layout="spectrogram")
    )
    assert_refused(
        tmp_path,
        "2 numbers for mean, expected 1",
        audio=make_encoder(path, normalisation={"mean": [1, 2], "std": 1}),
    )
    make_encoder = onnx_models.spectrogram_encoder
    assert_refused(
        tmp_path, "[1, 'any', 94], expected tensor(float)[1, t, 200]", audio=make_encoder(path, bins=94)
    )
    assert_refused(
        tmp_path,
        "3 numbers for std, expected 200",
        audio=make_encoder(path, normalisation={"mean": 0, "std": [1] * 3}),
    )
    assert with_encoders(SETTINGS, EncoderFiles(audio=make_encoder(path))).features.audio.width == 6


def test_wrong_face_shapes_are_errors(tmp_path):
    path, make_encoder = tmp_path / "m.onnx", onnx_models.face_encoder
    message = "['any', 3, 32, 32], expected tensor(float)[n, 3, 24, 24] by"
    assert_refused(tmp_path, message, face=make_encoder(path, shape=("n", 3, 32, 32)))
    assert_refused(tmp_path, "expected tensor(float)[n, 24, 24, 3]", face=make_encoder(path, layout="nhwc"))
    assert_refused(tmp_path, "[4, 3, 24, 24], expected", face=make_encoder(path, shape=(4, 3, 24, 24)))
    # symbolic sides say nothing: the run on zeros does
    symbolic_shape = ("n", "c", "h", "w")
    assert_refused(
        tmp_path,
        "fails on zeros of shape [2, 24, 24, 3]",
        face=make_encoder(path, shape=symbolic_shape, layout="nhwc"),
    )
    encoder_path = make_encoder(
        path, shape=symbolic_shape, layout="nhwc", size=3
    )  # 3x3 faces: it runs, and that is all
    assert with_encoders(SETTINGS, EncoderFiles(face=encoder_path)).features.face.width == 7
    audio_encoder_path = onnx_models.waveform_encoder(path)
    onnx_models.write_layout(path, onnx_models.FACE_LAYOUT | {"input": "samples", "output": "features"})
    assert_refused(tmp_path, "expected tensor(float)[n, 3, 24, 24]", face=audio_encoder_path)


def test_an_output_of_another_rank_is_an_error(tmp_path):
    from onnx import helper

    path = str(tmp_path / "m.onnx")
    nodes = [helper.make_node("Identity", ["samples"], ["features"])]
    onnx_models.save_model(path, nodes, {"samples": (1, "n")}, {"features": (1, "n")}, {})
    onnx_models.write_layout(path, onnx_models.WAVEFORM_LAYOUT)
    assert_refused(tmp_path, "output 'features' is [1, 64000], expected [1, u, d]", audio=path)
    nodes = [helper.make_node("Identity", ["images"], ["vectors"])]
    onnx_models.save_model(path, nodes, {"images": ("n", 3, 24, 24)}, {"vectors": ("n", 3, 24, 24)}, {})
    onnx_models.write_layout(path, onnx_models.FACE_LAYOUT)
    assert_refused(tmp_path, "output 'vectors' is [2, 3, 24, 24] for 2 faces, expected [2, d]", face=path)


def test_invalid_onnx_is_an_error(tmp_path):
    onnx_models.write_layout(tmp_path / "m.onnx", onnx_models.WAVEFORM_LAYOUT)
    (tmp_path / "m.onnx").write_bytes(b"words")
    assert_refused(tmp_path, "expected an ONNX model", audio=str(tmp_path / "m.onnx"))
    for kind, path in (("audio", f"{tmp_path}/none.onnx"), ("face", str(tmp_path))):
        with pytest.raises(ValueError, match="does not exist") as error:
            with_encoders(SETTINGS, EncoderFiles(**{kind: path}))
        assert one_line_message(error) == f"--{kind}_encoder={path}: file does not exist; correct the path"


@pytest.mark.parametrize("make", [onnx_models.waveform_encoder, onnx_models.spectrogram_encoder])
def test_a_slightly_wrong_hop_is_an_error(tmp_path, make):
    path = tmp_path / "m.onnx"
    correct_hop_ms = 20.0 if make is onnx_models.waveform_encoder else 40.0
    for factor in (0.95, 1.05):
        assert_refused(tmp_path, "more steps for", audio=make(path, hop_ms=factor * correct_hop_ms))
    for factor in (0.995, 1.0, 1.005):
        assert with_encoders(
            SETTINGS, EncoderFiles(audio=make(path, hop_ms=factor * correct_hop_ms))
        ).features.audio


def test_the_extra_is_named(tmp_path, monkeypatch):
    files = EncoderFiles(audio=onnx_models.waveform_encoder(tmp_path / "m.onnx"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"need onnxruntime: run pip install '\.\[onnx\]'"):
        with_encoders(SETTINGS, files)


# Settings


def test_settings_come_back_and_name_the_file_by_hash(tmp_path):
    files = make_encoders(tmp_path)
    settings = with_encoders(PrepSettings("features", face=FACES), files, "drop")
    stored = json.loads(json.dumps(settings.to_dict()))
    assert PrepSettings.from_dict(stored) == settings
    assert stored["features"]["tensors"] == "drop"
    assert stored["features"]["audio"]["sha256"] == file_sha256(files.audio)
    assert stored["features"]["face"]["layout"] == onnx_models.FACE_LAYOUT
    assert record_shape(settings) == records.RecordShape(200, 0, 0, 5, 7)
    stored["features"]["audio"]["layout"]["hop_ms"] = -1
    with pytest.raises(ValueError, match="audio encoder: key 'hop_ms' is -1"):
        PrepSettings.from_dict(stored)


def test_without_encoders_nothing_changes():
    assert PrepSettings().to_dict()["features"] == vars(FeatureSettings())
    assert with_encoders(SETTINGS, EncoderFiles()) == SETTINGS
    with pytest.raises(
        ValueError, match=r"recipe 'features': tensors are left out, .* set --audio_encoder or"
    ):
        with_encoders(RECIPES["features"], EncoderFiles())
    with pytest.raises(ValueError, match=r"^--tensors=drop: tensors are left out, .* set --audio_encoder or"):
        with_encoders(SETTINGS, EncoderFiles(), "drop")
    with pytest.raises(ValueError, match=r"tensors: 'both', expected one of keep, drop"):
        FeatureSettings("both")
    assert RECIPES["features"].audio == AudioSettings()
    assert RECIPES["features"].face == RECIPES["fbp"].face


def test_an_open_graph_is_cached(tmp_path):
    path = onnx_models.face_encoder(tmp_path / "m.onnx")
    digest = file_sha256(path)
    assert open_session(path, digest, 1) is open_session(path, digest, 1)
    assert NO_ENCODERS.audio is None
