import errno
import io
import time

import numpy as np
import pytest
from PIL import Image

from emofuse_jax.training.confusion_image import CELL_PIXELS, FULL_COLOUR, MARGIN_PIXELS
from emofuse_jax.training.metric_writer import (
    MetricWriter,
    read_epoch_rows,
    read_metric_rows,
    write_hyperparameters,
)
from tests.support.read_tensorboard import read_values


def test_a_resumed_run_drops_what_it_does_again(tmp_path):
    writer = MetricWriter(str(tmp_path), resume_step=0, active=True)
    for step in (1, 2, 3):
        writer.write(step, "step", {"loss": float(step)})
    writer.write(3, "epoch", {"epoch": 1, "train_loss": 2.0})
    writer.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "spl')  # cut off by a kill
    writer = MetricWriter(str(tmp_path), resume_step=2, active=True)
    writer.write(3, "step", {"loss": 30.0})
    writer.close()
    assert [(row["step"], row["loss"]) for row in read_metric_rows(str(path))] == [
        (1, 1.0),
        (2, 2.0),
        (3, 30.0),
    ]
    assert read_epoch_rows(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"step": 2, "spl', "not JSON: Unterminated string"),
        (b"[" * 100_000, "not JSON: maximum recursion"),
        (b'{"step": "\xff"}', "not JSON: 'utf-8' codec"),
        (b"[]", "fields step and split: expected an integer and a string"),
        (b'{"step": "2", "split": "epoch"}', "fields step and split"),
        (b'{"step": 2}', "fields step and split"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, message):
    """But for the last one, which a kill may have cut off."""
    path, complete_line = tmp_path / "metrics.jsonl", b'{"step": 1, "split": "epoch"}\n'
    path.write_bytes(complete_line + line)
    assert read_epoch_rows(str(tmp_path)) == [{"step": 1, "split": "epoch"}]
    path.write_bytes(complete_line + line + b"\n" + complete_line)
    for read in (read_epoch_rows, lambda workdir: MetricWriter(workdir, resume_step=9, active=True)):
        with pytest.raises(ValueError, match=rf"\A[^\n]*/metrics\.jsonl: line 2: {message}[^\n]*\Z"):
            read(str(tmp_path))
    assert path.read_bytes() == complete_line + line + b"\n" + complete_line


def test_tensorboard_can_read_what_it_wrote(tmp_path):
    writer = MetricWriter(str(tmp_path), resume_step=0, active=True)
    writer.write(7, "step", {"loss": 0.25})
    writer.close()
    (value,) = read_values(tmp_path / "tensorboard")["step/loss"]
    assert value.simple_value == 0.25


def test_a_confusion_matrix_is_a_picture_in_tensorboard(tmp_path):
    matrix = np.array([[8, 2, 0], [0, 5, 5], [0, 0, 0]])
    writer = MetricWriter(str(tmp_path), resume_step=0, active=True)
    writer.write_epoch(3, {"epoch": 1}, matrix, ("angry", "happy", "a very long name"))
    writer.close()
    (value,) = read_values(tmp_path / "tensorboard")["epoch/validation_confusion"]
    picture = np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string)))
    side = MARGIN_PIXELS + 3 * CELL_PIXELS
    assert picture.shape == (side, side + MARGIN_PIXELS // 4, 3)
    corners = picture[MARGIN_PIXELS + 2 : side : CELL_PIXELS, MARGIN_PIXELS + 2 : side : CELL_PIXELS].astype(
        int
    )  # of each cell
    row_shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    np.testing.assert_array_equal(corners, (255 + row_shares[..., None] * (FULL_COLOUR - 255)).astype(int))


def test_hyperparameters_are_written_once(tmp_path):
    for ua in (0.5, 0.75):
        write_hyperparameters(str(tmp_path), "hparams", {"rate": 0.1, "widths": [1, 2]}, {"ua": ua})
    values = read_values(tmp_path / "tensorboard" / "hparams")
    assert [value.simple_value for value in values["ua"]] == [0.75]
    assert "_hparams_/session_start_info" in values


def test_only_the_first_process_writes(tmp_path):
    writer = MetricWriter(str(tmp_path), resume_step=0, active=False)
    writer.write(1, "step", {"loss": 1.0})
    writer.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_whose_thread_died_says_so(tmp_path, monkeypatch):
    """TensorBoard's queue holds ten; it would block at the eleventh."""

    def fail(data):
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = MetricWriter(str(tmp_path), resume_step=0, active=True)
    monkeypatch.setattr(writer._tensorboard.file_writer.event_writer._ev_writer, "write_event", fail)

    def fill():
        for step in range(1000):
            writer.write(step, "step", {"loss": 1.0})
            time.sleep(0.01)

    with pytest.raises(OSError, match="tensorboard: can't be written"):
        fill()
