"""Streams batches from the records: shuffled and resumable for training, padded and in order for scoring."""

from collections.abc import Iterator

import grain
import numpy as np
from jaxtyping import Int

from emofuse_jax.data.assemble import empty_batch, fill_row
from emofuse_jax.data.dataset import Dataset
from emofuse_jax.data.labels import hide_labels
from emofuse_jax.data.sampler import make_sampler
from emofuse_jax.host import cores
from emofuse_jax.types import Batch, InputSpec

ENDLESS = 1 << 40
"""Batches of a dataset that makes each from its number."""


def train_batches(
    dataset: Dataset,
    clips: Int[np.ndarray, " n"],
    spec: InputSpec,
    *,
    batch_size: int,
    seed: int,
    process: tuple[int, int] = (0, 1),
    threads: int = 2,
    labels: Int[np.ndarray, " n"] | None = None,
    balanced: bool = False,
    labelled_share: float = 0.0,
    start: int = 0,
) -> Iterator[Batch]:
    """Endless shuffled batches, a new order each epoch.

    A batch is a function of its number (data/sampler.py); a process reads only its rows of each global
    batch, so the global batches are the same for any number of processes.

    Args:
      dataset: the records.
      clips: record indices to train on.
      spec: static shape; longer sounds are cut to their middle `t` steps, shorter ones padded.
      batch_size: rows of the *global* batch.
      seed: of the order.
      process: (index, count) of this process.
      threads: reader threads; never more than cores, where they would only wait for each other.
      labels: what training may see of each clip's label: -1 hides it; None is all of them.
      balanced: the same number of each class in every batch (BalancedSampler), by `labels`.
      labelled_share: share of each batch that has a label, where others have none; 0: as they come.
      start: number of the first batch, to go on from.

    Raises:
      ValueError: fewer clips than a batch, a batch that the processes cannot share, or `balanced` or
        `labelled_share` without labels.
    """
    if len(clips) < batch_size:
        raise ValueError(
            f"{dataset.path}: {len(clips)} training clips, fewer than data.batch_size={batch_size}"
        )
    if batch_size % process[1]:
        raise ValueError(f"data.batch_size={batch_size} is not divisible by {process[1]} processes")
    rows = own_rows(batch_size, process)
    sampler = make_sampler(
        clips, labels, batch_size=batch_size, seed=seed, balanced=balanced, share=labelled_share
    )
    hidden = clips[:0] if labels is None else clips[labels < 0]

    def load(number: int) -> Batch:
        return hide_labels(load_batch(dataset, sampler.batch(number)[rows], spec), hidden)

    batches = grain.MapDataset.range(start, ENDLESS).map(load)
    threads = min(threads, cores())
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(batches.to_iter_dataset(options))


def eval_batches(
    dataset: Dataset,
    clips: Int[np.ndarray, " n"],
    spec: InputSpec,
    *,
    batch_size: int,
    process: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Every clip once, in order; the last batch is padded with rows of weight 0."""
    rows = own_rows(batch_size, process)
    chosen = [chunk[rows] for chunk in padded_rows(clips, batch_size)]
    batches = grain.MapDataset.source(chosen).map(lambda chunk: load_batch(dataset, chunk, spec))
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))


def own_rows(rows: int, process: tuple[int, int]) -> slice:
    """Of so many rows those of process (index, count)."""
    index, count = process
    return slice(index * rows // count, (index + 1) * rows // count)


def padded_rows(numbers: Int[np.ndarray, " n"], batch_size: int) -> Int[np.ndarray, "k b"]:
    """Numbers of rows as whole batches, the last one filled up with -1."""
    padded = np.full(-(-len(numbers) // batch_size) * batch_size, -1, numbers.dtype)
    padded[: len(numbers)] = numbers
    return padded.reshape(-1, batch_size)


def load_batch(dataset: Dataset, clips: Int[np.ndarray, " b"], spec: InputSpec) -> Batch:
    """Reads clips into one batch; an index of -1 gives a padded row of weight 0."""
    speaker_index = {name: i for i, name in enumerate(dataset.speakers)}
    batch = empty_batch(len(clips), spec)
    for row, clip in enumerate(clips):
        if clip >= 0:
            record = dataset.read(clip)
            fill_row(batch, row, record, speaker_index[record.speaker], int(clip))
    return batch


def steps_per_epoch(clips: int, batch_size: int) -> int:
    """Whole batches in one pass over the training clips."""
    return clips // batch_size
