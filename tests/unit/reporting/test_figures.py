"""The report's pictures, tables and numbers, one by one."""

import numpy as np
import pytest

from emofuse_jax.reporting import tables, text
from emofuse_jax.reporting.figures import classes, clip_figure, curves, score_figures, style
from emofuse_jax.scoring import attention_weights
from emofuse_jax.utils.files import write_atomic
from tests.support.report_inputs import decode_png, make_example, make_history, make_results


def test_mistakes_are_the_confident_wrong_ones_and_leave_unlabelled_clips_out():
    rows = tables.mistake_rows(make_results())
    assert [(row["clip"], row["prediction"], row["confidence"]) for row in rows] == [
        ("b-1", "happy", "90.0"),
        ("a-2", "calm", "60.0"),
    ]


def test_marks_are_stamped_into_the_pictures():
    warning_colour = np.array([int(style.LIGHT.warning[i : i + 2], 16) for i in (1, 3, 5)]) / 255

    def count_stamped_pixels(marks):
        picture = curves.loss_picture(make_history(), marks)
        return (np.abs(decode_png(picture.light)[..., :3] - warning_colour).max(-1) < 0.02).sum()

    assert count_stamped_pixels(["SYNTHETIC: x"]) > 50
    assert count_stamped_pixels([]) == 0


def test_what_a_killed_write_left_is_written_over(tmp_path):
    (tmp_path / "a.png.tmp").write_bytes(b"half of the pic")
    write_atomic(tmp_path / "a.png", b"whole")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.png", b"whole")]


def test_history_with_gaps_and_single_points():
    rows = [
        {"step": 5, "train_loss": 2.0},
        {"epoch": 0.5, "train_loss": float("nan")},
        {"epoch": 1, "validation_loss": 1.0},
    ]
    assert curves.ua_picture(rows, 0.5) is None
    assert "validation from 1 to 1; best epoch 1" in curves.loss_picture(rows).alt
    assert curves.best_row(make_history())["epoch"] == 2
    assert curves.best_row([{"epoch": 1, "train_loss": 1.0}]) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"spectrogram": None, "audio_attention": None},
        {"spectrogram": np.zeros((0, 20), np.float32)},
        {"spectrogram": np.zeros((30, 20), np.float32), "audio_attention": np.zeros((8, 3))},
        {"audio_attention": np.ones(8)},
        {"faces": None, "face_mask": None, "face_time": None, "video_attention": None},
        {"face_mask": np.zeros(4, bool), "video_attention": np.zeros(4)},
        {"face_time": None, "video_attention": None, "voice_weight": None, "face_weight": None},
        {"voice_weight": float("nan"), "probabilities": {f"class {i}": float("nan") for i in range(12)}},
    ],
)
def test_examples_with_parts_missing(changes):
    picture = clip_figure.example_picture(3, make_example(**changes))
    assert picture.name == "example_3"
    assert decode_png(picture.light).std() > 0.05


def test_long_clips_show_a_selection_of_frames():
    selected = clip_figure.select_frames(100)
    assert len(selected) == clip_figure.MAX_FACES
    assert (selected[0], selected[-1]) == (0, 99)
    np.testing.assert_array_equal(clip_figure.select_frames(3), [0, 1, 2])
    assert len(clip_figure.select_frames(0)) == 0


def test_relative_attention_is_one_where_even_and_ignores_invalid_frames():
    np.testing.assert_allclose(attention_weights.relative_attention(np.full((4, 5), 0.05)), 1.0)
    attention = attention_weights.relative_attention(np.array([0.3, 9.0, 0.1]), np.array([True, False, True]))
    np.testing.assert_allclose(attention, [1.5, 0.0, 0.5])
    assert attention_weights.relative_attention(None) is None
    assert attention_weights.relative_attention(np.zeros(3)) is None


def test_row_rates_keep_an_empty_class_unknown():
    rates = classes.row_rates(np.array([[3, 1], [0, 0]]))
    np.testing.assert_array_equal(rates, [[0.75, 0.25], [np.nan, np.nan]])


def test_numbers_as_text():
    assert [text.format_percent(x) for x in (0.7134, 1.0, 0, None, float("nan"), float("inf"))] == [
        "71.3", "100.0", "0.0", "–", "–", "–",
    ]  # fmt: skip
    assert text.format_interval([0.65, 0.77]) == "65.0–77.0"
    assert text.format_interval([float("nan"), 0.7]) == text.format_interval(None) == ""
    assert [text.shorten("abcdef", n) for n in (6, 5, 4)] == ["abcdef", "ab…ef", "ab…f"]


def test_many_classes_and_speakers():
    count = 14
    names = [f"a long class name {i}" for i in range(count)]
    confusion = np.eye(count, dtype=int) * 5
    assert decode_png(classes.confusion_picture(confusion, names).light).size
    assert decode_png(classes.recall_picture({"both": np.ones(count)}, names).light).size
    speakers = {f"speaker {i}": {"ua": i / 91, "clips": 80} for i in range(91)}
    picture = score_figures.speaker_picture(speakers, 1 / count, None)
    assert picture.height < 600
