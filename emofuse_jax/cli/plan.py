"""Estimates memory and time of a training step on TPU chips, compiled ahead of time on any machine.

    emofuse plan --config=am_fbp --topology=v5e:4x4
    emofuse plan --config=am_fbp --topology=v5e            # 1 to 256 chips, the same batch size per chip

Prints memory use, FLOPs, bytes, collectives, and the roofline of a step. Needs libtpu (pip install
'.[plan]'). Clips have the shape of the config's recipe, or of the records in --data.
"""

import json
import os
import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Name of a shipped config, or path of a config file."
)
TOPOLOGY = flags.DEFINE_string(
    "topology", "v5e:4x4", "Chip and slice, such as v5e:4x4; without a slice: all slices, for weak scaling."
)
DATA = flags.DEFINE_string("data", None, "Directory of records whose shape to plan for.")
CLASSES = flags.DEFINE_integer("classes", 8, "Number of classes, if --data is not set.")
BATCH_PER_DEVICE = flags.DEFINE_integer(
    "batch_per_device", 0, "Number of clips per device; 0: config.data.batch_size."
)
OUTPUT = flags.DEFINE_string("output", None, "JSON file to write the plans to.")


def main(argv: Sequence[str]) -> None:
    """Compiles the step for each slice and prints the plans; with --output, also writes them as JSON.

    An existing file --output is replaced; it has `config` (name), `topology`, and `rows`, one object per
    slice. `argv` has the name of the program and the words that are no flags; none are allowed.

    Raises:
      ValueError: --config is missing, the chip or slice is unknown, the config is invalid, the devices cannot
        share the batch equally, the records are damaged or have another recipe than the config, the recipe is
        unknown, or libtpu is not installed.
      OSError: the records cannot be read, or the file cannot be written.
      AttributeError: --config lacks a field that training reads.
      jax.errors.JaxRuntimeError: XLA cannot compile the step, for example because it needs more memory than a
        chip has.
    """
    if argv[1:] or CONFIG.value is None:
        raise ValueError(
            "expected --config and no words without a flag; usage: emofuse plan --config=NAME"
            " [--topology=v5e:4x4]; see emofuse plan --help"
        )
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the TPU chips are only described, not used
    from emofuse_jax.cli import plan_tables
    from emofuse_jax.planning.chips import SLICE_SHAPES, parse_topology
    from emofuse_jax.planning.plan import make_plan, make_tpu_mesh

    config = CONFIG.value
    chip, requested_slice = parse_topology(TOPOLOGY.value)
    spec = plan_tables.make_planned_input_spec(config, DATA.value, CLASSES.value)
    clips_per_device, rows = BATCH_PER_DEVICE.value or config.data.batch_size, []
    for slice_shape in [requested_slice] if requested_slice else SLICE_SHAPES:
        print(
            f"compiling for {slice_shape}; this takes minutes for large networks", file=sys.stderr, flush=True
        )
        mesh = make_tpu_mesh(TOPOLOGY.value.split(":")[0], slice_shape)
        plan = make_plan(config, spec, mesh, clips_per_device * mesh.size)
        rows.append(plan_tables.plan_to_row(slice_shape, plan, chip))
        if requested_slice:
            plan_tables.print_plan(plan, chip)
    if not requested_slice:
        plan_tables.print_scaling(rows)
    print(plan_tables.ASSUMPTIONS)
    if OUTPUT.value:
        with open(OUTPUT.value, "w", encoding="utf-8") as file:
            json.dump({"config": config.name, "topology": TOPOLOGY.value, "rows": rows}, file, indent=1)
