"""How many replicas run side by side: by the kind of model, and by the memory of a device."""

import jax
import numpy as np

from emofuse_jax.models.build import Model
from emofuse_jax.parallel.distributed import is_first_process
from emofuse_jax.parallel.memory import BYTES_PER_GB, program_memory_bytes, usable_device_bytes
from emofuse_jax.training.crossval.context import CrossvalContext
from emofuse_jax.training.crossval.replicas import replica_sharding
from emofuse_jax.types import Batch
from emofuse_jax.utils.progress_bar import console

REPLICA_MODES = ("auto", "vmap", "loop")
CPU_CACHE_BYTES = 24e6
"""Bytes of parameters, gradients and moments that a CPU's core has near: more replicas at a time run slower,
bound by memory (a network of 783,000 parameters: 9,800 clips/s one at a time, 7,700 with 15)."""


def should_vmap(mode: str, model: Model, batch: Batch) -> bool:
    """Whether a device's replicas are vmapped, an epoch a call; ValueError on an unknown mode.

    `auto`: unless the model has convolutions. Vmapped, their kernels become grouped convolutions, slow on a
    CPU and no gain on an accelerator that one replica fills; in a loop they are 20 times slower on a CPU.
    """
    if mode not in REPLICA_MODES:
        raise ValueError(f"config.crossval.mode={mode!r}: expected one of {', '.join(REPLICA_MODES)}")
    return mode == "vmap" or (mode == "auto" and not has_convolutions(model, batch))


def has_convolutions(model: Model, batch: Batch) -> bool:
    """Whether scoring convolves."""
    abstract_variables = jax.eval_shape(model.init, jax.random.key(0))
    jaxpr = jax.make_jaxpr(lambda *inputs: model.apply(*inputs)[0].logits)(*abstract_variables, batch)
    return "conv_general_dilated" in str(jaxpr)


def choose_group_size(context: CrossvalContext) -> int:
    """Replicas to train at a time; what they take is read from the compiled program, and said.

    Raises ValueError where not even one fits a device.
    """
    device_count, replica_count = context.mesh.shape["replica"], len(context.experiments)
    limit_bytes = context.config.crossval.memory * BYTES_PER_GB or usable_device_bytes()
    replicas_per_device = -(-replica_count // device_count) if context.is_vmapped else 1
    if jax.default_backend() == "cpu":
        replicas_per_device = max(
            1, min(replicas_per_device, int(CPU_CACHE_BYTES / (4 * replica_parameter_bytes(context))))
        )
    while (used_bytes := estimate_device_bytes(context, replicas_per_device)) > limit_bytes:
        if replicas_per_device == 1:
            raise ValueError(
                f"a replica takes {used_bytes / BYTES_PER_GB:.2f} GB of a device's"
                f" {limit_bytes / BYTES_PER_GB:.2f};"
                " lower data.batch_size, or use more devices' memory with emofuse train; on a CPU, whose"
                " cores are devices, JAX_NUM_CPU_DEVICES=1 may help"
            )
        replicas_per_device = min(
            replicas_per_device - 1, max(1, int(replicas_per_device * limit_bytes / used_bytes))
        )
    group_count = -(-replica_count // (device_count * replicas_per_device))
    replicas_per_device = -(-replica_count // (device_count * group_count))
    if is_first_process():
        arrangement = "side by side" if replicas_per_device > 1 else "one after the other"
        console.print(
            f"{replica_count} replicas on {device_count} {jax.default_backend()} devices,"
            f" {replicas_per_device} at a time on each, {arrangement}:"
            f" {used_bytes / BYTES_PER_GB:.2f} GB of {limit_bytes / BYTES_PER_GB:.2f} GB a device"
        )
    return -(-replica_count // group_count)


def estimate_device_bytes(context: CrossvalContext, replicas_per_device: int) -> int:
    """Bytes that `replicas_per_device` replicas take on a device: data, program, and the best parameters
    beside."""
    return program_memory_bytes(
        lower_train_steps(context, replicas_per_device).compile()
    ) + replicas_per_device * replica_parameter_bytes(context)


def replica_parameter_bytes(context: CrossvalContext) -> int:
    """Bytes of a replica's parameters and model state."""
    abstract_variables = jax.eval_shape(
        next(iter(context.experiments.values())).model.init, jax.random.key(0)
    )
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract_variables))


def lower_train_steps(context: CrossvalContext, replicas_per_device: int) -> jax.stages.Lowered:
    """The program of a call of `context.train_steps` for `replicas_per_device` replicas on every device."""
    replica_id, replica_count = (
        next(iter(context.experiments)),
        replicas_per_device * context.mesh.shape["replica"],
    )
    steps = context.steps if context.is_vmapped else 1
    row_indices = np.zeros((1, steps, context.config.data.batch_size), np.int32)
    replica_arguments = (
        context.make_initial_states([replica_id]),
        context.make_replica_inputs([replica_id]),
        row_indices,
        np.zeros((1, steps), bool),
    )
    abstract_arguments = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            (replica_count, *x.shape[1:]), x.dtype, sharding=replica_sharding(context.mesh)
        ),
        replica_arguments,
    )
    return context.train_steps.lower(context.data, *abstract_arguments)
