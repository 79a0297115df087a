"""Random numbers for a torch module under its own names, and calling it with them."""

import math

import numpy as np
import torch

from benchmarks.peers.case import normal

BUFFERS = ("running_mean", "running_var")


def random_weights(rng, module, prefix=""):
    """Weights of variance 2 / fan_in, small biases, norms near 1, and running statistics; float32."""
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
    """The module with the numbers that `tensors` holds under the prefix; buffers are written in place."""
    module_tensors = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    module_tensors = {k: v for k, v in module_tensors.items() if k in module.state_dict()}
    return torch.func.functional_call(module.double(), module_tensors, inputs)


def buffer_names(arrays):
    """Names of running statistics, which get no gradient."""
    return tuple(name for name in arrays if name.endswith(BUFFERS))
