"""Writes scalars to `metrics.jsonl` and TensorBoard; a resumed run first removes rows after its
checkpoint."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Shaped

from emofuse_jax.scoring.result_types import EpochRow
from emofuse_jax.utils.files import name_file_in_error, parse_json
from emofuse_jax.utils.optional import is_installed
from emofuse_jax.utils.process_setup import without_torch

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


MetricRow = dict[str, Any]
"""Row of `metrics.jsonl`: `step`, `split` (`step` or `epoch`), and scalars by name."""


class MetricWriter:
    """Appends rows of scalars to `metrics.jsonl` and, if tensorboardX is installed, to TensorBoard.

    On creation, rows after `resume_step` are removed, because a resumed run repeats these steps. With
    `active=False`, for all but the first process, nothing is written.

    Raises:
      ValueError: on creation, if a row of the existing `metrics.jsonl` is invalid.
      OSError: if the files cannot be written.
    """

    def __init__(self, workdir: str, *, resume_step: int, active: bool):
        self._active = active
        self._tensorboard: SummaryWriter | None = None
        if not active:
            return
        self._workdir, self._path = workdir, os.path.join(workdir, "metrics.jsonl")
        rows = [row for row in read_metric_rows(self._path) if row["step"] <= resume_step]
        with name_file_in_error(self._path), open(f"{self._path}.tmp", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        os.replace(f"{self._path}.tmp", self._path)
        self._tensorboard = open_summary_writer(
            os.path.join(workdir, "tensorboard"), purge_step=resume_step + 1, flush_secs=10
        )

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """Appends the row `{"step": step, "split": split, name: value, ...}` to `metrics.jsonl`.

        Also adds the values to TensorBoard, if tensorboardX is installed. Does nothing if the writer was
        created with `active=False`.

        Args:
          step: training step of the row.
          split: `step` or `epoch`.
          values: scalars by name; they can be NaN or infinite.

        Raises:
          OSError: if the files cannot be written.
        """
        if not self._active:
            return
        with name_file_in_error(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
        if self._tensorboard is not None:
            self._check_tensorboard(self._tensorboard)
            for name, value in values.items():
                self._tensorboard.add_scalar(f"{split}/{name}", value, step)

    def _check_tensorboard(self, tensorboard: "SummaryWriter") -> None:
        """Raises OSError if TensorBoard's writer thread has died (full disk); its queue would block."""
        if not tensorboard.file_writer.event_writer._worker.is_alive():
            raise OSError(f"{self._workdir}/tensorboard: can't be written; check that the disk is not full")

    def write_epoch(
        self,
        step: int,
        row: dict[str, float],
        confusion: Shaped[np.ndarray, "c c"] | None,
        classes: Sequence[str],
    ) -> None:
        """Appends the row of an epoch to `metrics.jsonl`, and adds it to TensorBoard, if that is used.

        Unless `confusion` is None, the confusion matrix is added to TensorBoard as an image. TensorBoard is
        used if tensorboardX is installed. Does nothing if the writer was created with `active=False`.

        Args:
          step: training step at the end of the epoch.
          row: scalars by name.
          confusion: confusion matrix of the validation clips, numbers of clips; rows are true classes.
          classes: names of the c classes, in the order of its rows.

        Raises:
          OSError: if the files cannot be written.
        """
        self.write(step, "epoch", row)
        if self._tensorboard is not None and confusion is not None:
            from emofuse_jax.training.confusion_image import confusion_image

            self._check_tensorboard(self._tensorboard)
            image = confusion_image(confusion, classes)
            self._tensorboard.add_image("epoch/validation_confusion", image, step, dataformats="HWC")

    def close(
        self, scores: dict[str, float] | None = None, fields: Mapping[str, object] | None = None
    ) -> None:
        """Closes TensorBoard's file, and adds a row to its table of hyperparameters if `scores` are passed.

        An earlier row is replaced. Does nothing if tensorboardX is not installed or the writer was created
        with `active=False`.

        Args:
          scores: final scores by name.
          fields: hyperparameters by name, of any type; those that are no numbers or strings are stored as
            their text. None: the row has only the scores.

        Raises:
          OSError: if the files cannot be written.
        """
        if self._tensorboard is not None:
            self._tensorboard.close()
            if scores:
                write_hyperparameters(self._workdir, "hparams", fields or {}, scores)


def open_summary_writer(directory: str, **options: int) -> "SummaryWriter | None":
    """Returns a writer of TensorBoard files, or None if tensorboardX is not installed.

    `options` are keyword arguments of `tensorboardX.SummaryWriter`, such as `purge_step` and `flush_secs`.

    Raises:
      OSError: if the directory or the file in it cannot be created.
    """
    if not is_installed("tensorboardX"):
        return None
    with without_torch():
        from tensorboardX import SummaryWriter

    return SummaryWriter(directory, **options)


def write_hyperparameters(
    workdir: str, name: str, fields: Mapping[str, object], scores: dict[str, float]
) -> None:
    """Adds a run to TensorBoard's table of hyperparameters, replacing an earlier entry with the same name.

    Writes the directory `tensorboard/<name>` of the workdir. If tensorboardX is not installed, only removes
    an earlier entry.

    Args:
      workdir: workdir of the run.
      name: name of the entry.
      fields: hyperparameters; values other than numbers and strings are converted to strings.
      scores: scores of the run.

    Raises:
      OSError: if the files cannot be written.
    """
    directory = os.path.join(workdir, "tensorboard")
    shutil.rmtree(os.path.join(directory, name), ignore_errors=True)
    hyperparameters = {
        field: value if isinstance(value, int | float | str) else str(value)
        for field, value in fields.items()
    }
    summary_writer = open_summary_writer(os.path.join(directory, name))
    if summary_writer is not None:
        with summary_writer:
            summary_writer.add_hparams(hyperparameters, scores, name=".")


def read_metric_rows(path: str) -> list[MetricRow]:
    """Reads the rows of a `metrics.jsonl`.

    A last line without a line break, cut off when the process was killed, is ignored.

    Returns:
      One dict per row: `step` (integer), `split` (text, `step` or `epoch`), and the scalars by name. The list
      is empty if the file does not exist.

    Raises:
      ValueError: if a line is not a valid row; the message names the file and the line.
      OSError: if the file cannot be read.
    """
    if not os.path.exists(path):
        return []
    with open(path, "rb") as file:
        lines = file.read().split(b"\n")
    return [_parse_row(line, f"{path}: line {i}") for i, line in enumerate(lines[:-1], 1) if line]


def _parse_row(line: bytes, location: str) -> MetricRow:
    row = parse_json(line, location)
    if not isinstance(row, dict) or type(row.get("step")) is not int or not isinstance(row.get("split"), str):
        raise ValueError(
            f"{location}: fields step and split: expected an integer and a string; remove this line"
        )
    return row


def read_epoch_rows(workdir: str) -> list[EpochRow]:
    """Reads the rows of the epochs in a workdir's `metrics.jsonl`.

    Returns:
      One dict per epoch, in the order of the file: `step`, `split` (`epoch`) and the scalars of the epoch, as
      far as they were written: `epoch` (its number, from 1), `train_loss`, `train_ua`, `validation_loss`,
      `validation_ua`, `validation_wa` (UA is the mean recall, WA the accuracy, both fractions),
      `temperature`, `clips_per_second`, `waiting` (fraction of the time spent waiting for data) and `damaged`
      (number of skipped clips). The list is empty if there is no such file.

    Raises:
      ValueError: if a row is not a JSON object with an integer `step` and a text `split`; the message names
        the file and the line.
      OSError: if the file cannot be read.
    """
    rows = read_metric_rows(os.path.join(workdir, "metrics.jsonl"))
    return [cast(EpochRow, row) for row in rows if row["split"] == "epoch"]
