import base64
import dataclasses

import numpy as np

from emofuse_jax.data.records import Record
from emofuse_jax.serving.http.explanations import MAX_COLUMNS, MAX_ROWS, explain_window, shrink_spectrogram


def make_record(frames: int = 50, bins: int = 20) -> Record:
    rng = np.random.default_rng(0)
    valid = np.array([True, False, True, True])
    return Record(
        clip_id="a",
        speaker="",
        corpus="",
        label=-1,
        votes=np.zeros(0, np.float32),
        spectrogram=rng.normal(size=(frames, bins)).astype(np.float16),
        faces=np.zeros((4, 8, 8, 3), np.uint8),
        face_valid=valid,
        face_time=np.arange(4, dtype=np.float32) / 2,
        face_box=np.arange(16, dtype=np.float32).reshape(4, 4),
        face_landmarks=np.zeros((4, 5, 2), np.float32),
        face_score=np.full(4, 0.9, np.float32),
        audio_ok=True,
        video_ok=True,
    )


def test_faces_and_sound_with_attention_relative_to_even():
    output = {
        "video_attention": np.array([0.5, 0.0, 0.25, 0.25]),
        "audio_attention": np.array([0.5, 0.25, 0.25, 0.0, 0.0]),  # the last two lie over padding
    }
    explanation = explain_window(make_record(), output, hop_ms=10.0)
    assert [face["time"] for face in explanation["faces"]] == [0.0, 1.0, 1.5]
    assert [face["attention"] for face in explanation["faces"]] == [1.5, 0.75, 0.75]
    assert explanation["faces"][1]["box"] == [8.0, 9.0, 10.0, 11.0]
    audio = explanation["sound"]
    assert audio["seconds"] == 0.49
    assert audio["attention"] == [[1.5], [0.75], [0.75]]
    levels = np.frombuffer(base64.b64decode(audio["levels"]), np.uint8).reshape(audio["shape"])
    assert levels.shape == (50, 20)
    assert (levels.min(), levels.max()) == (0, 255)
    values = make_record().spectrogram.astype(float)
    assert np.corrcoef(levels.ravel(), values.ravel())[0, 1] > 0.999


def test_what_is_not_there_is_none():
    masked = dataclasses.replace(make_record(), audio_ok=False, video_ok=False)
    assert explain_window(masked, {}, 10.0) == {"faces": None, "sound": None}
    features_alone = dataclasses.replace(make_record(), spectrogram=np.zeros((0, 20), np.float16))
    assert explain_window(features_alone, {}, 10.0)["sound"] is None
    assert explain_window(make_record(), {}, 10.0)["faces"][0]["attention"] is None


def test_a_long_spectrogram_is_means_of_runs():
    spectrogram = np.random.default_rng(0).normal(size=(1001, 200))
    shrunk = shrink_spectrogram(spectrogram, MAX_COLUMNS, MAX_ROWS)
    assert shrunk.shape == (MAX_COLUMNS, MAX_ROWS)
    np.testing.assert_allclose(shrunk[0, 0], spectrogram[:4, :2].mean())
    np.testing.assert_allclose(shrink_spectrogram(spectrogram, 1, 1), spectrogram.mean())
    np.testing.assert_array_equal(shrink_spectrogram(spectrogram, 2000, 300), spectrogram)
