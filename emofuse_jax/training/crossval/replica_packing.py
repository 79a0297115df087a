"""Chooses how many replicas run at the same time, from the kind of model and the device memory."""

import sys

import jax
import numpy as np

from emofuse_jax.models.build import Model
from emofuse_jax.parallel.distributed import is_first_process
from emofuse_jax.parallel.memory import BYTES_PER_GB, program_memory_bytes, usable_device_bytes
from emofuse_jax.training.crossval.context import CrossvalContext
from emofuse_jax.training.crossval.replicas import replica_sharding
from emofuse_jax.types import Batch

REPLICA_MODES = ("auto", "vmap", "loop", "single")
"""Values of `config.crossval.mode`."""
CROSSVAL_MEMORY_HINT = "choose another --workdir, and lower config.data.batch_size or config.crossval.memory"
"""Advice if the devices run out of memory."""
CPU_CACHE_BYTES = 24e6
"""Bytes of parameters, gradients and moments that fit in the cache of a CPU core. More replicas at a time are
slower, limited by memory bandwidth (a network of 783,000 parameters: 9,800 clips/s with one at a time, 7,700
with 15)."""


def should_vmap(mode: str, model: Model, batch: Batch) -> bool:
    """Returns True if the replicas of a device are vmapped, with one call per epoch, else False.

    `mode` is `vmap` (always), `loop` or `single` (never), or `auto`, which vmaps models without convolutions.
    `batch` is any batch of clips; only its shapes and dtypes are used. Under vmap, convolution kernels become
    grouped convolutions, which are slow on a CPU and bring nothing on an accelerator that a single replica
    fills. Inside a loop over steps they are 20 times slower on a CPU.

    Raises:
      ValueError: if the mode is unknown, or if it is `auto` and the shapes of the batch do not fit the model.
    """
    if mode not in REPLICA_MODES:
        raise ValueError(f"config.crossval.mode={mode!r}: expected one of {', '.join(REPLICA_MODES)}")
    return mode == "vmap" or (mode == "auto" and not has_convolutions(model, batch))


def has_convolutions(model: Model, batch: Batch) -> bool:
    """Returns True if the forward pass of the model contains a convolution, else False; computes nothing.

    `batch` is any batch of clips; only its shapes and dtypes are used.

    Raises:
      ValueError: if the shapes of the batch do not fit the model.
    """
    abstract_variables = jax.eval_shape(model.init, jax.random.key(0))
    jaxpr = jax.make_jaxpr(lambda *inputs: model.apply(*inputs)[0].logits)(*abstract_variables, batch)
    return "conv_general_dilated" in str(jaxpr)


def choose_group_size(context: CrossvalContext) -> int:
    """Returns the number of replicas to train at a time on all devices, and prints it with its memory use.

    The memory use is read from the compiled program; the limit is `config.crossval.memory` in GB (10^9
    bytes), or nine tenths of the memory of a device if that is 0. The first process prints one line to
    stderr.

    Raises:
      ValueError: if a single replica does not fit in the memory of a device, if a replica has fewer training
        clips than one batch, or if a warm start or a field of the config is invalid.
      FileNotFoundError: if the workdir of a warm start has no checkpoint, or the file of a fold no longer
        exists.
      OSError: if a file of a warm start or of a fold cannot be read.
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
                f"a replica needs {used_bytes / BYTES_PER_GB:.2f} GB, but a device has"
                f" {limit_bytes / BYTES_PER_GB:.2f} GB;"
                " lower config.data.batch_size, or use emofuse train, which splits a batch over several"
                " devices; on a CPU, where each core is a device, set JAX_NUM_CPU_DEVICES=1"
            )
        replicas_per_device = min(
            replicas_per_device - 1, max(1, int(replicas_per_device * limit_bytes / used_bytes))
        )
    group_count = -(-replica_count // (device_count * replicas_per_device))
    replicas_per_device = -(-replica_count // (device_count * group_count))
    if is_first_process():
        arrangement = "in parallel" if replicas_per_device > 1 else "one after the other"
        print(
            f"{replica_count} replicas on {device_count} {jax.default_backend()} devices,"
            f" {replicas_per_device} at a time on each, {arrangement}:"
            f" {used_bytes / BYTES_PER_GB:.2f} GB of {limit_bytes / BYTES_PER_GB:.2f} GB per device",
            file=sys.stderr,
        )
    return -(-replica_count // group_count)


def estimate_device_bytes(context: CrossvalContext, replicas_per_device: int) -> int:
    """Returns the bytes that `replicas_per_device` replicas need on one device.

    Includes the data, the program, and a copy of the best parameters.

    Raises:
      ValueError: if a replica has fewer training clips than one batch, or if a warm start or a field of the
        config is invalid.
      FileNotFoundError: if the workdir of a warm start has no checkpoint, or the file of a fold no longer
        exists.
      OSError: if a file of a warm start or of a fold cannot be read.
    """
    return program_memory_bytes(
        lower_train_steps(context, replicas_per_device).compile()
    ) + replicas_per_device * replica_parameter_bytes(context)


def replica_parameter_bytes(context: CrossvalContext) -> int:
    """Returns the bytes of the parameters and the model state of one replica."""
    abstract_variables = jax.eval_shape(
        next(iter(context.experiments.values())).model.init, jax.random.key(0)
    )
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract_variables))


def lower_train_steps(context: CrossvalContext, replicas_per_device: int) -> jax.stages.Lowered:
    """Returns the lowered program of `context.train_steps`, before it is compiled.

    It is for `replicas_per_device` replicas on each device, and for all steps of an epoch if the replicas are
    vmapped, else for one step.

    Raises:
      ValueError: if a replica has fewer training clips than one batch, or if a warm start or a field of the
        config is invalid.
      FileNotFoundError: if the workdir of a warm start has no checkpoint, or the file of a fold no longer
        exists.
      OSError: if a file of a warm start or of a fold cannot be read.
    """
    replica_id, replica_count = (
        next(iter(context.experiments)),
        replicas_per_device * context.mesh.shape["replica"],
    )
    steps = context.max_epoch_steps if context.is_vmapped else 1
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
