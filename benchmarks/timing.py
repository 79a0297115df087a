"""What `emofuse benchmark` measures, and how a row is made: medians of passes in turn."""

import statistics
import time
from collections.abc import Callable

REPEATS = 9


def records(path: str) -> list[dict]:
    """Records per second, medians of alternating passes over the same clips in the same order."""
    import tensorflow_datasets as tfds

    from emofuse_jax.data import records as codec
    from emofuse_jax.data.dataset import open_dataset

    dataset = open_dataset(path)
    source = tfds.builder_from_directory(path).as_data_source(codec.TFDS_SPLIT)
    features = source.dataset_info.features
    chosen = range(0, len(dataset.index), max(1, len(dataset.index) // 64))
    stored = [dataset.read_bytes(i) for i in chosen]
    cases = {
        "decode": (
            each(lambda data: codec.decode(data, dataset.shape), stored),
            each(features.deserialize_example_np, stored),
        ),
        "read and decode": (each(dataset.read, chosen), each(source.__getitem__, chosen)),
    }
    rows = []
    for case, both in cases.items():
        ours, peer = medians(dict(zip(("ours", "tfds"), both, strict=True)), REPEATS).values()
        rows.append(row(case, "records/s", ours, peer, peer_name="tfds", repeats=REPEATS))
    return rows


def each(function: Callable, items) -> Callable[[], float]:
    """A pass over items that gives how many it does a second."""

    def rate() -> float:
        began = time.perf_counter()
        for item in items:
            function(item)
        return len(items) / (time.perf_counter() - began)

    return rate


def medians(sides: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The median of what each side gives, all sides in turn; the first round warms up."""
    rounds = [{name: side() for name, side in sides.items()} for _ in range(repeats + 1)]
    return {name: statistics.median(found[name] for found in rounds[1:]) for name in sides}


def row(case: str, unit: str, ours: float, peer: float | None, *, peer_name: str, repeats: int) -> dict:
    """A row of rates: more is better; `peer` is None where the peer is not there."""
    ratio = None if peer is None else ours / peer
    values = {"case": case, "unit": unit, "ours": ours, "peer": peer, "peer_name": peer_name}
    return values | {"ratio": ratio, "repeats": repeats}


def line(row: dict) -> str:
    """A row in words."""
    ours = f"{row['case']}: ours {row['ours']:.4g} {row['unit']}"
    if row["peer"] is None:
        return f"{ours}, {row['peer_name']} not there"
    return (
        f"{ours}, {row['peer_name']} {row['peer']:.4g}, ratio {row['ratio']:.2f} ({row['repeats']} repeats)"
    )
