"""How many replicas run side by side: by the kind of model, and by the memory of a device."""

import jax
import numpy as np

from emofuse_jax.models.build import Model
from emofuse_jax.parallel.distributed import is_first
from emofuse_jax.parallel.memory import GB, compiled_bytes, device_bytes
from emofuse_jax.training import progress
from emofuse_jax.training.crossval.context import Job
from emofuse_jax.training.crossval.replicas import stacked
from emofuse_jax.types import Batch

MODES = ("auto", "vmap", "loop")
CACHE = 24e6
"""Bytes of parameters, gradients and moments that a CPU's core has near: more replicas at a time run slower,
bound by memory (a network of 783,000 parameters: 9,800 clips/s one at a time, 7,700 with 15)."""


def runs_side_by_side(mode: str, model: Model, batch: Batch) -> bool:
    """Whether a device's replicas are vmapped, an epoch a call; ValueError on an unknown mode.

    `auto`: unless the model has convolutions. Vmapped, their kernels become grouped convolutions, slow on a
    CPU and no gain on an accelerator that one replica fills; in a loop they are 20 times slower on a CPU.
    """
    if mode not in MODES:
        raise ValueError(f"config.crossval.mode={mode!r}: expected one of {', '.join(MODES)}")
    return mode == "vmap" or (mode == "auto" and not has_convolutions(model, batch))


def has_convolutions(model: Model, batch: Batch) -> bool:
    """Whether scoring convolves."""
    numbers = jax.eval_shape(model.init, jax.random.key(0))
    program = jax.make_jaxpr(lambda *inputs: model.apply(*inputs)[0].logits)(*numbers, batch)
    return "conv_general_dilated" in str(program)


def chunk_size(job: Job) -> int:
    """Replicas to train at a time; what they take is read from the compiled program, and said.

    Raises ValueError where not even one fits a device.
    """
    devices, runs = job.mesh.shape["replica"], len(job.experiments)
    limit = job.config.crossval.memory * GB or device_bytes()
    each = -(-runs // devices) if job.side_by_side else 1
    if jax.default_backend() == "cpu":
        each = max(1, min(each, int(CACHE / (4 * parameter_bytes(job)))))
    while (taken := footprint(job, each)) > limit:
        if each == 1:
            raise ValueError(
                f"a replica takes {taken / GB:.2f} GB of a device's {limit / GB:.2f};"
                " lower data.batch_size, or use more devices' memory with emofuse train; on a CPU, whose"
                " cores are devices, JAX_NUM_CPU_DEVICES=1 may help"
            )
        each = min(each - 1, max(1, int(each * limit / taken)))
    chunks = -(-runs // (devices * each))
    each = -(-runs // (devices * chunks))
    if is_first():
        kind = "side by side" if each > 1 else "one after the other"
        progress.console.print(
            f"{runs} replicas on {devices} {jax.default_backend()} devices, {each} at a time on each, {kind}:"
            f" {taken / GB:.2f} GB of {limit / GB:.2f} GB a device"
        )
    return -(-runs // chunks)


def footprint(job: Job, each: int) -> int:
    """Bytes that `each` replicas take on a device: data, program, and the best parameters beside."""
    return compiled_bytes(lower(job, each).compile()) + each * parameter_bytes(job)


def parameter_bytes(job: Job) -> int:
    """Bytes of a replica's parameters and model state."""
    numbers = jax.eval_shape(next(iter(job.experiments.values())).model.init, jax.random.key(0))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(numbers))


def lower(job: Job, each: int) -> jax.stages.Lowered:
    """The program of a call of `job.epoch` for `each` replicas on every device."""
    run, rows = next(iter(job.experiments)), each * job.mesh.shape["replica"]
    steps = job.steps if job.side_by_side else 1
    order = np.zeros((1, steps, job.config.data.batch_size), np.int32)
    one = (job.first_states([run]), job.replicas([run]), order, np.zeros((1, steps), bool))
    own = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype, sharding=stacked(job.mesh)), one
    )
    return job.epoch.lower(job.data, *own)
