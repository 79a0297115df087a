"""Prints the tables of `emofuse plan`, and determines the shape of the clips."""

from collections.abc import Sequence
from typing import TypedDict

import ml_collections
from rich.console import Console
from rich.table import Table

from data_prep.settings import recipe_settings
from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.planning.chips import Chip
from emofuse_jax.planning.collectives import Collective
from emofuse_jax.planning.plan import Plan, roofline_seconds
from emofuse_jax.training.experiment import make_input_spec
from emofuse_jax.types import InputSpec

ASSUMPTIONS = """\
The roofline assumes the chip's peak rates (bfloat16 FLOPs, HBM and link bandwidth from Google's tables), the
operation counts of XLA, and collectives that run one after the other unless they overlap with other work.
It is a bound that no program reaches, not a forecast. It does not include data loading."""
FEATURE_WIDTHS = {"audio_features": 768, "face_features": 512}
"""Widths of the features of frozen encoders, assumed if there are no records."""


class PlanRow(TypedDict):
    """JSON object of a plan; memory, FLOPs and bytes are those of one device."""

    slice: str
    """Shape of the slice, such as 4x4."""
    devices: int
    """Number of chips."""
    batch_size: int
    """Number of clips of a batch on all chips."""
    memory_bytes: int
    """Memory that the step needs."""
    memory_share: float
    """Fraction of the chip's memory that the step needs."""
    flops: float
    """FLOPs of a step."""
    bytes: float
    """Memory traffic of a step in bytes."""
    collectives: int
    """Number of collectives."""
    collective_bytes: int
    """Bytes that the collectives exchange."""
    gradient_reductions: int
    """Number of collectives that sum gradients."""
    overlapped: int
    """Number of collectives that overlap with other work."""
    roofline_seconds: dict[str, float]
    """Seconds of a step by part (`planning.plan.roofline_seconds`)."""
    clips_per_second: float
    """Throughput of all chips at the roofline."""


def make_planned_input_spec(config: ml_collections.ConfigDict, data: str | None, classes: int) -> InputSpec:
    """Returns the shape of a clip in the records in `data`, or by the config's recipe if `data` is empty.

    The shape has the numbers of audio steps `t`, frequency bins `f`, video frames `s` and `classes`, height
    `h` and width `w` of a face in pixels, and `feature_steps`, `audio_features` and `face_features`, the
    number of steps and the widths of features, 0 without features. Without records, the recipe `features` is
    assumed to have one vector of 768 numbers for two audio steps and one of 512 for each face, and `t`, `h`
    and `w` are 0.

    Args:
      config: config of the experiment.
      data: directory of records, or None.
      classes: number of classes, if there are no records.

    Raises:
      ValueError: the records are damaged or were prepared with another recipe, or `data` is empty and the
        config has an unknown recipe.
      OSError: a file in `data` does not exist or cannot be read.
    """
    if data:
        return make_input_spec(config, open_dataset(data, config.data.recipe))
    settings, audio_steps = recipe_settings(config.data.recipe), config.data.audio_steps
    face_settings = settings.face
    if config.data.recipe == "features":
        return InputSpec(
            0, settings.audio.bins, face_settings.frames, 0, 0, classes, audio_steps // 2, **FEATURE_WIDTHS
        )
    return InputSpec(
        audio_steps,
        settings.audio.bins,
        face_settings.frames,
        face_settings.size,
        face_settings.size,
        classes,
    )


def plan_to_row(slice_shape: str, plan: Plan, chip: Chip) -> PlanRow:
    """Returns a plan as a JSON object: costs of one device, and clips per second of all devices.

    The keys are `slice`, `devices`, `batch_size`, `memory_bytes` and `memory_share` (fraction of the chip's
    memory), `flops`, `bytes` (memory traffic), `collectives` (number), `collective_bytes`,
    `gradient_reductions` and `overlapped` (numbers of collectives), `roofline_seconds` (lower bounds as
    `compute`, `memory`, `links` and `step`) and `clips_per_second`.

    Args:
      slice_shape: shape of the slice, such as 4x4.
      plan: costs of a training step, as `make_plan` returns them; `batch_size` is that of all devices.
      chip: peak rates and memory of the chip, as `parse_topology` returns them.
    """
    seconds = roofline_seconds(plan, chip)
    return {
        "slice": slice_shape,
        "devices": plan.devices,
        "batch_size": plan.batch_size,
        "memory_bytes": plan.memory_bytes,
        "memory_share": plan.memory_bytes / chip.memory_bytes,
        "flops": plan.flops,
        "bytes": plan.bytes_accessed,
        "collectives": len(plan.collectives),
        "collective_bytes": sum(c.bytes for c in plan.collectives),
        "gradient_reductions": len(plan.gradient_reductions),
        "overlapped": sum(c.is_overlapped for c in plan.collectives),
        "roofline_seconds": seconds,
        "clips_per_second": plan.batch_size / seconds["step"],
    }


def print_plan(plan: Plan, chip: Chip) -> None:
    """Prints a table of a step on one slice: memory, operations, communication, lowest time, throughput.

    The units are GB, GFLOP, MB and ms for one device, and clips per second for all. `plan` are the costs, as
    `make_plan` returns them, and `chip` the peak rates and memory, as `parse_topology` returns them.
    """
    seconds = roofline_seconds(plan, chip)
    table = Table("per device", "", title=f"{plan.devices} chips, batches of {plan.batch_size}")
    table.add_row("memory", f"{plan.memory_bytes / 1e9:.2f} GB of {chip.memory_bytes / 1e9:.0f}")
    table.add_row("arithmetic", f"{plan.flops / 1e9:.1f} GFLOP, {1e3 * seconds['compute']:.2f} ms")
    table.add_row("memory traffic", f"{plan.bytes_accessed / 1e9:.2f} GB, {1e3 * seconds['memory']:.2f} ms")
    other_collectives = [c for c in plan.collectives if c not in plan.gradient_reductions]
    table.add_row("gradient reductions", describe_collectives(plan.gradient_reductions))
    for kind in sorted({c.kind for c in other_collectives}):
        table.add_row(
            f"{kind}, other", describe_collectives([c for c in other_collectives if c.kind == kind])
        )
    table.add_row("collectives", f"{1e3 * seconds['links']:.3f} ms")
    table.add_row("step, roofline", f"{1e3 * seconds['step']:.2f} ms")
    table.add_row("clips/s, all chips", f"{plan.batch_size / seconds['step']:,.0f}")
    Console(width=100).print(table)


def describe_collectives(collectives: Sequence[Collective]) -> str:
    """Returns the number and megabytes of collectives, and how many of them overlap with other work.

    An example is `2, 1.500 MB, 1 overlapped with other work`; a megabyte is 10^6 bytes, and all numbers are 0
    for an empty list. A `Collective` has `bytes`, those of its arrays on one device, and `is_overlapped`.
    """
    total_bytes = sum(c.bytes for c in collectives)
    return (
        f"{len(collectives)}, {total_bytes / 1e6:.3f} MB, {sum(c.is_overlapped for c in collectives)}"
        f" overlapped with other work"
    )


def print_scaling(rows: Sequence[PlanRow]) -> None:
    """Prints a table of weak scaling: a line for each slice, with the same batch size per chip.

    `rows` are results of `plan_to_row`, at least one, else IndexError. The columns are the slice, chips,
    clips of a batch, GB per chip, number of collectives and their MB, ms of a step, clips per second, and the
    throughput as a fraction of that of the first row, scaled to the same number of chips.
    """
    table = Table(
        "slice", "chips", "batch", "GB per chip", "collectives", "MB", "step ms", "clips/s", "of ideal"
    )
    clips_per_second_per_chip = rows[0]["clips_per_second"] / rows[0]["devices"]
    for plan_row in rows:
        table.add_row(
            plan_row["slice"],
            str(plan_row["devices"]),
            str(plan_row["batch_size"]),
            f"{plan_row['memory_bytes'] / 1e9:.2f}",
            str(plan_row["collectives"]),
            f"{plan_row['collective_bytes'] / 1e6:.2f}",
            f"{1e3 * plan_row['roofline_seconds']['step']:.2f}",
            f"{plan_row['clips_per_second']:,.0f}",
            f"{plan_row['clips_per_second'] / (clips_per_second_per_chip * plan_row['devices']):.3f}",
        )
    Console(width=110).print(table)
