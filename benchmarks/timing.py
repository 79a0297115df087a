"""What `emofuse benchmark` measures, and how a row is made: medians of passes in turn."""

import statistics
import time
from collections.abc import Callable

REPEATS = 9


def measure_records(path: str) -> list[dict]:
    """Records per second, medians of alternating passes over the same clips in the same order."""
    import tensorflow_datasets as tfds

    from emofuse_jax.data import records as codec
    from emofuse_jax.data.dataset import open_dataset

    dataset = open_dataset(path)
    source = tfds.builder_from_directory(path).as_data_source(codec.TFDS_SPLIT)
    features = source.dataset_info.features
    indices = range(0, len(dataset.index), max(1, len(dataset.index) // 64))
    stored = [dataset.read_bytes(i) for i in indices]
    cases = {
        "decode": (
            make_rate_timer(lambda data: codec.decode(data, dataset.shape), stored),
            make_rate_timer(features.deserialize_example_np, stored),
        ),
        "read and decode": (
            make_rate_timer(dataset.read, indices),
            make_rate_timer(source.__getitem__, indices),
        ),
    }
    rows = []
    for case, measurements in cases.items():
        ours, peer = measure_medians(dict(zip(("ours", "tfds"), measurements, strict=True)), REPEATS).values()
        rows.append(make_row(case, "records/s", ours, peer, peer_name="tfds", repeats=REPEATS))
    return rows


def make_rate_timer(function: Callable, items) -> Callable[[], float]:
    """A pass over items that gives how many it does a second."""

    def items_per_second() -> float:
        start_time = time.perf_counter()
        for item in items:
            function(item)
        return len(items) / (time.perf_counter() - start_time)

    return items_per_second


def measure_medians(measurements: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The median of what each side gives, all sides in turn; the first round warms up."""
    rounds = [{name: measure() for name, measure in measurements.items()} for _ in range(repeats + 1)]
    return {name: statistics.median(values[name] for values in rounds[1:]) for name in measurements}


def make_row(case: str, unit: str, ours: float, peer: float | None, *, peer_name: str, repeats: int) -> dict:
    """A row of rates: more is better; `peer` is None where the peer is not there."""
    ratio = None if peer is None else ours / peer
    values = {"case": case, "unit": unit, "ours": ours, "peer": peer, "peer_name": peer_name}
    return values | {"ratio": ratio, "repeats": repeats}


def format_row(row: dict) -> str:
    """A row in words."""
    our_text = f"{row['case']}: ours {row['ours']:.4g} {row['unit']}"
    if row["peer"] is None:
        return f"{our_text}, {row['peer_name']} not there"
    return (
        f"{our_text}, {row['peer_name']} {row['peer']:.4g}, ratio {row['ratio']:.2f}"
        f" ({row['repeats']} repeats)"
    )
