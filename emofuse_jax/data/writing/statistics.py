"""Per-bin mean and standard deviation of a fold's training spectrograms, in one pass for all folds."""

import io
import os
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from emofuse_jax.data import records
from emofuse_jax.data.records import Record
from emofuse_jax.data.writing.shards import read_shard
from emofuse_jax.utils.files import write_atomic

MIN_STD = 1e-3
"""A bin that never changes is not blown up by dividing."""
BLOCK_FRAMES = 8192
"""Frames that are summed at once: those of an hour would take 1 GB in float64."""


class Moments:
    """Running sums over spectrogram frames, in float64."""

    def __init__(self, bins: int):
        self.num_frames, self.sum_of_values, self.sum_of_squares = 0, np.zeros(bins), np.zeros(bins)

    def add(
        self, num_frames: int, sum_of_values: Float[np.ndarray, " f"], sum_of_squares: Float[np.ndarray, " f"]
    ) -> None:
        """Adds a clip's number of frames and its sums of values and squares."""
        self.num_frames += num_frames
        self.sum_of_values += sum_of_values
        self.sum_of_squares += sum_of_squares

    def result(self) -> dict[str, Float[np.ndarray, " f"]]:
        """``mean = sum x / n``, ``std = sqrt(sum x^2 / n - mean^2)``; 0 and 1 where no clip had sound."""
        if not self.num_frames:
            return {"mean": np.zeros_like(self.sum_of_values), "std": np.ones_like(self.sum_of_values)}
        mean = self.sum_of_values / self.num_frames
        variance = np.maximum(self.sum_of_squares / self.num_frames - mean**2, 0.0)
        return {"mean": mean, "std": np.maximum(np.sqrt(variance), MIN_STD)}


class FoldMoments:
    """Moments of each fold over its training clips that have sound, from one pass over the records."""

    def __init__(self, folds: dict, bins: int):
        """`folds`: key to the fold's lists of clip_ids."""
        self.moments = {key: Moments(bins) for key in folds}
        self.moments_by_clip: dict[str, list[Moments]] = {}
        for key, parts in folds.items():
            for clip in parts["train"]:
                self.moments_by_clip.setdefault(clip, []).append(self.moments[key])

    def add(self, record: Record) -> None:
        """Counts a record in every fold that trains on it."""
        fold_moments = self.moments_by_clip.get(record.clip_id, ())
        if record.audio_ok and fold_moments:
            sums = _clip_sums(record)
            for moments in fold_moments:
                moments.add(*sums)

    def results(self) -> dict:
        """Mean and std by the fold's key."""
        return {key: moments.result() for key, moments in self.moments.items()}


def compute_fold_statistics(clip_records: Iterable[Record], folds: dict, bins: int) -> dict:
    """Mean and std of each fold over its training clips; `clip_records` is read once."""
    moments = FoldMoments(folds, bins)
    for record in clip_records:
        moments.add(record)
    return moments.results()


def _clip_sums(record: Record) -> tuple[int, Float[np.ndarray, " f"], Float[np.ndarray, " f"]]:
    sum_of_values, sum_of_squares = np.zeros((2, record.spectrogram.shape[1]))
    for start in range(0, len(record.spectrogram), BLOCK_FRAMES):
        values = record.spectrogram[start : start + BLOCK_FRAMES].astype(np.float64)  # t f
        sum_of_values, sum_of_squares = (
            sum_of_values + values.sum(0),
            sum_of_squares + np.square(values).sum(0),
        )
    return len(record.spectrogram), sum_of_values, sum_of_squares


def write_fold_statistics(
    output: str, shard_names: list[str], folds: dict, shape: records.RecordShape
) -> None:
    """stats/<protocol>/fold_<i>.npz with `mean` and `std` [f] over the fold's training clips.

    `shard_names`: the shards; `folds`: lists of clip_ids by protocol and number.
    """
    stored_records = (
        records.decode(data, shape) for name in shard_names for data in read_shard(os.path.join(output, name))
    )
    for (protocol, i), statistics in compute_fold_statistics(stored_records, folds, shape.f).items():
        file = io.BytesIO()
        np.savez(file, **statistics)
        write_atomic(os.path.join(output, "stats", protocol, f"fold_{i}.npz"), file.getvalue())
