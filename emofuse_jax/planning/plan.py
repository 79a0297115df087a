"""The training step of a config, compiled for a slice of TPU chips that need not be there."""

import dataclasses
import os

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from emofuse_jax.models.build import Model, build_model
from emofuse_jax.parallel.memory import program_memory_bytes
from emofuse_jax.parallel.mesh import MESH_AXES, state_sharding
from emofuse_jax.planning.chips import Chip
from emofuse_jax.planning.collectives import Collective, find_gradient_reductions, read_collectives
from emofuse_jax.training.batch_source import abstract_batch
from emofuse_jax.training.optimizer import make_optimizer
from emofuse_jax.training.step import init_state, jit_train_step, make_train_step
from emofuse_jax.types import InputSpec, TrainState

SCHEDULE_STEPS = 1000
"""Of the schedule, on which nothing here depends."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a compiled step says about itself; numbers are of one device."""

    devices: int
    batch_size: int
    """Of all devices."""
    memory_bytes: int
    """Bytes of arguments, results and temporary arrays."""
    flops: float
    bytes: float
    """Read from and written to memory."""
    collectives: list[Collective]
    gradient_reductions: list[Collective]
    """Of the collectives those that reduce gradients."""
    embedding: int
    """Bytes of the global [b d] embedding."""


def make_plan(config, spec: InputSpec, mesh: Mesh, batch_size: int) -> Plan:
    """Compiles the step of `emofuse train` over `mesh`, whose devices may be only described."""
    model = build_model(config.model, spec)
    state = make_abstract_state(config, model, mesh)
    tx = make_optimizer(config.optimizer, SCHEDULE_STEPS)
    step = jit_train_step(make_train_step(model, tx, config), state, mesh, fsdp=config.mesh.fsdp)
    compiled = step.lower(state, abstract_batch(spec, batch_size, mesh)).compile()
    collectives = read_collectives(compiled.as_text())
    kernel_shapes = {leaf.shape for leaf in jax.tree.leaves(state.params) if len(leaf.shape) > 1}
    cost = compiled.cost_analysis()
    return Plan(
        devices=mesh.size,
        batch_size=batch_size,
        memory_bytes=program_memory_bytes(compiled),
        flops=cost["flops"],
        bytes=cost["bytes accessed"],
        collectives=collectives,
        gradient_reductions=find_gradient_reductions(collectives, kernel_shapes),
        embedding=embedding_bytes(model, batch_size),
    )


def make_abstract_state(config, model: Model, mesh: Mesh) -> TrainState:
    """Shapes and shardings of the state of a training."""
    zeros = np.zeros(model.spec.f, np.float32)
    tx = make_optimizer(config.optimizer, SCHEDULE_STEPS)
    shapes = jax.eval_shape(lambda key: init_state(model, tx, key, (zeros, zeros + 1)), jax.random.key(0))
    sharding = state_sharding(shapes, mesh, fsdp=config.mesh.fsdp)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, sharding)


def embedding_bytes(model: Model, batch_size: int) -> int:
    """Of what the classifier sees of a whole batch."""
    variables = jax.eval_shape(model.init, jax.random.key(0))
    outputs, _ = jax.eval_shape(lambda *inputs: model.apply(*inputs), *variables, model.fake_batch(1))
    return batch_size * outputs.embedding.size * outputs.embedding.dtype.itemsize


def make_tpu_mesh(chip_name: str, slice_shape: str) -> Mesh:
    """A data-parallel mesh over a slice of TPU chips, such as ("v5e", "4x4"), which need not be there.

    Raises ValueError where libtpu is not installed, or knows no such slice.
    """
    from jax.experimental import topologies

    # Compiling alone: no lock against other users of chips, no search for the machine's own slice.
    for name, value in {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_SKIP_MDS_QUERY": "1"}.items():
        os.environ.setdefault(name, value)
    single_chip_options = {"chips_per_host_bounds": (1, 1, 1)} if slice_shape == "1x1" else {}
    try:
        topology = topologies.get_topology_desc(
            platform="tpu", topology_name=f"{chip_name}:{slice_shape}", **single_chip_options
        )
    except (RuntimeError, NotImplementedError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"--topology={chip_name}:{slice_shape}: {reason} (needs libtpu: pip install 'emofuse[plan]')"
        ) from error
    return Mesh(np.array(topology.devices).reshape(1, -1, 1), MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def roofline_seconds(plan: Plan, chip: Chip) -> dict[str, float]:
    """Returns the seconds of a step at the chip's peaks: `compute`, `memory`, `links` and `step`.

    `step = max(compute, memory, overlapped links) + other links`. An all-reduce sends `2 (n - 1) / n` of its
    bytes from each chip, other collectives `(n - 1) / n`. No program reaches it: a bound, not a forecast.
    """
    sent_fraction = (plan.devices - 1) / plan.devices
    sent_bytes = [c.bytes * sent_fraction * (2 if c.kind == "all-reduce" else 1) for c in plan.collectives]
    overlapped_seconds = (
        sum(s for s, c in zip(sent_bytes, plan.collectives, strict=True) if c.is_overlapped)
        / chip.link_bytes_per_second
    )
    link_seconds = sum(sent_bytes) / chip.link_bytes_per_second
    compute_seconds, memory_seconds = plan.flops / chip.flops, plan.bytes / chip.memory_bytes_per_second
    step_seconds = (
        max(compute_seconds, memory_seconds, overlapped_seconds) + link_seconds - overlapped_seconds
    )
    return {"compute": compute_seconds, "memory": memory_seconds, "links": link_seconds, "step": step_seconds}
