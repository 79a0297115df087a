"""Suite `loader`: records per second that one core turns into batches.

emofuse runs its training pipeline in random order: read, parse, crop, pad, mask. Augmentation is not part of
it, because it runs on the device inside the step. The first peer reads as many records of the same files with
ArrayRecord, in random order and one by one, which is faster than reading several at once. The second peer
decodes clips during training: `process_clip` on the clips from which the records were made.
"""

import contextlib
import functools
import itertools
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.pinned_process import pinned_process
from benchmarks.suite_prepare import find_corpus_clips
from benchmarks.timing import make_row, measure_medians
from data_prep.onnx_models.encoder_settings import NO_ENCODERS
from data_prep.settings import PrepSettings
from emofuse_jax.data.dataset import Dataset, open_dataset
from emofuse_jax.data.pipeline import train_batches
from emofuse_jax.data.records import shard_paths
from emofuse_jax.data.sampler import make_sampler
from emofuse_jax.data.writing.corpus import MediaClip

ALLOCATOR_WARM_UP_BYTES = 24 << 20
"""More bytes than a batch needs; see `read_records`."""


def measure_loader(
    data: str, *, repeats: int = 9, batch_count: int = 64, batch_size: int = 32, max_clips: int = 8
) -> Iterator[dict]:
    """Yields two rows, in records per second and core: against reading alone and against decoding clips.

    Args:
      data: Directory of the records, with their clips in the folder `clips` next to it.
      repeats: Number of timed passes; the median is reported.
      batch_count: Number of batches in a pass.
      batch_size: Number of records in a batch.
      max_clips: Largest number of clips to decode. If there are none, the second row has no peer.
    """
    settings = PrepSettings.from_dict(open_dataset(data).prep["settings"])
    uses_encoders = settings.features != NO_ENCODERS
    if uses_encoders:
        print("loader: decoding clips is not measured: the records need ONNX models", file=sys.stderr)
    paths = [] if uses_encoders else find_corpus_clips(data, max_clips)
    workloads = {
        "ours": (load_batches, data, batch_count, batch_size),
        "bare": (read_records, data, batch_count * batch_size),
    }
    if paths:
        workloads["decoding"] = (decode_clips, paths, settings)
    counts = {"ours": batch_count * batch_size, "bare": batch_count * batch_size, "decoding": len(paths)}
    with contextlib.ExitStack() as stack:
        timers = {name: stack.enter_context(pinned_process()) for name in workloads}
        measurements = {name: functools.partial(timers[name], *work) for name, work in workloads.items()}
        rates = {
            name: counts[name] / seconds for name, seconds in measure_medians(measurements, repeats).items()
        }
    for workload, peer_name in (("bare", "ArrayRecord's bare read"), ("decoding", "decoding at train time")):
        unit, our_rate, peer_rate = "records/s/core", rates["ours"], rates.get(workload)
        yield make_row(
            f"batches of {batch_size}", unit, our_rate, peer_rate, peer_name=peer_name, repeats=repeats
        )


@functools.cache
def open_cached_dataset(data: str) -> Dataset:
    """Returns the opened records; opens them once per process."""
    return open_dataset(data)


def load_batches(data: str, batch_count: int, batch_size: int) -> None:
    """Reads `batch_count` batches with a new iterator; the time includes the batches that it reads ahead."""
    import emofuse_jax as ef
    from emofuse_jax.training.experiment import make_input_spec  # here, so that the peers do not import it

    records, config = open_cached_dataset(data), ef.settings.base()
    clips, spec = np.arange(len(records.index)), make_input_spec(config, records)
    threads = config.data.threads
    sampler = make_sampler(clips, None, batch_size=batch_size, seed=0)
    batch_iterator = train_batches(records, sampler, lambda clips: spec, threads=threads)
    for _ in itertools.islice(batch_iterator, batch_count):
        pass


def read_records(data: str, record_count: int) -> None:
    """Reads `record_count` records in random order with ArrayRecord and discards them.

    It first allocates and frees more memory than a batch, so that the allocator does not return freed memory
    to the system, as in a process that makes batches. With new pages for each record, reading is several
    times slower.
    """
    bytearray(ALLOCATOR_WARM_UP_BYTES)
    source = open_cached_source(data)
    order = np.resize(np.random.default_rng(0).permutation(len(source)), record_count)
    for index in order.tolist():
        source[index]


@functools.cache
def open_cached_source(data: str):
    """Returns an ArrayRecordDataSource of all shards; opens them once per process."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    return ArrayRecordDataSource(shard_paths(data))


def decode_clips(paths: Sequence[str], settings: PrepSettings) -> None:
    """Computes the content of the record of each clip with `process_clip` and discards it."""
    from data_prep.process_clip import process_clip

    for path in paths:
        process_clip(MediaClip("clip", path, 0, ""), settings)
