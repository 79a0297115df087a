"""Scalars to `metrics.jsonl` and to TensorBoard; a resumed run first drops what it will do again."""

import json
import os
import shutil
import sys
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

from emofuse_jax.training.confusion_image import confusion_image
from emofuse_jax.utils.files import name_file_in_error, parse_json

# tensorboardX imports PyTorch where it is installed: 1.6 s, and its own CUDA libraries.
absent = {} if "torch" in sys.modules else {"torch": None}
sys.modules.update(absent)
try:
    from tensorboardX import SummaryWriter
finally:
    for name in absent:
        del sys.modules[name]


class Writer:
    """Appends rows of scalars; only the first process writes."""

    def __init__(self, workdir: str, *, resume_step: int, active: bool):
        self._active = active
        if not active:
            return
        self._workdir, self._path = workdir, os.path.join(workdir, "metrics.jsonl")
        rows = [row for row in read_rows(self._path) if row["step"] <= resume_step]
        with name_file_in_error(self._path), open(f"{self._path}.tmp", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        os.replace(f"{self._path}.tmp", self._path)
        self._board = SummaryWriter(
            os.path.join(workdir, "tensorboard"), purge_step=resume_step + 1, flush_secs=10
        )

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """Writes one row, `{"step", "split", name: value}`."""
        if not self._active:
            return
        with name_file_in_error(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
        self._check_board()
        for name, value in values.items():
            self._board.add_scalar(f"{split}/{name}", value, step)

    def _check_board(self) -> None:
        """OSError where TensorBoard's thread is gone, as over a full disk: its queue would block."""
        if not self._board.file_writer.event_writer._worker.is_alive():
            raise OSError(f"{self._workdir}/tensorboard: can't be written")

    def write_epoch(
        self,
        step: int,
        row: dict[str, float],
        matrix: Shaped[np.ndarray, "c c"] | None,
        classes: Sequence[str],
    ) -> None:
        """Writes an epoch's row, and the confusion matrix of its validation clips, if any, to TensorBoard."""
        self.write(step, "epoch", row)
        if self._active and matrix is not None:
            self._check_board()
            image = confusion_image(matrix, classes)
            self._board.add_image("epoch/validation_confusion", image, step, dataformats="HWC")

    def close(self, scores: dict[str, float] | None = None, fields: dict | None = None) -> None:
        """Flushes TensorBoard's file; with the scores of a finished run, its hyper-parameters too."""
        if self._active:
            self._board.close()
            if scores:
                write_hyperparameters(self._workdir, "hparams", fields or {}, scores)


def write_hyperparameters(workdir: str, name: str, fields: dict, scores: dict[str, float]) -> None:
    """Shows a training in TensorBoard's table of hyper-parameters, in place of an earlier one of its name."""
    folder = os.path.join(workdir, "tensorboard")
    shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
    plain = {field: v if isinstance(v, int | float | str) else str(v) for field, v in fields.items()}
    with SummaryWriter(os.path.join(folder, name)) as board:
        board.add_hparams(plain, scores, name=".")


def read_rows(path: str) -> list[dict]:
    """Rows of a `metrics.jsonl`; a last line cut off by a kill is left out.

    Raises ValueError naming the file and the line that is none.
    """
    if not os.path.exists(path):
        return []
    with open(path, "rb") as file:
        lines = file.read().split(b"\n")
    return [_row(line, f"{path}: line {i}") for i, line in enumerate(lines[:-1], 1) if line]


def _row(line: bytes, name: str) -> dict:
    row = parse_json(line, name)
    if not isinstance(row, dict) or type(row.get("step")) is not int or not isinstance(row.get("split"), str):
        raise ValueError(f"{name}: fields step and split: expected a number and a name")
    return row


def read_epochs(workdir: str) -> list[dict]:
    """The per-epoch rows of a run."""
    return [row for row in read_rows(os.path.join(workdir, "metrics.jsonl")) if row["split"] == "epoch"]
