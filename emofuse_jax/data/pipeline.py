"""Reads batches from the records: shuffled and resumable for training, in order and padded for scoring."""

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
"""Returns the static shape of a global batch of these record indices; -1 is a padded row."""

ENDLESS_BATCH_COUNT = 1 << 40
"""Length of the training dataset; grain needs one, and no run reaches it."""


@dataclasses.dataclass(frozen=True)
class SkipPolicy:
    """Clips that are left out of batches if their records are damaged; their rows are padded."""

    skippable_clips: frozenset[int] = frozenset()
    """Record indices of the clips that may be left out."""
    skipped_clips: set[int] = dataclasses.field(default_factory=set)
    """Record indices of the clips that were left out so far."""

    def read(self, dataset: Dataset, clip: int) -> Record | None:
        """Returns the record with index `clip`, or None if it is damaged and `clip` is in `skippable_clips`.

        A damaged clip that is left out is added to the set `skipped_clips` with a warning (UserWarning), and
        not read again. `skippable_clips` is a frozenset of record indices.

        Raises:
          DamagedRecordError: The record is damaged and `clip` is not in `skippable_clips`.
          OSError: A shard is missing or cannot be opened.
          ValueError: The number of shards or records does not match prep.json and manifest.csv, the name of
            the first shard does not end in `-of-<number of shards>`, or `clip` is negative.
          IndexError: `clip` is too large.
        """
        try:
            return None if clip in self.skipped_clips else dataset.read(clip)
        except DamagedRecordError as error:
            if clip not in self.skippable_clips:
                raise
            self.skipped_clips.add(clip)
            warnings.warn(f"damaged clip left out: {error}", stacklevel=2)
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
    """Returns an endless iterator of training batches of NumPy arrays.

    A batch has the spectrogram `audio` [b t f], `faces` [b s h w 3], the masks `audio_mask` [b t] and
    `face_mask` [b s], True at valid positions; the features of frozen encoders `audio_features` [b u d] with
    `audio_features_mask` [b u], and `face_features` [b s d], valid where `face_mask` is (None if the records
    have none); and `label`, `label_mask`, `weight`, `speaker` and `clip`, [b] each.

    A batch depends only on its number. A process reads only its rows of each global batch, so the global
    batches are the same for any number of processes.

    Args:
      dataset: The records.
      sampler: Selects the clips of each batch.
      choose_spec: Function from the record indices of a global batch (-1: a padded row) to its `InputSpec`,
        the sizes of a clip; longer audio is cropped to its middle `t` steps, shorter audio is padded.
      process: (index, count) of this process; the index starts at 0.
      threads: Reader threads; 0: none in the background. At most as many as cores are used, since more would
        only wait for each other.
      hidden_label_clips: Record indices of the clips whose label training must not use; None: no clip.
      start: Number of the first batch, to resume a run.
      skip_policy: Its `skippable_clips`, a frozenset of record indices, names the clips that become padded
        rows, with a warning, if their records are damaged.

    Raises:
      ValueError: The batch size is not a multiple of the number of processes, or `threads` is negative. While
        iterating: `start` or the seed of the sampler is negative; a record lacks a field that the batch
        needs, has another number of frames, bins, pixels or features, or its speaker is not in prep.json; or
        the shards do not match prep.json and manifest.csv (their number, their names or the number of
        records).
      DamagedRecordError: While iterating: a record is damaged and not in `skip_policy.skippable_clips`.
      OSError: While iterating: a shard is missing or cannot be opened.
      IndexError: While iterating: a record index is too large.
    """
    if sampler.batch_size % process[1]:
        raise ValueError(
            f"data.batch_size={sampler.batch_size}: expected a multiple of the {process[1]} processes"
        )
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
    """Returns an iterator of batches of NumPy arrays with every clip once, in order.

    A batch has the spectrogram `audio` [b t f], `faces` [b s h w 3], the masks `audio_mask` [b t] and
    `face_mask` [b s], True at valid positions; the features of frozen encoders `audio_features` [b u d] with
    `audio_features_mask` [b u], and `face_features` [b s d], valid where `face_mask` is (None if the records
    have none); and `label`, `label_mask`, `weight`, `speaker` and `clip`, [b] each. The last global batch is
    filled up with padded rows of weight 0.

    Args:
      dataset: The records.
      clips: Record indices.
      choose_spec: Function from the record indices of a global batch (-1: a padded row) to its `InputSpec`,
        the sizes of a clip; longer audio is cropped to its middle `t` steps, shorter audio is padded.
      batch_size: Rows of a global batch, all processes together; at least 1. If it is not a multiple of the
        number of processes, some of them have one row more than others.
      process: (index, count) of this process, which reads only its rows of each batch; the index starts at 0.

    Raises:
      ZeroDivisionError: `batch_size` is 0.
      DamagedRecordError: While iterating: a record is damaged.
      OSError: While iterating: a shard is missing or cannot be opened.
      IndexError: While iterating: a record index is too large.
      ValueError: `batch_size` is negative. While iterating: a record lacks a field that the batch needs, has
        another number of frames, bins, pixels or features, or its speaker is not in prep.json; or the shards
        do not match prep.json and manifest.csv (their number, their names or the number of records).
    """
    rows = process_rows(batch_size, process)

    def load(batch_clips: Int[np.ndarray, " b"]) -> Batch:
        return load_batch(dataset, batch_clips[rows], choose_spec(batch_clips))

    batches = grain.MapDataset.source(list(to_padded_batches(clips, batch_size))).map(load)
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))


def process_rows(row_count: int, process: tuple[int, int]) -> slice:
    """Returns the slice of `row_count` rows that belongs to a process.

    The slices of all processes are consecutive and cover all rows; their lengths differ by at most 1.
    `process` is (index of the process, from 0, number of processes).
    """
    index, count = process
    return slice(index * row_count // count, (index + 1) * row_count // count)


def to_padded_batches(row_numbers: Int[np.ndarray, " n"], batch_size: int) -> Int[np.ndarray, "k b"]:
    """Returns the row numbers as k batches of `batch_size`, [k b]; the last batch is filled up with -1.

    Raises ZeroDivisionError if `batch_size` is 0, ValueError if it is negative.
    """
    padded = np.full(-(-len(row_numbers) // batch_size) * batch_size, -1, row_numbers.dtype)
    padded[: len(row_numbers)] = row_numbers
    return padded.reshape(-1, batch_size)


def load_batch(
    dataset: Dataset, clips: Int[np.ndarray, " b"], spec: InputSpec, skip_policy: SkipPolicy = SKIP_NOTHING
) -> Batch:
    """Returns a batch of NumPy arrays with the records `clips`, one row for each record index, in order.

    With the sizes of `spec`, the batch has the spectrogram `audio` [b t f], `faces` [b s h w 3], the masks
    `audio_mask` [b t] and `face_mask` [b s], True at valid positions, the features of frozen encoders with
    their mask (None if there are none), and `label`, `label_mask`, `weight`, `speaker` and `clip`, [b] each.

    An index of -1 gives a padded row of weight 0. So does, with a warning, a damaged record in
    `skip_policy.skippable_clips`, a frozenset of record indices. Audio that is longer than `spec.t` steps is
    cropped to its middle.

    Raises:
      DamagedRecordError: A record is damaged and not in `skip_policy.skippable_clips`.
      OSError: A shard is missing or cannot be opened.
      IndexError: An index is too large.
      ValueError: A record lacks a field that `spec` needs, has another number of frames, bins, pixels or
        features than `spec`, or its speaker is not in prep.json; or the shards do not match prep.json and
        manifest.csv (their number, their names or the number of records).
    """
    speaker_index = {name: i for i, name in enumerate(dataset.speakers)}
    batch = empty_batch(len(clips), spec)
    for row, clip in enumerate(clips):
        if clip >= 0 and (record := skip_policy.read(dataset, int(clip))) is not None:
            if record.speaker not in speaker_index:
                raise ValueError(
                    f"{dataset.path}/prep.json: field speakers does not list {record.speaker[:60]!r}, the"
                    " speaker of a record; prepare the clips again"
                )
            fill_row(batch, row, record, speaker_index[record.speaker], int(clip))
    return batch
