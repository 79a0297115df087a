"""Streams batches from the records: shuffled and resumable for training, padded and in order for scoring."""

import dataclasses
import warnings
from collections.abc import Callable, Iterator

import grain
import numpy as np
from jaxtyping import Int

from emofuse_jax.data.collate import empty_batch, fill_row
from emofuse_jax.data.dataset import DamagedRecordError, Dataset
from emofuse_jax.data.labels import hide_labels
from emofuse_jax.data.records import Record
from emofuse_jax.data.sampler import Sampler
from emofuse_jax.types import Batch, InputSpec
from emofuse_jax.utils.system import available_cores

ChooseSpec = Callable[[Int[np.ndarray, " b"]], InputSpec]
"""The static shape of a global batch of these clips, -1 where a row is padded."""

ENDLESS_BATCH_COUNT = 1 << 40
"""Batches of a dataset that makes each from its number."""


@dataclasses.dataclass(frozen=True)
class SkipPolicy:
    """Clips that may be left out, as padded rows, where their records are damaged."""

    skippable_clips: frozenset[int] = frozenset()
    skipped_clips: set[int] = dataclasses.field(default_factory=set)
    """Those that were."""

    def read(self, dataset: Dataset, clip: int) -> Record | None:
        """A record; None, and a warning, where it is damaged and may be left out."""
        try:
            return None if clip in self.skipped_clips else dataset.read(clip)
        except DamagedRecordError as error:
            if clip not in self.skippable_clips:
                raise
            self.skipped_clips.add(clip)
            warnings.warn(f"left out: {error}", stacklevel=2)
            return None


SKIP_NOTHING = SkipPolicy()


def train_batches(
    dataset: Dataset,
    sampler: Sampler,
    choose_spec: ChooseSpec,
    *,
    process: tuple[int, int] = (0, 1),
    threads: int = 2,
    hidden_label_clips: Int[np.ndarray, " n"] | None = None,
    start: int = 0,
    skip_policy: SkipPolicy = SKIP_NOTHING,
) -> Iterator[Batch]:
    """Endless training batches, each a function of its number (data/sampler.py).

    A process reads only its rows of each global batch, so these are the same for any number of processes.

    Args:
      dataset: the records.
      sampler: which clips make up a batch.
      choose_spec: of a batch of given clips; longer sounds are cut to their middle `t` steps, shorter ones
      padded.
      process: (index, count) of this process.
      threads: reader threads; never more than cores, where they would only wait for each other.
      hidden_label_clips: clips whose label training does not see.
      start: number of the first batch, to go on from.
      skip_policy: what becomes of damaged records.

    Raises:
      ValueError: a batch that the processes cannot share.
    """
    if sampler.batch_size % process[1]:
        raise ValueError(f"data.batch_size={sampler.batch_size} is not divisible by {process[1]} processes")
    rows = process_rows(sampler.batch_size, process)
    hidden_label_clips = np.zeros(0, np.int64) if hidden_label_clips is None else hidden_label_clips

    def load(number: int) -> Batch:
        clips = sampler.batch(number)
        return hide_labels(
            load_batch(dataset, clips[rows], choose_spec(clips), skip_policy), hidden_label_clips
        )

    batches = grain.MapDataset.range(start, ENDLESS_BATCH_COUNT).map(load)
    threads = min(threads, available_cores())
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(batches.to_iter_dataset(options))


def eval_batches(
    dataset: Dataset,
    clips: Int[np.ndarray, " n"],
    choose_spec: ChooseSpec,
    *,
    batch_size: int,
    process: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Every clip once, in order; the last batch is padded with rows of weight 0."""
    rows = process_rows(batch_size, process)

    def load(batch_clips: Int[np.ndarray, " b"]) -> Batch:
        return load_batch(dataset, batch_clips[rows], choose_spec(batch_clips))

    batches = grain.MapDataset.source(list(to_padded_batches(clips, batch_size))).map(load)
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))


def process_rows(row_count: int, process: tuple[int, int]) -> slice:
    """Of so many rows those of process (index, count)."""
    index, count = process
    return slice(index * row_count // count, (index + 1) * row_count // count)


def to_padded_batches(row_numbers: Int[np.ndarray, " n"], batch_size: int) -> Int[np.ndarray, "k b"]:
    """Numbers of rows as whole batches, the last one filled up with -1."""
    padded = np.full(-(-len(row_numbers) // batch_size) * batch_size, -1, row_numbers.dtype)
    padded[: len(row_numbers)] = row_numbers
    return padded.reshape(-1, batch_size)


def load_batch(
    dataset: Dataset, clips: Int[np.ndarray, " b"], spec: InputSpec, skip_policy: SkipPolicy = SKIP_NOTHING
) -> Batch:
    """Reads clips into one batch; an index of -1 gives a padded row of weight 0.

    Raises DamagedRecordError, unless the clip is one that may be left out.
    """
    speaker_index = {name: i for i, name in enumerate(dataset.speakers)}
    batch = empty_batch(len(clips), spec)
    for row, clip in enumerate(clips):
        if clip >= 0 and (record := skip_policy.read(dataset, int(clip))) is not None:
            if record.speaker not in speaker_index:
                raise ValueError(f"{dataset.path}/prep.json: field speakers: has no {record.speaker[:60]!r}")
            fill_row(batch, row, record, speaker_index[record.speaker], int(clip))
    return batch
