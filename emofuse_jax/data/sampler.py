"""Selects the clips of each training batch: shuffled, of similar length, or class-balanced.

The clips of a batch depend only on the seed and the number of the batch, so that a run can resume anywhere.
"""

import dataclasses
import functools
from typing import Protocol

import numpy as np
from jaxtyping import Int, UInt8

UNLABELLED = -1
"""Label of unlabelled clips."""


class Sampler(Protocol):
    """Interface of all samplers."""

    @property
    def batch_size(self) -> int:
        """Number of clips in a global batch."""

    def batch(self, number: int) -> Int[np.ndarray, " b"]:
        """Returns the b record indices of batch `number`, which starts at 0 and has no upper limit.

        Raises ValueError if `number` or the seed is negative.
        """


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
    """Returns a BalancedSampler if `balanced` or `labelled_share` is set, otherwise a ShuffledSampler.

    Both have `batch_size` and `batch(number)`, the record indices of a batch.

    Args:
      clips: Record indices of the training clips.
      labels: Label of each clip, -1 if unlabelled; None if `balanced` and `labelled_share` are not used.
      batch_size: Clips in a global batch.
      seed: Seed of the order, 0 or more; if it is negative, `batch` raises ValueError.
      balanced: True: every batch has the same number of clips of each class; rows that remain go to the
        classes in turn.
      labelled_share: Fraction of labelled rows in a batch; 0: as in the data.
      clip_buckets: Number of the length bucket of each clip, from 0 (shortest), so that clips of similar
        length share a batch; None: ignored.

    Raises:
      ValueError: `balanced` or `labelled_share` is used without labels or together with `clip_buckets`, no
        clip has a label, or `labelled_share` is not in [0, 1]; or neither is used and `batch_size` is below
        1 or above the number of clips.
    """
    if not balanced and not labelled_share:
        return ShuffledSampler(clips, batch_size, seed, clip_buckets)
    if clip_buckets is not None:
        raise ValueError("data.buckets: expected 1 with data.balanced or data.labelled_share")
    if labels is None:
        raise ValueError(
            "data.balanced, data.labelled_share: expected labels of the clips, found none; pass labels, or"
            " turn both off"
        )
    groups = labels if balanced else np.minimum(labels, 0)  # all labelled clips form one group
    return BalancedSampler(clips, groups, batch_size, seed, labelled_share)


@dataclasses.dataclass(frozen=True)
class ShuffledSampler:
    """Makes passes over all clips, each in a new random order; drops clips that do not fill a batch."""

    clips: Int[np.ndarray, " n"]
    batch_size: int
    seed: int
    clip_buckets: UInt8[np.ndarray, " n"] | None = None
    """Length bucket of each clip; a batch has clips of one bucket, or of neighbouring ones at the end of a
    bucket. None: clips are not sorted by length."""

    def __post_init__(self) -> None:
        """Raises ValueError if `batch_size` is below 1 or above the number of clips."""
        if not 1 <= self.batch_size <= len(self.clips):
            raise ValueError(
                f"data.batch_size={self.batch_size}: expected 1 to {len(self.clips)}, the number of training"
                " clips; correct it, or use more clips"
            )

    def batch(self, number: int) -> Int[np.ndarray, " b"]:
        """Returns the b record indices of batch `number`, counted from 0 and without an upper limit.

        An epoch is (number of clips) // b batches and has each clip at most once, in a new random order.
        Raises ValueError if `number` or the seed is negative.
        """
        epoch, batch_in_epoch = divmod(int(number), len(self.clips) // self.batch_size)
        bucket_bytes = None if self.clip_buckets is None else self.clip_buckets.tobytes()
        return self.clips[
            _epoch_batches(self.seed, epoch, len(self.clips), self.batch_size, bucket_bytes)[batch_in_epoch]
        ]


@functools.lru_cache(maxsize=8)  # the reader threads of a run are at most an epoch apart
def _epoch_batches(
    seed: int, epoch: int, clip_count: int, batch_size: int, bucket_bytes: bytes | None
) -> Int[np.ndarray, "k b"]:
    """Returns the positions, 0 to `clip_count` - 1, of the clips of each of the k batches of an epoch.

    The order is random; clips that do not fill a batch are left out, so k is 0 if there are too few clips.
    `bucket_bytes` has one byte for each clip, its length bucket: a batch then has clips of one bucket or of
    neighbouring ones. None: the length is ignored. Raises ValueError if `seed` or `epoch` is negative.
    """
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(clip_count)[: clip_count // batch_size * batch_size]
    if bucket_bytes is None:
        return order.reshape(-1, batch_size)
    order = order[np.argsort(np.frombuffer(bucket_bytes, np.uint8)[order], kind="stable")]
    return generator.permutation(order.reshape(-1, batch_size))


@dataclasses.dataclass(frozen=True)
class BalancedSampler:
    """Gives every batch the same number of clips of each class.

    If the number of labelled rows is not a multiple of the number of classes, the classes take turns in
    getting one row more. The clips of a class come in passes; each pass has all of them once, in a new random
    order. A clip can be twice in a batch only if a pass ends in this batch. Unlabelled clips get the fraction
    `1 - labelled_share` of the rows or, if `labelled_share` is 0, as many as their fraction of the clips; at
    least one row remains for each class if possible.
    """

    clips: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    """Label of each clip; -1 is unlabelled."""
    batch_size: int
    seed: int
    labelled_share: float = 0.0
    """Fraction of labelled rows in a batch; 0: as in the data."""

    def __post_init__(self) -> None:
        """Raises ValueError if no clip has a label or `labelled_share` is not in [0, 1]."""
        if not np.any(self.labels >= 0):
            raise ValueError(
                "data.balanced: no training clip has a label; use labelled clips, or turn off data.balanced"
                " and data.labelled_share"
            )
        if not 0.0 <= self.labelled_share <= 1.0:
            raise ValueError(f"data.labelled_share={self.labelled_share}: expected a number from 0 to 1")

    def batch(self, number: int) -> Int[np.ndarray, " b"]:
        """Returns the b record indices of batch `number`, which starts at 0, in random order.

        The unlabelled clips get a fixed number of rows. The classes share the others equally; the rows that
        remain go to the classes in turn. Raises ValueError if `number` or the seed is negative.
        """
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
        """Returns the labels of the c classes that occur, in the order in which they get an extra row.

        The order is random and depends on the seed only. Raises ValueError if the seed is negative.
        """
        return self._generator(1).permutation(np.unique(self.labels[self.labels >= 0]))

    def _unlabelled_rows(self) -> int:
        """Returns the number of unlabelled clips in each batch; 0 if all clips have a label.

        It is `1 - labelled_share` of the batch size, rounded. If `labelled_share` is 0, it is the same
        fraction of the batch size as in the data, rounded and at least 1. One row remains for each class if
        possible.
        """
        if np.all(self.labels >= 0):
            return 0
        if self.labelled_share:
            row_count = round((1.0 - self.labelled_share) * self.batch_size)
        else:
            row_count = max(1, round(np.mean(self.labels < 0) * self.batch_size))
        max_row_count = self.batch_size - len(np.unique(self.labels[self.labels >= 0]))
        return min(row_count, max(1, max_row_count))

    def _take_clips(self, label: int, start: int, count: int) -> Int[np.ndarray, " k"]:
        """Returns `count` record indices, from position `start` of the endless random passes over a class.

        `label` is the label of the class, or -1 for the unlabelled clips. Raises ValueError if the seed is
        negative.
        """
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
    """Returns the number of rows that the class at position `class_index` got in all batches before `number`.

    The result is the equal share of each batch plus the additional rows, which the classes get in turn.
    `class_index` starts at 0, in the order of `BalancedSampler._classes`.
    """
    rows_per_class, odd_rows = divmod(labelled_rows, class_count)
    return number * rows_per_class + (number * odd_rows - class_index + class_count - 1) // class_count
