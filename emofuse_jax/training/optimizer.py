"""Builds the optimizer: AdamW or Muon, with warm-up, cosine decay, gradient clipping and a weight-decay
mask."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from emofuse_jax.types import Params


class AverageState(NamedTuple):
    """State of `average_params`: that of the inner optimizer, and the average of the parameters."""

    inner: optax.OptState
    average: Params


def make_optimizer(config: ConfigDict, total_steps: int | Int[Array, ""]) -> optax.GradientTransformation:
    """Returns the optimizer of `config.optimizer` for a run of `total_steps` batches.

    It always clips gradients to the global norm `config.clip_norm`. The learning rate is that of
    `make_schedule` over the updates: a warm-up, then cosine decay. Averages the gradients of
    `config.accumulate` batches into one update if it is above 1, and averages the parameters (AverageState)
    if `config.ema` is not 0.

    Args:
      config: `config.optimizer` of an experiment.
      total_steps: number of batches. It can be a traced array, because the replicas of one program can differ
        in it.

    Raises:
      ValueError: if the optimizer is unknown, if `config.accumulate` is below 1, or if `config.ema` is not in
        [0, 1).
    """
    check_optimizer(config)
    accumulation_steps = config.accumulate
    total_updates = jnp.maximum(total_steps // accumulation_steps, 1)
    schedule = make_schedule(config, total_updates)
    tx = optax.chain(optax.clip_by_global_norm(config.clip_norm), OPTIMIZERS[config.name](config, schedule))
    if accumulation_steps > 1:
        tx = optax.MultiSteps(tx, accumulation_steps).gradient_transformation()
    return average_params(tx, config.ema) if config.ema else tx


def check_optimizer(config: ConfigDict) -> None:
    """Checks `name`, `accumulate` and `ema` of `config`, which is `config.optimizer` of an experiment.

    Raises:
      ValueError: if the optimizer is unknown, `accumulate` is below 1, or `ema` is not in [0, 1); the message
        names the field.
    """
    if config.name not in OPTIMIZERS:
        raise ValueError(f"config.optimizer.name={config.name!r}: expected one of {', '.join(OPTIMIZERS)}")
    if config.accumulate < 1:
        raise ValueError(f"config.optimizer.accumulate={config.accumulate}: expected at least 1")
    if not 0.0 <= config.ema < 1.0:
        raise ValueError(f"config.optimizer.ema={config.ema}: expected a number in [0, 1)")


def adamw(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns the optimizer AdamW (Loshchilov & Hutter, arXiv 1711.05101) with a learning-rate schedule.

    `b1`, `b2` and `weight_decay` are those of `config`, which is `config.optimizer`. Only parameters with two
    or more axes are decayed. `schedule` maps the number of finished updates to the learning rate.
    """
    return optax.adamw(
        schedule, b1=config.b1, b2=config.b2, weight_decay=config.weight_decay, mask=weight_decay_mask
    )


def muon(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns the optimizer Muon (Jordan et al., 2024) for kernels, with Adam for all other parameters.

    A kernel W with n rows, m columns and momentum `U S V^T` is updated by `W <- W - rate (0.2 sqrt(max(n, m))
    U V^T + decay W)`. The decay is `config.weight_decay`, the factor of the (Nesterov) momentum 0.95. `U V^T`
    comes from a Newton-Schulz iteration. With this scale (arXiv 2502.16982) the steps are as large as those
    of AdamW, so that a learning rate of AdamW fits.

    Parameters with fewer than two axes, classifiers (`head`) and embeddings use Adam with Nesterov momentum,
    without weight decay; `b1` and `b2` of `config`, which is `config.optimizer`, are for Adam. `schedule`
    maps the number of finished updates to the learning rate.
    """
    return optax.contrib.muon(
        schedule,
        weight_decay=config.weight_decay,
        adam_b1=config.b1,
        adam_b2=config.b2,
        muon_weight_dimension_numbers=muon_dimension_numbers,
        consistent_rms=0.2,
    )


OPTIMIZERS: dict[str, Callable[[ConfigDict, optax.Schedule], optax.GradientTransformation]] = {
    "adamw": adamw,
    "muon": muon,
}
"""Optimizers by the name in `config.optimizer.name`."""


def muon_dimension_numbers(params: Params) -> Params:
    """Returns a tree like `params` that says how Muon reads each parameter as a matrix.

    The leaves are MuonDimensionNumbers of optax, or None for parameters that Adam updates.

    A parameter with two or more axes is a matrix: its last axis has the columns, all others the rows.
    Classifiers and embeddings, which have a key that ends in `head` or `embedding` in their path, use Adam,
    as Jordan et al. advise.
    """

    def leaf_dimensions(
        path: tuple[object, ...], p: Float[Array, "..."]
    ) -> optax.contrib.MuonDimensionNumbers | None:
        names = [str(getattr(key, "key", key)) for key in path]
        if p.ndim < 2 or any(name.endswith(("head", "embedding")) for name in names):
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(p.ndim - 1)), p.ndim - 1)

    return jax.tree_util.tree_map_with_path(leaf_dimensions, params)


def make_schedule(config: ConfigDict, total_updates: int | Int[Array, ""]) -> optax.Schedule:
    """Returns a function from the number of finished updates to the learning rate.

    The rate has a linear warm-up from 0 over the fraction `config.warmup` of the updates, then cosine decay
    from the peak, `config.learning_rate`, to `config.final_rate` times the peak. `config` is
    `config.optimizer`. The result is the same as `optax.warmup_cosine_decay_schedule`, whose lengths cannot
    be traced.
    """
    peak_rate, final_fraction = config.learning_rate, config.final_rate
    warmup_updates = jnp.round(config.warmup * total_updates)
    decay_updates = jnp.maximum(total_updates, warmup_updates + 1) - warmup_updates

    def learning_rate(count: Int[Array, ""]) -> Float[Array, ""]:
        decay_progress = jnp.clip((count - warmup_updates) / decay_updates, 0.0, 1.0)
        cosine = final_fraction + (1.0 - final_fraction) * 0.5 * (1.0 + jnp.cos(jnp.pi * decay_progress))
        return peak_rate * jnp.where(count < warmup_updates, count / jnp.maximum(warmup_updates, 1.0), cosine)

    return learning_rate


def weight_decay_mask(params: Params) -> Params:
    """Returns a tree like `params`: True for parameters with two or more axes, which are decayed, else False.

    Biases, norms and other vectors are not decayed.
    """
    return jax.tree.map(lambda p: p.ndim > 1, params)


def average_params(tx: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    """Returns an optimizer like `tx` whose state contains an exponential moving average of the parameters.

    The state is an AverageState: `inner`, the state of `tx`, and `average`, the averaged parameters. The
    average a of the parameters p changes by `a <- a + (1 - decay) (p - a)` after each update (Polyak &
    Juditsky, 1992), starting from the initial parameters. `decay` is in [0, 1). Batches whose gradients are
    only accumulated do not change the average: they do not raise the number of updates (`count_updates`) in
    the state of `tx`. `update` of the result needs the parameters, and raises IndexError if the state of `tx`
    has no such number.
    """

    def init(params: Params) -> AverageState:
        return AverageState(tx.init(params), jax.tree.map(jnp.copy, params))

    def update(grads: Params, state: AverageState, params: Params) -> tuple[Params, AverageState]:
        updates, inner = tx.update(grads, state.inner, params)
        new_params = optax.apply_updates(params, updates)
        updates_before, updates_after = count_updates(state.inner), count_updates(inner)
        step_weight = jnp.where(updates_after > updates_before, 1.0 - decay, 0.0)
        return updates, AverageState(inner, optax.incremental_update(new_params, state.average, step_weight))

    return optax.GradientTransformation(init, update)


def count_updates(state: optax.OptState) -> Int[Array, ""]:
    """Returns the number of updates that the optimizer has made (int32): the first `count` in its state.

    Raises IndexError if the state has no `count`, as that of plain gradient descent.
    """
    return optax.tree_utils.tree_get_all_with_path(state, "count")[0][1]


def evaluation_params(params: Params, opt_state: optax.OptState) -> Params:
    """Returns the parameters for scoring and serving: the average if averaging is enabled, else `params`."""
    return opt_state.average if isinstance(opt_state, AverageState) else params
