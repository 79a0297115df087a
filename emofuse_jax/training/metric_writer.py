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
blocked_modules = {} if "torch" in sys.modules else {"torch": None}
sys.modules.update(blocked_modules)
try:
    from tensorboardX import SummaryWriter
finally:
    for name in blocked_modules:
        del sys.modules[name]


class MetricWriter:
    """Appends rows of scalars; only the first process writes."""

    def __init__(self, workdir: str, *, resume_step: int, active: bool):
        self._active = active
        if not active:
            return
        self._workdir, self._path = workdir, os.path.join(workdir, "metrics.jsonl")
        rows = [row for row in read_metric_rows(self._path) if row["step"] <= resume_step]
        with name_file_in_error(self._path), open(f"{self._path}.tmp", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        os.replace(f"{self._path}.tmp", self._path)
        self._tensorboard = SummaryWriter(
            os.path.join(workdir, "tensorboard"), purge_step=resume_step + 1, flush_secs=10
        )

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """Writes one row, `{"step", "split", name: value}`."""
        if not self._active:
            return
        with name_file_in_error(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
        self._check_tensorboard()
        for name, value in values.items():
            self._tensorboard.add_scalar(f"{split}/{name}", value, step)

    def _check_tensorboard(self) -> None:
        """OSError where TensorBoard's thread is gone, as over a full disk: its queue would block."""
        if not self._tensorboard.file_writer.event_writer._worker.is_alive():
            raise OSError(f"{self._workdir}/tensorboard: can't be written")

    def write_epoch(
        self,
        step: int,
        row: dict[str, float],
        confusion: Shaped[np.ndarray, "c c"] | None,
        classes: Sequence[str],
    ) -> None:
        """Writes an epoch's row, and the confusion matrix of its validation clips, if any, to TensorBoard."""
        self.write(step, "epoch", row)
        if self._active and confusion is not None:
            self._check_tensorboard()
            image = confusion_image(confusion, classes)
            self._tensorboard.add_image("epoch/validation_confusion", image, step, dataformats="HWC")

    def close(self, scores: dict[str, float] | None = None, fields: dict | None = None) -> None:
        """Flushes TensorBoard's file; with the scores of a finished run, its hyper-parameters too."""
        if self._active:
            self._tensorboard.close()
            if scores:
                write_hyperparameters(self._workdir, "hparams", fields or {}, scores)


def write_hyperparameters(workdir: str, name: str, fields: dict, scores: dict[str, float]) -> None:
    """Shows a training in TensorBoard's table of hyper-parameters, in place of an earlier one of its name."""
    directory = os.path.join(workdir, "tensorboard")
    shutil.rmtree(os.path.join(directory, name), ignore_errors=True)
    hyperparameters = {
        field: value if isinstance(value, int | float | str) else str(value)
        for field, value in fields.items()
    }
    with SummaryWriter(os.path.join(directory, name)) as summary_writer:
        summary_writer.add_hparams(hyperparameters, scores, name=".")


def read_metric_rows(path: str) -> list[dict]:
    """Rows of a `metrics.jsonl`; a last line cut off by a kill is left out.

    Raises ValueError naming the file and the line that is none.
    """
    if not os.path.exists(path):
        return []
    with open(path, "rb") as file:
        lines = file.read().split(b"\n")
    return [_parse_row(line, f"{path}: line {i}") for i, line in enumerate(lines[:-1], 1) if line]


def _parse_row(line: bytes, location: str) -> dict:
    row = parse_json(line, location)
    if not isinstance(row, dict) or type(row.get("step")) is not int or not isinstance(row.get("split"), str):
        raise ValueError(f"{location}: fields step and split: expected a number and a name")
    return row


def read_epoch_rows(workdir: str) -> list[dict]:
    """The per-epoch rows of a run."""
    return [
        row for row in read_metric_rows(os.path.join(workdir, "metrics.jsonl")) if row["split"] == "epoch"
    ]
