"""The suite `loader`: records that a core turns into ready batches in a second.

Ours is the training pipeline in its random order: read, parse, cut, pad, mask. Augmentation is no part of
it: that runs on the device, inside the step. The bare read is ArrayRecord's own, of as many records of the
same files in a random order, one by one, which is faster than asking for many at once; decoding at train time
is `process_clip` on the clips that the records were made of.
"""

import contextlib
import functools
import itertools
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.pinned_process import one_core
from benchmarks.suite_prepare import corpus_clips
from benchmarks.timing import medians, row
from data_prep.onnx_models.encoder_settings import NO_ENCODERS
from data_prep.settings import PrepSettings
from emofuse_jax.data.dataset import Dataset, open_dataset
from emofuse_jax.data.pipeline import train_batches
from emofuse_jax.data.records import shard_paths
from emofuse_jax.data.sampler import make_sampler
from emofuse_jax.data.writing.corpus import Clip

LARGER_THAN_A_BATCH = 24 << 20


def loader(
    data: str, *, repeats: int = 9, batches: int = 64, batch: int = 32, most: int = 8
) -> Iterator[dict]:
    """A row against the bare read of `batches` batches, one against decoding `most` of the clips."""
    settings = PrepSettings.from_dict(open_dataset(data).prep["settings"])
    encodes = settings.features != NO_ENCODERS
    if encodes:
        print("loader: records of ONNX models; decoding at train time is left out", file=sys.stderr)
    paths = [] if encodes else corpus_clips(data, most)
    passes = {"ours": (ours, data, batches, batch), "bare": (bare, data, batches * batch)}
    if paths:
        passes["decoding"] = (decoding, paths, settings)
    counts = {"ours": batches * batch, "bare": batches * batch, "decoding": len(paths)}
    with contextlib.ExitStack() as stack:
        timed = {name: stack.enter_context(one_core()) for name in passes}
        sides = {name: functools.partial(timed[name], *work) for name, work in passes.items()}
        rates = {name: counts[name] / seconds for name, seconds in medians(sides, repeats).items()}
    for side, peer in (("bare", "ArrayRecord's bare read"), ("decoding", "decoding at train time")):
        unit, mine, theirs = "records/s/core", rates["ours"], rates.get(side)
        yield row(f"batches of {batch}", unit, mine, theirs, peer_name=peer, repeats=repeats)


@functools.cache
def dataset(data: str) -> Dataset:
    """The records, opened once in a process."""
    return open_dataset(data)


def ours(data: str, batches: int, batch: int) -> None:
    """Reads batches with a fresh iterator: what it reads ahead counts too."""
    import emofuse_jax as ef
    from emofuse_jax.training.experiment import input_spec  # which the other sides should not wait for

    records, config = dataset(data), ef.settings.base()
    clips, spec = np.arange(len(records.index)), input_spec(config, records)
    threads = config.data.threads
    sampler = make_sampler(clips, None, batch_size=batch, seed=0)
    made = train_batches(records, sampler, lambda clips: spec, threads=threads)
    for _ in itertools.islice(made, batches):
        pass


def bare(data: str, count: int) -> None:
    """Reads as many records in random order and keeps none.

    First frees more than a batch, so that the allocator keeps what is freed, as it does beside batches: with
    fresh pages for each record reading is several times slower.
    """
    bytearray(LARGER_THAN_A_BATCH)
    source = open_source(data)
    order = np.resize(np.random.default_rng(0).permutation(len(source)), count)
    for index in order.tolist():
        source[index]


@functools.cache
def open_source(data: str):
    """ArrayRecord's own access to the files, opened once in a process."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    return ArrayRecordDataSource(shard_paths(data))


def decoding(paths: Sequence[str], settings: PrepSettings) -> None:
    """Makes of each clip what its record holds."""
    from data_prep.process_clip import process_clip

    for path in paths:
        process_clip(Clip("clip", path, 0, ""), settings)
