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

SMALLEST_STD = 1e-3
"""A bin that never changes is not blown up by dividing."""
BLOCK = 8192
"""Frames that are summed at once: those of an hour would take 1 GB in float64."""


class Moments:
    """Running sums over spectrogram frames, in float64."""

    def __init__(self, bins: int):
        self.count, self.total, self.square = 0, np.zeros(bins), np.zeros(bins)

    def add(self, count: int, total: Float[np.ndarray, " f"], square: Float[np.ndarray, " f"]) -> None:
        """Adds a clip's number of frames and its sums of values and squares."""
        self.count += count
        self.total += total
        self.square += square

    def result(self) -> dict[str, Float[np.ndarray, " f"]]:
        """``mean = sum x / n``, ``std = sqrt(sum x^2 / n - mean^2)``; 0 and 1 where no clip had sound."""
        if not self.count:
            return {"mean": np.zeros_like(self.total), "std": np.ones_like(self.total)}
        mean = self.total / self.count
        variance = np.maximum(self.square / self.count - mean**2, 0.0)
        return {"mean": mean, "std": np.maximum(np.sqrt(variance), SMALLEST_STD)}


class FoldMoments:
    """Moments of each fold over its training clips that have sound, from one pass over the records."""

    def __init__(self, folds: dict, bins: int):
        """`folds`: key to the fold's lists of clip_ids."""
        self.moments = {key: Moments(bins) for key in folds}
        self.users: dict[str, list[Moments]] = {}
        for key, parts in folds.items():
            for clip in parts["train"]:
                self.users.setdefault(clip, []).append(self.moments[key])

    def add(self, record: Record) -> None:
        """Counts a record in every fold that trains on it."""
        users = self.users.get(record.clip_id, ())
        if record.audio_ok and users:
            sums = _sums(record)
            for used in users:
                used.add(*sums)

    def results(self) -> dict:
        """Mean and std by the fold's key."""
        return {key: moments.result() for key, moments in self.moments.items()}


def fold_statistics(records: Iterable[Record], folds: dict, bins: int) -> dict:
    """Mean and std of each fold over its training clips; `records` is read once."""
    moments = FoldMoments(folds, bins)
    for record in records:
        moments.add(record)
    return moments.results()


def _sums(record: Record) -> tuple[int, Float[np.ndarray, " f"], Float[np.ndarray, " f"]]:
    total, square = np.zeros((2, record.spectrogram.shape[1]))
    for start in range(0, len(record.spectrogram), BLOCK):
        values = record.spectrogram[start : start + BLOCK].astype(np.float64)  # t f
        total, square = total + values.sum(0), square + np.square(values).sum(0)
    return len(record.spectrogram), total, square


def write_stats(output: str, names: list[str], folds: dict, shape: records.RecordShape) -> None:
    """stats/<protocol>/fold_<i>.npz with `mean` and `std` [f] over the fold's training clips.

    `names`: the shards; `folds`: lists of clip_ids by protocol and number.
    """
    stored = (
        records.decode(data, shape) for name in names for data in read_shard(os.path.join(output, name))
    )
    for (protocol, i), values in fold_statistics(stored, folds, shape.f).items():
        file = io.BytesIO()
        np.savez(file, **values)
        write_atomic(os.path.join(output, "stats", protocol, f"fold_{i}.npz"), file.getvalue())
