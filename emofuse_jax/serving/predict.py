"""Runs a bundle on prepared windows, in batches of a few sizes that compile once."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from emofuse_jax.data.collate import empty_batch, fill_row
from emofuse_jax.serving.interfaces import LoadedBundle
from emofuse_jax.serving.predictions import (
    FailedWindow,
    Prediction,
    PreparedWindow,
    apply_min_confidence,
    make_window_prediction,
)
from emofuse_jax.types import InputSpec

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
"""Batch sizes that are compiled; a batch is padded to the next one."""


def bundle_input_spec(bundle: LoadedBundle) -> InputSpec:
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


def predict_windows(
    bundle: LoadedBundle,
    windows: Iterable[PreparedWindow],
    min_confidence: float,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> Iterator[Prediction | FailedWindow]:
    """Answers windows in batches of the sizes `batch_sizes`, in order; memory stays flat in their number.

    An answer whose confidence is below `min_confidence` has the label `unknown`.
    """
    windows = iter(windows)
    while batch := list(itertools.islice(windows, batch_sizes[-1])):
        batch_size = next(size for size in batch_sizes if size >= len(batch))
        outputs = bundle.run(to_batch(bundle, [window.record_or_error for window in batch], batch_size))
        for row, window in enumerate(batch):
            output = {name: array[row] for name, array in outputs.items()}
            yield apply_min_confidence(make_window_prediction(bundle.classes, window, output), min_confidence)


def to_batch(bundle: LoadedBundle, records: Sequence, batch_size: int) -> dict[str, np.ndarray]:
    """The model's inputs for records, in `batch_size` rows; a text in place of a record leaves its row
    masked."""
    batch = empty_batch(batch_size, bundle_input_spec(bundle))
    for row, record in enumerate(records):
        if not isinstance(record, str):
            fill_row(batch, row, record)
    return {name: getattr(batch, name) for name in bundle.inputs}
