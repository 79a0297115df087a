"""Compiles the training step of a config for a slice of TPU chips, which need not be present."""

import dataclasses
import os

import jax
import numpy as np
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict

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
"""Length of the learning-rate schedule; it has no effect on the plan."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Costs of a compiled training step; numbers are per device unless stated otherwise."""

    devices: int
    """Number of devices."""
    batch_size: int
    """Batch size of all devices together."""
    memory_bytes: int
    """Bytes of arguments, results and temporary arrays."""
    flops: float
    """Floating-point operations."""
    bytes_accessed: float
    """Bytes read from and written to memory."""
    collectives: list[Collective]
    """All collective operations."""
    gradient_reductions: list[Collective]
    """The collectives that reduce gradients."""
    embedding_bytes: int
    """Bytes of the embedding [b d] of the complete batch on all devices."""


def make_plan(config: ConfigDict, spec: InputSpec, mesh: Mesh, batch_size: int) -> Plan:
    """Compiles the training step of `emofuse train` for a mesh, and returns its costs.

    Args:
      config: config of the experiment.
      spec: input shape of one clip: `t` audio steps of `f` bins, `s` frames of `h` x `w` pixels, the number
        of `classes`, and the sizes of the features.
      mesh: mesh of real devices, or of devices that are only described (`make_tpu_mesh`).
      batch_size: batch size of all devices together.

    Returns:
      The plan: `devices` (their number) and `batch_size`; per device `memory_bytes`, `flops` and
      `bytes_accessed` of a step; `collectives`, a list of all collective operations, each with `kind` (such
      as `all-reduce`), `shapes` (of its arrays), `bytes` (of all its arrays on one device) and
      `is_overlapped` (True if other work can run in between); `gradient_reductions`, a list of those that
      reduce gradients; and `embedding_bytes`, the bytes of the embedding [b d], the input of the classifier,
      for the batch of all devices together.

    Raises:
      ValueError: if the config has an invalid field, or if the devices cannot share the batch equally.
      AttributeError: if the config lacks a field that training reads.
      jax.errors.JaxRuntimeError: if XLA cannot compile the step, for example because it needs more memory
        than a device has.
    """
    model = build_model(config.model, spec)
    state = make_abstract_state(config, model, mesh)
    tx = make_optimizer(config.optimizer, SCHEDULE_STEPS)
    step = jit_train_step(make_train_step(model, tx, config), state, mesh, fsdp=config.mesh.fsdp)
    compiled = step.lower(state, abstract_batch(spec, batch_size, mesh)).compile()
    program_text, cost = compiled.as_text(), compiled.cost_analysis()
    assert program_text is not None  # XLA returns both on every platform
    assert cost is not None
    collectives = read_collectives(program_text)
    kernel_shapes = {leaf.shape for leaf in jax.tree.leaves(state.params) if len(leaf.shape) > 1}
    return Plan(
        devices=mesh.size,
        batch_size=batch_size,
        memory_bytes=program_memory_bytes(compiled),
        flops=cost["flops"],
        bytes_accessed=cost["bytes accessed"],
        collectives=collectives,
        gradient_reductions=find_gradient_reductions(collectives, kernel_shapes),
        embedding_bytes=embedding_bytes(model, batch_size),
    )


def make_abstract_state(config: ConfigDict, model: Model, mesh: Mesh) -> TrainState:
    """Returns the training state as shapes, dtypes and shardings (`jax.ShapeDtypeStruct`), without arrays.

    It has `step`, `params`, `model_state` and `opt_state`. If `config.mesh.fsdp` is set, large arrays are
    sharded over the devices, otherwise all are replicated.

    Args:
      config: config of the experiment.
      model: the model, as `build_model` returns it.
      mesh: mesh of the devices.

    Raises:
      ValueError: if `config.optimizer` has an unknown `name`, an `accumulate` below 1, or an `ema` that is
        not in [0, 1).
      AttributeError: if `config.optimizer` or `config.mesh` lacks a field.
    """
    zeros = np.zeros(model.spec.f, np.float32)
    tx = make_optimizer(config.optimizer, SCHEDULE_STEPS)
    shapes = jax.eval_shape(lambda key: init_state(model, tx, key, (zeros, zeros + 1)), jax.random.key(0))
    sharding = state_sharding(shapes, mesh, fsdp=config.mesh.fsdp)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, sharding)


def embedding_bytes(model: Model, batch_size: int) -> int:
    """Returns the bytes of the embedding [b d], the input of the classifier, for `batch_size` clips.

    `model` is the model, as `build_model` returns it. Raises ValueError if `model.spec` has too few steps or
    a wrong number of frames for an encoder.
    """
    variables = jax.eval_shape(model.init, jax.random.key(0))
    outputs, _ = jax.eval_shape(lambda *inputs: model.apply(*inputs), *variables, model.fake_batch(1))
    return batch_size * outputs.embedding.size * outputs.embedding.dtype.itemsize


def make_tpu_mesh(chip_name: str, slice_shape: str) -> Mesh:
    """Returns a data-parallel mesh over a slice of TPU chips, which need not be present.

    The mesh has the axes `replica`, `data` and `model`; all chips are on `data`. Sets
    ALLOW_MULTIPLE_LIBTPU_LOAD and TPU_SKIP_MDS_QUERY in the environment to "1" if they are not set.

    Args:
      chip_name: for example `v5e`.
      slice_shape: for example `4x4`.

    Raises:
      ValueError: if libtpu is not installed or does not know this slice.
    """
    from jax.experimental import topologies

    # Only compile: do not lock the chips of this machine, and do not query which slice it belongs to.
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
            f"--topology={chip_name}:{slice_shape}: libtpu cannot describe this slice: {reason}; install"
            " libtpu (pip install '.[plan]'), or use another slice, such as v5e:4x4"
        ) from error
    return Mesh(np.array(topology.devices).reshape(1, -1, 1), MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def roofline_seconds(plan: Plan, chip: Chip) -> dict[str, float]:
    """Returns a lower bound of the seconds per step, with every part at the peak performance of the chip.

    `step = max(compute, memory, overlapped links) + other links`. An all-reduce sends `2 (n - 1) / n` of its
    bytes from each of n chips, other collectives send `(n - 1) / n`. Real programs are slower: this is a
    bound, not a forecast.

    Returns:
      Seconds by part: `compute`, `memory`, `links` (all communication) and `step` (the bound).
    """
    sent_fraction = (plan.devices - 1) / plan.devices
    sent_bytes = [c.bytes * sent_fraction * (2 if c.kind == "all-reduce" else 1) for c in plan.collectives]
    overlapped_seconds = (
        sum(s for s, c in zip(sent_bytes, plan.collectives, strict=True) if c.is_overlapped)
        / chip.link_bytes_per_second
    )
    link_seconds = sum(sent_bytes) / chip.link_bytes_per_second
    compute_seconds, memory_seconds = (
        plan.flops / chip.flops,
        plan.bytes_accessed / chip.memory_bytes_per_second,
    )
    step_seconds = (
        max(compute_seconds, memory_seconds, overlapped_seconds) + link_seconds - overlapped_seconds
    )
    return {"compute": compute_seconds, "memory": memory_seconds, "links": link_seconds, "step": step_seconds}
