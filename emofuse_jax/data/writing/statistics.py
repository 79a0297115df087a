"""Computes the mean and standard deviation of each spectrogram bin over a fold's training clips.

One pass over the records serves all folds.
"""

import io
import os
from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypedDict, TypeVar

import numpy as np
from jaxtyping import Float

from emofuse_jax.data import records
from emofuse_jax.data.metadata import FoldParts
from emofuse_jax.data.records import Record
from emofuse_jax.data.writing.shards import read_shard
from emofuse_jax.utils.files import write_atomic

MIN_STD = 1e-3
"""Smallest standard deviation, so that a constant bin is not divided by zero."""
BLOCK_FRAMES = 8192
"""Spectrogram frames that are summed at once; all frames of an hour would take 1 GB in float64."""


FoldKey = TypeVar("FoldKey", bound=Hashable)
"""Key of a fold, such as its protocol and number."""


class FoldStatistics(TypedDict):
    """Mean and standard deviation of each spectrogram bin over the training clips of one fold."""

    mean: Float[np.ndarray, " f"]
    std: Float[np.ndarray, " f"]


class Moments:
    """Sums over spectrogram frames in float64, from which mean and standard deviation are computed."""

    def __init__(self, bins: int) -> None:
        self.num_frames, self.sum_of_values, self.sum_of_squares = 0, np.zeros(bins), np.zeros(bins)

    def add(
        self, num_frames: int, sum_of_values: Float[np.ndarray, " f"], sum_of_squares: Float[np.ndarray, " f"]
    ) -> None:
        """Adds the number of frames of a clip and its sums of values and of squares, both [f].

        Raises ValueError if f is not the number of bins.
        """
        self.num_frames += num_frames
        self.sum_of_values += sum_of_values
        self.sum_of_squares += sum_of_squares

    def result(self) -> FoldStatistics:
        """Returns a dict: `mean` ``sum x / n`` and `std` ``sqrt(sum x^2 / n - mean^2)``, each float64 [f].

        `std` is at least MIN_STD (0.001). Without any frame, the mean is 0 and the std 1.
        """
        if not self.num_frames:
            return {"mean": np.zeros_like(self.sum_of_values), "std": np.ones_like(self.sum_of_values)}
        mean = self.sum_of_values / self.num_frames
        variance = np.maximum(self.sum_of_squares / self.num_frames - mean**2, 0.0)
        return {"mean": mean, "std": np.maximum(np.sqrt(variance), MIN_STD)}


class FoldMoments(Generic[FoldKey]):
    """Moments of each fold over its training clips that have audio, from one pass over the records."""

    def __init__(self, folds: Mapping[FoldKey, FoldParts], bins: int) -> None:
        """Starts with no frames.

        Args:
          folds: The lists of clip_ids of each fold, of which only `train` is used, by a key of the caller's
            choice, such as (protocol, number of the fold).
          bins: Number of spectrogram bins.
        """
        self.moments = {key: Moments(bins) for key in folds}
        self.moments_by_clip: dict[str, list[Moments]] = {}
        for key, parts in folds.items():
            for clip in parts["train"]:
                self.moments_by_clip.setdefault(clip, []).append(self.moments[key])

    def add(self, record: Record) -> None:
        """Adds a record to every fold that trains on it; a record without audio is ignored.

        Raises ValueError if its spectrogram has another number of bins.
        """
        fold_moments = self.moments_by_clip.get(record.clip_id, ())
        if record.audio_ok and fold_moments:
            sums = _clip_sums(record)
            for moments in fold_moments:
                moments.add(*sums)

    def results(self) -> dict[FoldKey, FoldStatistics]:
        """Returns for each fold, by its key in `folds`, a dict with `mean` and `std`, float64 [f].

        `std`, the standard deviation, is at least MIN_STD (0.001). Without audio, `mean` is 0 and `std` is 1.
        """
        return {key: moments.result() for key, moments in self.moments.items()}


def compute_fold_statistics(
    clip_records: Iterable[Record], folds: Mapping[FoldKey, FoldParts], bins: int
) -> dict[FoldKey, FoldStatistics]:
    """Returns the mean and deviation of each spectrogram bin over the training clips of each fold.

    The result is a dict by the keys of `folds`; each value is a dict with `mean` and `std`, float64 [f].
    Clips without audio are ignored; `std` is at least MIN_STD (0.001). Without any audio, `mean` is 0 and
    `std` is 1.

    Args:
      clip_records: Records of all clips; consumed once.
      folds: The lists of clip_ids of each fold, of which only `train` is used, by a key of the caller's
        choice, such as (protocol, number of the fold).
      bins: Number of spectrogram bins f.

    Raises:
      ValueError: The spectrogram of a record has another number of bins.
    """
    moments = FoldMoments(folds, bins)
    for record in clip_records:
        moments.add(record)
    return moments.results()


def _clip_sums(record: Record) -> tuple[int, Float[np.ndarray, " f"], Float[np.ndarray, " f"]]:
    """Returns (number of frames, sums of values [f], sums of squares [f]) of a record's spectrogram."""
    sum_of_values, sum_of_squares = np.zeros((2, record.spectrogram.shape[1]))
    for start in range(0, len(record.spectrogram), BLOCK_FRAMES):
        values = record.spectrogram[start : start + BLOCK_FRAMES].astype(np.float64)  # t f
        sum_of_values, sum_of_squares = (
            sum_of_values + values.sum(0),
            sum_of_squares + np.square(values).sum(0),
        )
    return len(record.spectrogram), sum_of_values, sum_of_squares


def write_fold_statistics(
    output: str,
    shard_names: list[str],
    folds: Mapping[tuple[str, int], FoldParts],
    shape: records.RecordShape,
) -> None:
    """Writes stats/<protocol>/fold_<i>.npz with `mean` and `std` [f] over the training clips of each fold.

    Both are float64, of each spectrogram bin. The folder is in `output`; existing files are replaced.

    Args:
      output: Directory of the records.
      shard_names: File names of all shards in `output`, which are read once.
      folds: By (protocol name, number of the fold) a dict with lists of clip_ids; only `train` is used.
      shape: Dimensions of the records.

    Raises:
      OSError: A shard is missing or cannot be read, or a file cannot be written.
      ValueError: A shard is damaged, or a record cannot be decoded.
    """
    stored_records = (
        records.decode(data, shape) for name in shard_names for data in read_shard(os.path.join(output, name))
    )
    for (protocol, i), statistics in compute_fold_statistics(stored_records, folds, shape.f).items():
        file = io.BytesIO()
        np.savez(file, mean=statistics["mean"], std=statistics["std"])
        write_atomic(os.path.join(output, "stats", protocol, f"fold_{i}.npz"), file.getvalue())
