"""AdamW or Muon, warm-up and cosine, clipping, a weight-decay mask; averaging and accumulation as options."""

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


def make_optimizer(config, total_steps: int | Int[Array, ""]) -> optax.GradientTransformation:
    """Builds the optimiser of `config.optimizer` (settings/experiment.py) for a run of `total_steps` batches.

    `total_steps` may be traced: replicas of one program differ in it.

    Raises:
      ValueError: see `check_optimizer`.
    """
    check_optimizer(config)
    accumulation_steps = config.accumulate
    total_updates = jnp.maximum(total_steps // accumulation_steps, 1)
    schedule = make_schedule(config, total_updates)
    tx = optax.chain(optax.clip_by_global_norm(config.clip_norm), OPTIMIZERS[config.name](config, schedule))
    if accumulation_steps > 1:
        tx = optax.MultiSteps(tx, accumulation_steps).gradient_transformation()
    return average_params(tx, config.ema) if config.ema else tx


def check_optimizer(config) -> None:
    """Raises ValueError, naming the field, for an unknown optimiser or an impossible average."""
    if config.name not in OPTIMIZERS:
        raise ValueError(f"config.optimizer.name={config.name!r}: expected one of {', '.join(OPTIMIZERS)}")
    if not 0.0 <= config.ema < 1.0:
        raise ValueError(f"config.optimizer.ema={config.ema}: expected a number in [0, 1)")


def adamw(config, schedule: optax.Schedule) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101)."""
    return optax.adamw(
        schedule, b1=config.b1, b2=config.b2, weight_decay=config.weight_decay, mask=weight_decay_mask
    )


def muon(config, schedule: optax.Schedule) -> optax.GradientTransformation:
    """`W <- W - rate (0.2 sqrt(max(n, m)) U V^T + decay W)`, `U S V^T` the momentum of a kernel [n m].

    The momentum is made orthogonal by an iteration of Newton and Schulz (Jordan et al., 2024); with that
    scale (arXiv 2502.16982) its steps are as large as AdamW's, so that a rate of AdamW fits. What is no
    kernel (`muon_dimension_numbers`) is left to Adam with Nesterov's momentum, and does not decay; `b1`, `b2`
    are Adam's.
    """
    return optax.contrib.muon(
        schedule,
        weight_decay=config.weight_decay,
        adam_b1=config.b1,
        adam_b2=config.b2,
        muon_weight_dimension_numbers=muon_dimension_numbers,
        consistent_rms=0.2,
    )


OPTIMIZERS = {"adamw": adamw, "muon": muon}


def muon_dimension_numbers(params: Params) -> Params:
    """What has two axes or more, as matrices: all axes but the last by the last; None for the rest.

    Classifiers (`head`) and embeddings stay with Adam, as Jordan et al. advise.
    """

    def leaf_dimensions(path, p):
        names = [str(getattr(key, "key", key)) for key in path]
        if p.ndim < 2 or any(name.endswith(("head", "embedding")) for name in names):
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(p.ndim - 1)), p.ndim - 1)

    return jax.tree_util.tree_map_with_path(leaf_dimensions, params)


def make_schedule(config, total_updates: int | Int[Array, ""]) -> optax.Schedule:
    """Linear warm-up over the share `config.warmup`, then a cosine to `config.final_rate` of the peak.

    `optax.warmup_cosine_decay_schedule`, whose lengths can't be traced.
    """
    peak_rate, final_fraction = config.learning_rate, config.final_rate
    warmup_updates = jnp.round(config.warmup * total_updates)
    decay_updates = jnp.maximum(total_updates, warmup_updates + 1) - warmup_updates

    def learning_rate(count):
        decay_progress = jnp.clip((count - warmup_updates) / decay_updates, 0.0, 1.0)
        cosine = final_fraction + (1.0 - final_fraction) * 0.5 * (1.0 + jnp.cos(jnp.pi * decay_progress))
        return peak_rate * jnp.where(count < warmup_updates, count / jnp.maximum(warmup_updates, 1.0), cosine)

    return learning_rate


def weight_decay_mask(params: Params) -> Params:
    """True for kernels; biases, norms and other vectors are not decayed."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def average_params(tx: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    """Keeps an exponential moving average of the parameters in the optimiser's state.

    `a <- a + (1 - decay) (p - a)` after each update (Polyak & Juditsky, 1992); it starts at the initial
    parameters. Batches whose gradients are only accumulated do not change it.
    """

    def init(params):
        return AverageState(tx.init(params), jax.tree.map(jnp.copy, params))

    def update(grads, state, params):
        updates, inner = tx.update(grads, state.inner, params)
        new_params = optax.apply_updates(params, updates)
        updates_before, updates_after = count_updates(state.inner), count_updates(inner)
        step_weight = jnp.where(updates_after > updates_before, 1.0 - decay, 0.0)
        return updates, AverageState(inner, optax.incremental_update(new_params, state.average, step_weight))

    return optax.GradientTransformation(init, update)


def count_updates(state: optax.OptState) -> Int[Array, ""]:
    """Updates that the optimiser has made."""
    return optax.tree_utils.tree_get_all_with_path(state, "count")[0][1]


def evaluation_params(params: Params, opt_state: optax.OptState) -> Params:
    """The parameters to score and to serve: the average where there is one."""
    return opt_state.average if isinstance(opt_state, AverageState) else params
