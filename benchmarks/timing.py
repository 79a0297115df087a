"""Helpers of all suites: medians of alternating passes, rows of results; and the suite `records`."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable

from benchmarks.missing_wheels import is_installed
from emofuse_jax.utils.versions import package_versions

REPEATS = 9
"""Number of timed passes in the suite `records`."""


def measure_records(path: str) -> list[dict]:
    """Returns rows in records per second for decoding, and for reading and decoding; the peer is TFDS.

    The rates are medians of REPEATS alternating passes over the same clips in the same order.
    """
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
    """Returns a function that calls `function` for each item and returns the items per second."""

    def items_per_second() -> float:
        start_time = time.perf_counter()
        for item in items:
            function(item)
        return len(items) / (time.perf_counter() - start_time)

    return items_per_second


def measure_medians(measurements: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """Returns the median value of each measurement; the measurements take turns in `repeats` rounds.

    One more round before them is a warm-up and does not count.
    """
    rounds = [{name: measure() for name, measure in measurements.items()} for _ in range(repeats + 1)]
    return {name: statistics.median(values[name] for values in rounds[1:]) for name in measurements}


def make_row(case: str, unit: str, ours: float, peer: float | None, *, peer_name: str, repeats: int) -> dict:
    """Returns a row of results for rates, for which larger is better.

    Args:
      case: Name of the case.
      unit: Unit of the rates.
      ours: Rate of emofuse.
      peer: Rate of the peer; None if it was not measured.
      peer_name: Name of the peer.
      repeats: Number of repeats of which the rates are medians.

    Returns:
      These values by name, and `ratio`: `ours / peer`, or None without a peer.
    """
    ratio = None if peer is None else ours / peer
    values = {"case": case, "unit": unit, "ours": ours, "peer": peer, "peer_name": peer_name}
    return values | {"ratio": ratio, "repeats": repeats}


def format_row(row: dict) -> str:
    """Returns a row of results as one line of text."""
    our_text = f"{row['case']}: ours {row['ours']:.4g} {row['unit']}"
    if row["peer"] is None:
        return f"{our_text}, {row['peer_name']} not measured"
    return (
        f"{our_text}, {row['peer_name']} {row['peer']:.4g}, ratio {row['ratio']:.2f}"
        f" ({row['repeats']} repeats)"
    )


def describe_machine(packages: Iterable[str]) -> dict:
    """Returns platform, number of cores, and versions of Python and of the installed ones of `packages`."""
    versions = package_versions(name for name in packages if is_installed(name))
    return {
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "versions": {"python": platform.python_version(), **versions},
    }
