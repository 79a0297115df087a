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
    share: float = 0.0,
    bucket: UInt8[np.ndarray, " n"] | None = None,
) -> Sampler:
    """The sampler of `config.data`; `bucket`, of each clip, keeps those of like length together.

    Raises ValueError where `balanced` or `share` has no labels to go by, or meets `bucket`.
    """
    if not balanced and not share:
        return ShuffledSampler(clips, batch_size, seed, bucket)
    if bucket is not None:
        raise ValueError("data.buckets: not with data.balanced or data.labelled_share")
    if labels is None:
        raise ValueError("data.balanced, data.labelled_share: they need the labels of the clips")
    groups = labels if balanced else np.minimum(labels, 0)  # all that have a label are one class
    return BalancedSampler(clips, groups, batch_size, seed, share)


@dataclasses.dataclass(frozen=True)
class ShuffledSampler:
    """Passes over all clips, each in an order of its own; those that fill no whole batch are left out."""

    clips: Int[np.ndarray, " n"]
    batch_size: int
    seed: int
    bucket: UInt8[np.ndarray, " n"] | None = None
    """Of each clip: a batch holds clips of one, or of neighbours where a bucket ends in it."""

    def batch(self, number: int) -> Int[np.ndarray, " b"]:
        """The clips of batch `number`."""
        epoch, place = divmod(int(number), len(self.clips) // self.batch_size)
        buckets = None if self.bucket is None else self.bucket.tobytes()
        return self.clips[_batches(self.seed, epoch, len(self.clips), self.batch_size, buckets)[place]]


@functools.lru_cache(maxsize=8)  # readers of one run are at most an epoch apart
def _batches(seed: int, epoch: int, count: int, size: int, buckets: bytes | None) -> Int[np.ndarray, "k b"]:
    """Places of the clips of each batch of a pass."""
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(count)[: count // size * size]
    if buckets is None:
        return order.reshape(-1, size)
    order = order[np.argsort(np.frombuffer(buckets, np.uint8)[order], kind="stable")]
    return generator.permutation(order.reshape(-1, size))


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
        classes, unlabelled = self._classes(), self._unlabelled_rows()
        labelled, chosen = self.batch_size - unlabelled, []
        if unlabelled:
            chosen.append(self._take(UNLABELLED, number * unlabelled, unlabelled))
        for place, label in enumerate(classes):
            first, after = (_rows_before(i, labelled, len(classes), place) for i in (number, number + 1))
            chosen.append(self._take(label, first, after - first))
        return self._generator(0, number).permutation(np.concatenate(chosen))

    def _classes(self) -> Int[np.ndarray, " c"]:
        """Labels in the order in which odd rows go round."""
        return self._generator(1).permutation(np.unique(self.labels[self.labels >= 0]))

    def _unlabelled_rows(self) -> int:
        if np.all(self.labels >= 0):
            return 0
        if self.labelled_share:
            wanted = round((1.0 - self.labelled_share) * self.batch_size)
        else:
            wanted = max(1, round(np.mean(self.labels < 0) * self.batch_size))
        room = self.batch_size - len(np.unique(self.labels[self.labels >= 0]))
        return min(wanted, max(1, room))

    def _take(self, label: int, start: int, count: int) -> Int[np.ndarray, " k"]:
        """Rows `start` to `start + count` of the endless passes over one class."""
        members = self.clips[self.labels == label] if label >= 0 else self.clips[self.labels < 0]
        rows = np.arange(start, start + count)
        passes = {
            p: self._generator(2, label + 1, p).permutation(members) for p in np.unique(rows // len(members))
        }
        return np.array([passes[row // len(members)][row % len(members)] for row in rows], self.clips.dtype)

    def _generator(self, *what: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, *map(int, what)))


def _rows_before(number: int, rows: int, classes: int, place: int) -> int:
    """Rows that the class at a place has had before batch `number`: whole shares, and odd rows in turn."""
    share, odd = divmod(rows, classes)
    return number * share + (number * odd - place + classes - 1) // classes
