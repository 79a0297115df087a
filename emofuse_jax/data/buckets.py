"""Length buckets: the shape of a batch follows from its longest clip, and only few shapes are there."""

import dataclasses

import numpy as np
from jaxtyping import Int, UInt8

from emofuse_jax.data.dataset import DamagedRecordError, Dataset
from emofuse_jax.types import InputSpec


@dataclasses.dataclass(frozen=True)
class Buckets:
    """Which bucket each record lies in, by the length of its sound."""

    specs: tuple[InputSpec, ...]
    """Shapes, shortest first; the last one is the config's own."""
    record_buckets: UInt8[np.ndarray, " n"]
    """Of each record the number of its shape."""

    def spec(self, clips: Int[np.ndarray, " b"]) -> InputSpec:
        """The shortest shape that holds these clips as the longest one does; -1 is padding."""
        return self.specs[self.record_buckets[clips[clips >= 0]].max(initial=0)]

    def sort_by_bucket(self, clips: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The clips, those of a bucket together."""
        return clips[np.argsort(self.record_buckets[clips], kind="stable")]


def single_bucket(dataset: Dataset, spec: InputSpec) -> Buckets:
    """All records in one shape."""
    return Buckets((spec,), np.zeros(len(dataset.index), np.uint8))


def bucket_edges(lengths: Int[np.ndarray, " n"], max_buckets: int, max_length: int) -> list[int]:
    """At most `max_buckets` lengths that about equally many clips lie between; the last one is
    `max_length`."""
    quantiles = np.arange(1, max_buckets) / max_buckets
    inner_edges = np.quantile(np.minimum(lengths, max_length), quantiles, method="higher")
    return sorted({*map(int, inner_edges), max_length} - {0})


def audio_lengths(dataset: Dataset) -> Int[np.ndarray, " n"]:
    """Steps of the spectrogram of each record, or what its features cover of them; reads all records once."""
    return np.array([audio_length(dataset, index) for index in range(len(dataset.index))])


def audio_length(dataset: Dataset, index: int) -> int:
    """Of one record; 0 where it has no sound, or is damaged: whoever needs it will read it again."""
    try:
        record, settings = dataset.read(index), dataset.prep["settings"]
    except DamagedRecordError:
        return 0
    if record.spectrogram is not None and len(record.spectrogram):
        return len(record.spectrogram)
    if record.audio_features is None:
        return 0
    hops_ms = settings["features"]["audio"]["layout"]["hop_ms"], settings["audio"]["hop_ms"]
    return int(np.ceil(len(record.audio_features) * hops_ms[0] / hops_ms[1]))
