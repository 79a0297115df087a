"""Runs a bundle on prepared windows, in batches of a few sizes that compile once each."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from emofuse_jax.data.collate import empty_batch, fill_row
from emofuse_jax.data.records import Failure, Record
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
"""Batch sizes that are compiled; a batch is padded to the next larger size."""


def bundle_input_spec(bundle: LoadedBundle) -> InputSpec:
    """Returns the sizes of the batches that a bundle reads as an InputSpec; sizes of unread inputs are 0.

    The fields are the numbers of audio steps `t`, frequency bins `f`, video frames `s` and `classes`, height
    `h` and width `w` of a face crop in pixels, the number of steps `feature_steps` and width `audio_features`
    of the audio features, and the width `face_features` of the face features. If the bundle does not read
    `audio`, t is 0 (f stays); without `faces`, h and w; without `audio_features` or `face_features`, their
    sizes.
    """
    sizes_by_input = {
        "audio": ("t",),
        "faces": ("h", "w"),
        "audio_features": ("audio_features", "feature_steps"),
        "face_features": ("face_features",),
    }
    unread_inputs = sizes_by_input.keys() - bundle.inputs.keys()
    zeros = {size: 0 for name in unread_inputs for size in sizes_by_input[name]}
    return dataclasses.replace(InputSpec(**bundle.metadata["spec"]), **zeros)


def predict_windows(
    bundle: LoadedBundle,
    windows: Iterable[PreparedWindow],
    min_confidence: float,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> Iterator[Prediction | FailedWindow]:
    """Predicts windows in batches; yields one Prediction or FailedWindow per window, in order.

    A Prediction has `path`, `start`, `end`, `label` (the most probable class), `confidence` (its
    probability), `probabilities` (dict by class name), `voice_weight` and `face_weight` (None if the model
    has none), `audio_ok` and `video_ok` (False if voice or face is not usable), and `notes`, a text. A window
    that holds a Failure becomes a FailedWindow with `path`, `start`, `end` and `error`. Times are seconds,
    rounded to milliseconds. At most `batch_sizes[-1]` windows are in memory at a time.

    Args:
      bundle: the loaded bundle.
      windows: PreparedWindows, which have `path`, `start`, `end` and `result`, a Record (one clip as arrays)
        or a Failure (`reason`); errors that are raised while they are read pass through.
      min_confidence: predictions with a lower confidence get the label `unknown`.
      batch_sizes: batch sizes in ascending order, at least one; a batch is padded to the next larger size. By
        default 1, 2, 4, 8, 16 and 32.

    Raises:
      ValueError: a record lacks an array that the model reads or has another number of frames, bins, pixels
        or features, or the bundle cannot be run on this machine.
    """
    windows = iter(windows)
    while batch := list(itertools.islice(windows, batch_sizes[-1])):
        batch_size = next(size for size in batch_sizes if size >= len(batch))
        outputs = bundle.run(to_batch(bundle, [window.result for window in batch], batch_size))
        for row, window in enumerate(batch):
            output = {name: array[row] for name, array in outputs.items()}
            yield apply_min_confidence(make_window_prediction(bundle.classes, window, output), min_confidence)


def to_batch(
    bundle: LoadedBundle, records: Sequence[Record | Failure], batch_size: int
) -> dict[str, np.ndarray]:
    """Returns the model's input arrays by name, with one row for each of `records`.

    An array is [batch_size ...] with the shape and dtype in `bundle.inputs`. Longer audio is cut to its
    middle, shorter audio is padded with zeros. Masks are True at steps and frames of the record, and False at
    padding, frames without a face, and unusable audio or video. The rows of Failures, and those after the
    last record, are 0 and False.

    Args:
      bundle: the loaded bundle.
      records: Records (one clip as arrays) or Failures (`reason`), at most `batch_size`.
      batch_size: number of rows.

    Raises:
      ValueError: a record lacks an array that the model reads, or has another number of frames, bins, pixels
        or features.
      IndexError: there are more records than `batch_size`.
    """
    batch = empty_batch(batch_size, bundle_input_spec(bundle))
    for row, record in enumerate(records):
        if isinstance(record, Record):
            fill_row(batch, row, record)
    return {name: getattr(batch, name) for name in bundle.inputs}
