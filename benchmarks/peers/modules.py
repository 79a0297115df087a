"""Draws random parameters for a torch module and calls the module with them."""

import math

import numpy as np
import torch

from benchmarks.peers.case import normal

BUFFERS = ("running_mean", "running_var")


def random_weights(rng, module, prefix=""):
    """Draws float32 arrays for a module: weights of variance 2 / fan_in, small biases, norms near 1.

    Returns them by the module's names with `prefix`; running statistics are included.
    """
    arrays = {}
    for name, value in module.state_dict().items():
        kind, shape = name.rpartition(".")[2], tuple(value.shape)
        if kind == "num_batches_tracked":
            continue
        if len(shape) > 1:
            array = normal(rng, *shape, scale=math.sqrt(2 / math.prod(shape[1:])))
        elif kind == "running_var":
            array = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            array = normal(rng, *shape, scale=0.2) + np.float32(kind == "weight")
        arrays[prefix + name] = array
    return arrays


def call(module, tensors, *inputs, prefix=""):
    """Calls the module with the parameters in `tensors` whose names start with `prefix`.

    Buffers in `tensors` are changed in place.
    """
    module_tensors = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    module_tensors = {k: v for k, v in module_tensors.items() if k in module.state_dict()}
    return torch.func.functional_call(module.double(), module_tensors, inputs)


def buffer_names(arrays):
    """Returns the names of the running statistics, which have no gradient."""
    return tuple(name for name in arrays if name.endswith(BUFFERS))
