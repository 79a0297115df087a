"""Length buckets: a batch gets the shape of the bucket of its longest clip, so that there are few shapes."""

import dataclasses

import numpy as np
from jaxtyping import Int, UInt8

from emofuse_jax.data.dataset import DamagedRecordError, Dataset
from emofuse_jax.data.prepared_files import feature_hop_ms
from emofuse_jax.types import InputSpec


@dataclasses.dataclass(frozen=True)
class Buckets:
    """Assigns each record to a bucket, i.e. one of a few batch shapes, by the length of its audio."""

    specs: tuple[InputSpec, ...]
    """Shape of each bucket, shortest first; the last one is the shape that the config defines."""
    record_buckets: UInt8[np.ndarray, " n"]
    """Bucket of each record: an index into `specs`."""

    def spec(self, clips: Int[np.ndarray, " b"]) -> InputSpec:
        """Returns the clip shape of the longest bucket among these clips.

        Its fields are the numbers of audio steps `t`, bins `f`, video frames `s`, pixels `h` and `w` of a
        face crop, `classes` and `feature_steps`, and the widths `audio_features` and `face_features`. If all
        rows are padded, it is the shape of the shortest bucket.

        Args:
          clips: Record indices; -1 is a padded row.

        Raises:
          IndexError: An index is too large.
        """
        return self.specs[self.record_buckets[clips[clips >= 0]].max(initial=0)]

    def sort_by_bucket(self, clips: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Returns the same record indices, shortest bucket first; the order within a bucket stays.

        `clips` must not have padded rows (-1). Raises IndexError if an index is too large.
        """
        return clips[np.argsort(self.record_buckets[clips], kind="stable")]


def single_bucket(dataset: Dataset, spec: InputSpec) -> Buckets:
    """Returns `Buckets` with one bucket, so that every batch has the clip shape `spec`.

    `specs`, the shape of each bucket, is `(spec,)`, and `record_buckets` [n], the bucket of each of the n
    records, is 0 everywhere (uint8).
    """
    return Buckets((spec,), np.zeros(len(dataset.index), np.uint8))


def bucket_edges(lengths: Int[np.ndarray, " n"], max_buckets: int, max_length: int) -> list[int]:
    """Returns the largest length of each bucket, ascending, so that buckets have about equally many clips.

    There are at most `max_buckets` lengths, without duplicates and without 0; the last one is `max_length`.
    Longer clips count as `max_length`. `lengths`, of which there is at least one, and the result are in
    spectrogram steps.
    """
    quantiles = np.arange(1, max_buckets) / max_buckets
    inner_edges = np.quantile(np.minimum(lengths, max_length), quantiles, method="higher")
    return sorted({*map(int, inner_edges), max_length} - {0})


def audio_lengths(dataset: Dataset) -> Int[np.ndarray, " n"]:
    """Returns the audio length of each record in spectrogram steps, by record index; reads all records.

    The length is 0 for records without audio and for damaged records. If a record stores audio features but
    no spectrogram, it is the number of spectrogram steps of the same duration.

    Raises:
      OSError: A shard is missing or cannot be opened.
      ValueError: The number of shards or records does not match prep.json and manifest.csv, the name of the
        first shard does not end in `-of-<number of shards>`, or prep.json has no audio encoder although a
        record has audio features and no spectrogram.
    """
    return np.array([audio_length(dataset, index) for index in range(len(dataset.index))])


def audio_length(dataset: Dataset, index: int) -> int:
    """Returns the audio length of one record in spectrogram steps; 0 if it has no audio or is damaged.

    If a record stores audio features but no spectrogram, the result is the number of spectrogram steps of the
    same duration. A damaged record raises no error here because every later read reports it.

    Raises:
      OSError: A shard is missing or cannot be opened.
      ValueError: The number of shards or records does not match prep.json and manifest.csv, the name of the
        first shard does not end in `-of-<number of shards>`, `index` is negative, or prep.json has no audio
        encoder although the record has audio features and no spectrogram.
      IndexError: `index` is too large.
    """
    try:
        record, settings = dataset.read(index), dataset.prep["settings"]
    except DamagedRecordError:
        return 0
    if record.spectrogram is not None and len(record.spectrogram):
        return len(record.spectrogram)
    if record.audio_features is None:
        return 0
    audio_ms = len(record.audio_features) * feature_hop_ms(settings)
    return int(np.ceil(audio_ms / settings["audio"]["hop_ms"]))
