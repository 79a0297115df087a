"""AdamW, warm-up and cosine, clipping, a weight-decay mask; averaging and accumulation as options."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from emofuse_jax.types import Params


class AverageState(NamedTuple):
    """The inner transformation's state, and the running average of the parameters."""

    inner: optax.OptState
    average: Params


def make_optimizer(config, steps: int | Int[Array, ""]) -> optax.GradientTransformation:
    """Builds the optimiser of `config.optimizer` (configs/base.py) for a run of `steps` batches.

    `steps` may be traced: replicas of one program differ in it.
    """
    accumulate = config.accumulate
    updates = jnp.maximum(steps // accumulate, 1)
    schedule = make_schedule(config, updates)
    tx = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            schedule, b1=config.b1, b2=config.b2, weight_decay=config.weight_decay, mask=weight_decay_mask
        ),
    )
    if accumulate > 1:
        tx = optax.MultiSteps(tx, accumulate).gradient_transformation()
    return averaged(tx, config.ema ** (1 / accumulate)) if config.ema else tx  # decay per update


def make_schedule(config, updates: int | Int[Array, ""]) -> optax.Schedule:
    """Linear warm-up over the share `config.warmup`, then a cosine to `config.final_rate` of the peak.

    `optax.warmup_cosine_decay_schedule`, whose lengths can't be traced.
    """
    peak, floor = config.learning_rate, config.final_rate
    warmup = jnp.round(config.warmup * updates)
    length = jnp.maximum(updates, warmup + 1) - warmup

    def rate(count):
        done = jnp.clip((count - warmup) / length, 0.0, 1.0)
        cosine = floor + (1.0 - floor) * 0.5 * (1.0 + jnp.cos(jnp.pi * done))
        return peak * jnp.where(count < warmup, count / jnp.maximum(warmup, 1.0), cosine)

    return rate


def weight_decay_mask(params: Params) -> Params:
    """True for kernels; biases, norms and other vectors are not decayed."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def averaged(tx: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    """Keeps an exponential moving average of the parameters in the optimiser's state.

    `a <- decay * a + (1 - decay) * p` after each update; it starts at the initial parameters
    (Polyak & Juditsky, 1992).
    """

    def init(params):
        return AverageState(tx.init(params), jax.tree.map(jnp.copy, params))

    def update(grads, state, params):
        updates, inner = tx.update(grads, state.inner, params)
        new = optax.apply_updates(params, updates)
        average = optax.incremental_update(new, state.average, 1.0 - decay)
        return updates, AverageState(inner, average)

    return optax.GradientTransformation(init, update)


def evaluation_params(params: Params, opt_state: optax.OptState) -> Params:
    """The parameters to score and to serve: the average where there is one."""
    return opt_state.average if isinstance(opt_state, AverageState) else params
