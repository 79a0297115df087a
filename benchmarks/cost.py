"""Measures the cost of a system: number of parameters, operations to score a clip, training speed."""

import statistics
import time

import jax

from emofuse_jax.parallel.mesh import make_mesh, put_batch, state_sharding
from emofuse_jax.training.experiment import Experiment
from emofuse_jax.training.optimizer import make_optimizer
from emofuse_jax.training.step import init_state, jit_train_step, make_train_step

STEPS = 15
"""Number of timed training steps of each system."""


def measure_cost(experiment: Experiment) -> dict:
    """Returns the cost of an experiment's model.

    Returns:
      `parameters`: number of trained parameters; `forward_gflop`: 10^9 floating-point operations to score
      a clip; `clips_per_second`: speed of training steps on a batch in memory.
    """
    return {
        "parameters": count_parameters(experiment),
        "forward_gflop": count_forward_flops(experiment) / 1e9,
        "clips_per_second": measure_training_speed(experiment),
    }


def measure_training_speed(experiment: Experiment) -> float:
    """Returns the clips per second of the compiled training step on one batch in memory.

    It is computed from the median time of STEPS steps after one warm-up step.
    """
    config, mesh = experiment.config, make_mesh(experiment.config.mesh)
    tx = make_optimizer(config.optimizer, STEPS)
    state = init_state(experiment.model, tx, jax.random.key(0), experiment.statistics)
    state = jax.device_put(state, state_sharding(state, mesh, fsdp=False))
    step = jit_train_step(make_train_step(experiment.model, tx, config), state, mesh, fsdp=False)
    batch = put_batch(experiment.model.fake_batch(config.data.batch_size), mesh)
    step_seconds = []
    for _ in range(STEPS + 1):
        start_time = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        step_seconds.append(time.perf_counter() - start_time)
    return config.data.batch_size / statistics.median(step_seconds[1:])


def count_parameters(experiment: Experiment) -> int:
    """Returns the number of trained parameters (scalars) of an experiment's model."""
    params, _ = jax.eval_shape(experiment.model.init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def count_forward_flops(experiment: Experiment) -> float:
    """Returns the number of floating-point operations to score one clip, as XLA estimates it."""
    variables = jax.eval_shape(experiment.model.init, jax.random.key(0))
    batch = experiment.model.fake_batch(1)
    return jax.jit(experiment.model.apply).lower(*variables, batch).cost_analysis()["flops"]
