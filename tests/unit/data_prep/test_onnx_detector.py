"""A face detector of the user's own: its YAML, its coordinates, and a whole clip with it."""

import dataclasses

import numpy as np
import pytest

from data_prep.faces.onnx_detector import _detect_in_frame, detect_with_onnx, fit_frame, run_detector
from data_prep.onnx_models.encoders import EncoderError, EncoderFiles
from data_prep.onnx_models.layouts import DetectorLayout
from data_prep.probe_encoders import with_encoders
from data_prep.process_clip import process_clip
from data_prep.settings import FaceSettings, PrepSettings
from emofuse_jax.data.writing.corpus import MediaClip
from tests.support.media_files import tone, write_media
from tests.support.onnx_models import DETECTOR_LAYOUT, LANDMARK_FRACTIONS, face_detector

SETTINGS = PrepSettings(face=FaceSettings(frames=4, size=32, margin=0.0))


def make_detector_settings(path, **layout):
    files = EncoderFiles(detector=face_detector(path, **layout))
    return with_encoders(SETTINGS, files), files


def draw_square(x, y, side, shape=(96, 128)):
    """A white square on black."""
    frame = np.zeros((*shape, 3), np.uint8)
    frame[y : y + side, x : x + side] = 255
    return frame


@pytest.mark.parametrize("layout", [{}, {"units": "shares"}, {"marks_shape": (117, 5, 2)}])
def test_a_face_is_in_pixels_of_the_frame(tmp_path, layout):
    settings, files = make_detector_settings(tmp_path / "own.onnx", **layout)
    frames = np.stack([draw_square(40, 24, 32), draw_square(72, 64, 32), np.zeros((96, 128, 3), np.uint8)])
    first, second, no_faces = detect_with_onnx(frames, settings.features.detector, files)
    assert len(first) == len(second) == 1  # of the boxes that overlap, the best
    np.testing.assert_allclose(first[0].box, [40, 24, 72, 56], atol=1e-4)
    np.testing.assert_allclose(first[0].landmarks, [40, 24] + 32 * LANDMARK_FRACTIONS, atol=1e-4)
    np.testing.assert_allclose(second[0].box, [72, 64, 104, 96], atol=1e-4)
    assert first[0].score == pytest.approx(1.0, abs=1e-3)
    assert no_faces == []


def test_a_frame_is_fitted_at_the_top_left():
    fitted, scale = fit_frame(np.full((50, 200, 3), 255, np.uint8), 48, 64)
    assert scale == pytest.approx(0.32)
    assert (fitted[:16] == 255).all()
    assert (fitted[16:] == 0).all()
    assert fit_frame(np.zeros((24, 16, 3), np.uint8), 48, 64)[1] == 2.0


def make_fake_graph(boxes, scores=(0.9, 0.8), landmarks=None, **layout):
    """A graph that answers with these arrays, whatever it is shown; and its layout."""
    boxes = np.array(boxes, float)
    landmarks = boxes[:, :2].repeat(5, 0).reshape(-1, 10) if landmarks is None else landmarks

    class Graph:
        def run(self, outputs, inputs):
            return [boxes, np.array(scores), landmarks]

    return Graph(), DetectorLayout(**(DETECTOR_LAYOUT | layout))


BLACK_FRAME = np.zeros((48, 64, 3), np.uint8)
INVALID_BOXES = [
    [np.nan, 0, 9, 9],
    [0, 0, np.inf, 9],
    [9, 9, 9, 20],
    [20, 20, 9, 9],
    [30, 10, 30.0000001, 11],
]


@pytest.mark.parametrize("invalid_box", INVALID_BOXES)
def test_boxes_that_are_none_are_left_out(invalid_box):
    valid_box = [4, 4, 20, 20]
    (face,) = _detect_in_frame(*make_fake_graph([invalid_box, valid_box]), BLACK_FRAME)
    np.testing.assert_allclose(face.box, valid_box)
    assert face.box.dtype == face.landmarks.dtype == np.float32
    assert _detect_in_frame(*make_fake_graph([valid_box], scores=[np.inf]), BLACK_FRAME) == []


def test_boxes_in_another_unit_are_an_error():
    graph, layout = make_fake_graph([[10, 10, 40, 40], [0, 0, 9, 9]], units="shares")
    with pytest.raises(EncoderError, match=r"a box is \d+ pixels long: its units are probably not shares"):
        _detect_in_frame(graph, layout, np.zeros((720, 1280, 3), np.uint8))


def test_channels_first_is_an_error():
    graph, layout = make_fake_graph(np.zeros((4, 8)), scores=np.zeros(8), landmarks=np.zeros((10, 8)))
    with pytest.raises(EncoderError, match=r"boxes \[4, 8\], scores \[8\], marks \[10, 8\], expected boxes"):
        run_detector(graph, layout, BLACK_FRAME)


@pytest.mark.parametrize("shape", [(1, 1000), (1000, 1), (48, 0)])
def test_odd_frames_have_no_face(tmp_path, shape):
    settings, files = make_detector_settings(tmp_path / "own.onnx")
    assert detect_with_onnx(np.zeros((2, *shape, 3), np.uint8), settings.features.detector, files) == [[], []]


def test_a_clip_is_processed_with_it(tmp_path):
    settings, files = make_detector_settings(tmp_path / "own.onnx")
    frames = [draw_square(16 + 8 * (i // 5), 24, 32) for i in range(20)]
    write_media(tmp_path / "a.mp4", frames=frames, audio=tone(0.8), options={"crf": "5"})
    record = process_clip(
        MediaClip("a", str(tmp_path / "a.mp4"), 0, "s"), settings, num_classes=2, encoder_files=files
    )
    assert record.face_valid.all()
    np.testing.assert_allclose(record.face_box[:, 0], [16, 24, 32, 40], atol=0.5)
    assert record.faces.mean() > 240


def test_settings_hold_its_hash_and_come_back(tmp_path):
    settings, _ = make_detector_settings(tmp_path / "own.onnx")
    values = settings.to_dict()
    assert values["features"]["detector"]["file"] == "own.onnx"
    assert len(values["features"]["detector"]["sha256"]) == 64
    assert PrepSettings.from_dict(values) == settings


def test_mistakes_are_errors_before_any_clip(tmp_path):
    path = tmp_path / "own.onnx"
    with pytest.raises(ValueError, match=r"own.yaml: key 'size' is 64, expected height and width"):
        make_detector_settings(path, size=64)
    with pytest.raises(ValueError, match=r"its outputs are boxes, scores, marks; .*own.yaml names 'kps'"):
        make_detector_settings(path, landmarks="kps")
    with pytest.raises(ValueError, match=r"input 'frame' is tensor\(float\)\[1, 3, 48, 64\]"):
        make_detector_settings(path, size=[64, 64])
    with pytest.raises(
        ValueError, match=r"fails on a black frame: .*scores \[1, 117\], expected boxes \[n, 4\]"
    ):
        make_detector_settings(path, landmarks="scores")
    settings, _ = make_detector_settings(path)
    with pytest.raises(ValueError, match=r"own.onnx \(sha256 .*\) is needed: set --face_detector"):
        detect_with_onnx(np.zeros((1, 9, 9, 3), np.uint8), settings.features.detector, EncoderFiles())
    with pytest.raises(ValueError, match=r"--face_detector=.*: file does not exist"):
        with_encoders(SETTINGS, dataclasses.replace(EncoderFiles(), detector=str(tmp_path / "no.onnx")))
