"""Runs a bundle on prepared windows, in batches of a few sizes that compile once."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from emofuse_jax.data.collate import empty_batch, fill_row
from emofuse_jax.serving.interfaces import LoadedBundle
from emofuse_jax.serving.predictions import Gap, Prediction, Window, answer_of, surer
from emofuse_jax.types import InputSpec

BUCKETS = (1, 2, 4, 8, 16, 32)
"""Batch sizes that are compiled; a batch is padded to the next one."""


def input_spec(bundle: LoadedBundle) -> InputSpec:
    """Returns the spec of the batches that a bundle reads: sizes of inputs that it does not read are 0."""
    unread_sizes = {
        "audio": {"t": 0},
        "faces": {"h": 0, "w": 0},
        "audio_features": {"audio_features": 0, "feature_steps": 0},
        "face_features": {"face_features": 0},
    }
    sizes = dict(bundle.metadata["spec"])
    for name, zeros in unread_sizes.items():
        if name not in bundle.inputs:
            sizes |= zeros
    return InputSpec(**sizes)


def answer_windows(
    bundle: LoadedBundle, windows: Iterable[Window], least: float, buckets: Sequence[int] = BUCKETS
) -> Iterator[Prediction | Gap]:
    """Answers windows in batches of the sizes `buckets`, in order; memory stays flat in their number.

    An answer whose confidence is below `least` has the label `unknown`.
    """
    windows = iter(windows)
    while batch := list(itertools.islice(windows, buckets[-1])):
        size = next(bucket for bucket in buckets if bucket >= len(batch))
        outputs = bundle.run(rows_of(bundle, [window.found for window in batch], size))
        for row, window in enumerate(batch):
            output = {name: array[row] for name, array in outputs.items()}
            yield surer(answer_of(bundle.classes, window, output), least)


def rows_of(bundle: LoadedBundle, found: Sequence, size: int) -> dict[str, np.ndarray]:
    """The model's inputs for records, in `size` rows; a text in place of a record leaves its row masked."""
    batch = empty_batch(size, input_spec(bundle))
    for row, record in enumerate(found):
        if not isinstance(record, str):
            fill_row(batch, row, record)
    return {name: getattr(batch, name) for name in bundle.inputs}
