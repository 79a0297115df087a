"""Which clips make up a training batch: shuffled, of like length, or class-balanced; by its number alone."""

import dataclasses
import functools
from typing import Protocol

import numpy as np
from jaxtyping import Int, UInt8

UNLABELLED = -1


class Sampler(Protocol):
    """What every kind of sampler can do."""

    batch_size: int

    def batch(self, number: int) -> Int[np.ndarray, " b"]:
        """The clips of batch `number`, from 0 on without an end."""


def make_sampler(
    clips: Int[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"] | None,
    *,
    batch_size: int,
    seed: int,
    balanced: bool = False,
    labelled_share: float = 0.0,
    clip_buckets: UInt8[np.ndarray, " n"] | None = None,
) -> Sampler:
    """The sampler of `config.data`; `clip_buckets`, of each clip, keeps those of like length together.

    Raises ValueError where `balanced` or `labelled_share` has no labels to go by, or meets `clip_buckets`.
    """
    if not balanced and not labelled_share:
        return ShuffledSampler(clips, batch_size, seed, clip_buckets)
    if clip_buckets is not None:
        raise ValueError("data.buckets: not with data.balanced or data.labelled_share")
    if labels is None:
        raise ValueError("data.balanced, data.labelled_share: they need the labels of the clips")
    groups = labels if balanced else np.minimum(labels, 0)  # all that have a label are one class
    return BalancedSampler(clips, groups, batch_size, seed, labelled_share)


@dataclasses.dataclass(frozen=True)
class ShuffledSampler:
    """Passes over all clips, each in an order of its own; those that fill no whole batch are left out."""

    clips: Int[np.ndarray, " n"]
    batch_size: int
    seed: int
    clip_buckets: UInt8[np.ndarray, " n"] | None = None
    """Of each clip: a batch holds clips of one, or of neighbours where a bucket ends in it."""

    def batch(self, number: int) -> Int[np.ndarray, " b"]:
        """The clips of batch `number`."""
        epoch, batch_in_epoch = divmod(int(number), len(self.clips) // self.batch_size)
        bucket_bytes = None if self.clip_buckets is None else self.clip_buckets.tobytes()
        return self.clips[
            _epoch_batches(self.seed, epoch, len(self.clips), self.batch_size, bucket_bytes)[batch_in_epoch]
        ]


@functools.lru_cache(maxsize=8)  # readers of one run are at most an epoch apart
def _epoch_batches(
    seed: int, epoch: int, clip_count: int, batch_size: int, bucket_bytes: bytes | None
) -> Int[np.ndarray, "k b"]:
    """Places of the clips of each batch of a pass."""
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(clip_count)[: clip_count // batch_size * batch_size]
    if bucket_bytes is None:
        return order.reshape(-1, batch_size)
    order = order[np.argsort(np.frombuffer(bucket_bytes, np.uint8)[order], kind="stable")]
    return generator.permutation(order.reshape(-1, batch_size))


@dataclasses.dataclass(frozen=True)
class BalancedSampler:
    """Batch i holds the same number of each class, up to one where the classes do not divide it.

    The clips of a class come in passes: each pass holds all of them once, in an order of its own; a clip can
    stand twice in a batch only where a pass ends in it. The odd rows go round the classes in turn.
    Unlabelled clips take `1 - labelled_share` of the rows, or where that is 0 their share of the clips; they
    leave a row for each class.
    """

    clips: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    """-1 is unlabelled."""
    batch_size: int
    seed: int
    labelled_share: float = 0.0

    def __post_init__(self):
        if not np.any(self.labels >= 0):
            raise ValueError("data.balanced: no training clip has a label")
        if not 0.0 <= self.labelled_share <= 1.0:
            raise ValueError(f"data.labelled_share={self.labelled_share}: expected a number from 0 to 1")

    def batch(self, number: int) -> Int[np.ndarray, " b"]:
        """The clips of batch `number`, in a shuffled order."""
        classes, unlabelled_rows = self._classes(), self._unlabelled_rows()
        labelled_rows, selected_clips = self.batch_size - unlabelled_rows, []
        if unlabelled_rows:
            selected_clips.append(self._take_clips(UNLABELLED, number * unlabelled_rows, unlabelled_rows))
        for class_index, label in enumerate(classes):
            start, stop = (
                _rows_before(i, labelled_rows, len(classes), class_index) for i in (number, number + 1)
            )
            selected_clips.append(self._take_clips(label, start, stop - start))
        return self._generator(0, number).permutation(np.concatenate(selected_clips))

    def _classes(self) -> Int[np.ndarray, " c"]:
        """Labels in the order in which odd rows go round."""
        return self._generator(1).permutation(np.unique(self.labels[self.labels >= 0]))

    def _unlabelled_rows(self) -> int:
        if np.all(self.labels >= 0):
            return 0
        if self.labelled_share:
            row_count = round((1.0 - self.labelled_share) * self.batch_size)
        else:
            row_count = max(1, round(np.mean(self.labels < 0) * self.batch_size))
        max_row_count = self.batch_size - len(np.unique(self.labels[self.labels >= 0]))
        return min(row_count, max(1, max_row_count))

    def _take_clips(self, label: int, start: int, count: int) -> Int[np.ndarray, " k"]:
        """Rows `start` to `start + count` of the endless passes over one class."""
        members = self.clips[self.labels == label] if label >= 0 else self.clips[self.labels < 0]
        rows = np.arange(start, start + count)
        passes = {
            pass_index: self._generator(2, label + 1, pass_index).permutation(members)
            for pass_index in np.unique(rows // len(members))
        }
        return np.array([passes[row // len(members)][row % len(members)] for row in rows], self.clips.dtype)

    def _generator(self, *stream_numbers: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, *map(int, stream_numbers)))


def _rows_before(number: int, labelled_rows: int, class_count: int, class_index: int) -> int:
    """Rows that the class at a place has had before batch `number`: whole shares, and odd rows in turn."""
    rows_per_class, odd_rows = divmod(labelled_rows, class_count)
    return number * rows_per_class + (number * odd_rows - class_index + class_count - 1) // class_count
