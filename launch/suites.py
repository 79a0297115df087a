"""What `emofuse benchmark` measures: each suite takes a directory of records and gives rows."""

import statistics
import time
from collections.abc import Callable

REPEATS = 9


def records(path: str) -> list[dict]:
    """Milliseconds per record, medians of alternating passes over the same clips in the same order."""
    import tensorflow_datasets as tfds

    from emofuse_jax.data import records as codec
    from emofuse_jax.data.dataset import open_dataset

    dataset = open_dataset(path)
    source = tfds.builder_from_directory(path).as_data_source(codec.SPLIT)
    features = source.dataset_info.features
    chosen = range(0, len(dataset.index), max(1, len(dataset.index) // 64))
    stored = [dataset.read_bytes(i) for i in chosen]

    def each(function: Callable, items) -> Callable[[], None]:
        return lambda: [function(item) for item in items] and None

    cases = {
        "decode": (
            each(lambda data: codec.decode(data, dataset.shape), stored),
            each(features.deserialize_example_np, stored),
        ),
        "read and decode": (each(dataset.read, chosen), each(source.__getitem__, chosen)),
    }
    return [compare(case, "ms/record", len(stored), *both, peer_name="tfds") for case, both in cases.items()]


def compare(case: str, unit: str, count: int, ours: Callable, peer: Callable, *, peer_name: str) -> dict:
    """A row: medians of `count` items' mean time in milliseconds, ours and the peer's passes in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(REPEATS + 1):
        for which, function in enumerate((ours, peer)):
            began = time.perf_counter()
            function()
            if turn:  # the first pass warms up
                times[which].append(1e3 * (time.perf_counter() - began) / count)
    mine, theirs = map(statistics.median, times)
    row = {"case": case, "unit": unit, "ours": mine, "peer": theirs, "peer_name": peer_name}
    return {**row, "ratio": theirs / mine, "repeats": REPEATS}
