"""The tables of `emofuse plan`, and the shape of the clips that it plans for."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from data_prep.settings import RECIPES
from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.planning.chips import Chip
from emofuse_jax.planning.collectives import Collective
from emofuse_jax.planning.plan import Plan, roofline_seconds
from emofuse_jax.training.experiment import make_input_spec
from emofuse_jax.types import InputSpec

ASSUMPTIONS = """\
The roofline takes the chip's peaks for granted (bfloat16 FLOPs, HBM and link bandwidth by Google's tables),
the counts of XLA, and one collective after the other where they are not begun ahead: a bound that no program
reaches, not a forecast. Loading data is not in it."""
FEATURE_WIDTHS = {"audio_features": 768, "face_features": 512}
"""Widths of frozen encoders, and 50 vectors of sound a second, where there are no records to go by."""


def make_planned_input_spec(config, data: str | None, classes: int) -> InputSpec:
    """The shape of the records in `data`, or else of the config's recipe."""
    if data:
        return make_input_spec(config, open_dataset(data, config.data.recipe))
    settings, audio_steps = RECIPES[config.data.recipe], config.data.audio_steps
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


def plan_to_row(slice_shape: str, plan: Plan, chip: Chip) -> dict:
    """A plan as JSON."""
    seconds = roofline_seconds(plan, chip)
    return {
        "slice": slice_shape,
        "devices": plan.devices,
        "batch_size": plan.batch_size,
        "memory_bytes": plan.memory_bytes,
        "memory_share": plan.memory_bytes / chip.memory_bytes,
        "flops": plan.flops,
        "bytes": plan.bytes,
        "collectives": len(plan.collectives),
        "collective_bytes": sum(c.bytes for c in plan.collectives),
        "gradient_reductions": len(plan.gradient_reductions),
        "overlapped": sum(c.is_overlapped for c in plan.collectives),
        "roofline_seconds": seconds,
        "clips_per_second": plan.batch_size / seconds["step"],
    }


def print_plan(plan: Plan, chip: Chip) -> None:
    """One slice in detail."""
    seconds = roofline_seconds(plan, chip)
    table = Table("of one device", "", title=f"{plan.devices} chips, batches of {plan.batch_size}")
    table.add_row("memory", f"{plan.memory_bytes / 1e9:.2f} GB of {chip.memory_bytes / 1e9:.0f}")
    table.add_row("arithmetic", f"{plan.flops / 1e9:.1f} GFLOP, {1e3 * seconds['compute']:.2f} ms")
    table.add_row("memory traffic", f"{plan.bytes / 1e9:.2f} GB, {1e3 * seconds['memory']:.2f} ms")
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
    """Count, bytes, and how many are overlapped."""
    total_bytes = sum(c.bytes for c in collectives)
    return (
        f"{len(collectives)}, {total_bytes / 1e6:.3f} MB, {sum(c.is_overlapped for c in collectives)}"
        f" overlapped with other work"
    )


def print_scaling(rows: Sequence[dict]) -> None:
    """Weak scaling: the same batch on each chip."""
    table = Table(
        "slice", "chips", "batch", "GB a chip", "collectives", "MB", "step ms", "clips/s", "of ideal"
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
