"""One training step and one scoring step, pure and jitted over a mesh."""

import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from emofuse_jax import losses
from emofuse_jax.data.augment.apply import augment
from emofuse_jax.data.spectrogram_units import units_per_neper
from emofuse_jax.losses.cross_entropy import cross_entropy, label_weight
from emofuse_jax.parallel.mesh import batch_sharding, replicated, state_sharding
from emofuse_jax.parallel.xla_options import step_options
from emofuse_jax.scoring import metrics
from emofuse_jax.training.warm_start import WarmStart, overlay_arrays
from emofuse_jax.types import Batch, Params, PRNGKey, TrainState


def init_state(
    model, tx: optax.GradientTransformation, key: PRNGKey, statistics, warm_start: WarmStart = ({}, {})
) -> TrainState:
    """A fresh state; `statistics`: (mean, std) per bin of the training clips, `warm_start`: of
    `load_warm_start`."""
    params, model_state = map(overlay_arrays, model.init(key), warm_start)
    model_state = model.with_statistics(model_state, *statistics)
    return TrainState(jnp.zeros((), jnp.int32), params, model_state, tx.init(params))


def make_train_step(
    model, tx: optax.GradientTransformation, config, seed: int | Int[Array, ""] | None = None
) -> Callable:
    """The pure step `(state, batch) -> (state, metrics)` of an experiment's config.

    `seed`, by default `config.seed`, may be traced: replicas of one program differ in it.
    """
    check_frame_count(config)
    warn_small_correlation_batch(config)
    seed = config.seed if seed is None else seed

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        key_augment, key_dropout = jax.random.split(key)
        batch = augment(
            batch, key_augment, config.augment, units_per_neper=units_per_neper(config.data.recipe)
        )

        def loss_fn(params: Params):
            outputs, model_state = model.apply(params, state.model_state, batch, train=True, key=key_dropout)
            loss, loss_terms = losses.total_loss(outputs, batch, config.loss)
            return loss, (model_state, outputs, loss_terms)

        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (model_state, outputs, loss_terms)), grads = grad_fn(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        weight = label_weight(batch)
        step_metrics = {
            **loss_terms,
            "loss": loss,
            "gradient_norm": optax.global_norm(grads),
            "confusion": metrics.confusion_matrix(
                outputs.logits, batch.label, weight, outputs.logits.shape[-1]
            ),
        }
        return TrainState(state.step + 1, params, model_state, opt_state), step_metrics

    return train_step


def select_epoch_sums(step_metrics: dict) -> dict:
    """Of a step's metrics those that an epoch adds up."""
    return {"loss": step_metrics["loss"], "confusion": step_metrics["confusion"]}


def check_frame_count(config) -> None:
    """ValueError where training samples fewer frames than the fusion has parts: each takes at least one."""
    frames, parts = config.augment.frames, config.model.fusion.get("parts", 0)
    if 0 < frames < parts:
        raise ValueError(f"augment.frames={frames}: expected 0 (all), or at least fusion.parts={parts}")


def warn_small_correlation_batch(config) -> None:
    """Warns where few labelled rows make soft-HGR's terms with the labels badly biased (ops/hgr.py)."""
    data, fusion = config.data, config.model.fusion
    if not config.loss.objectives.get("correlation", 0.0) or "label_hidden" not in fusion or fusion.ema:
        return
    labelled_fraction = (data.labelled_share or data.labelled_fraction) if data.keep_unlabelled else 1.0
    labelled_segments = data.batch_size * fusion.segments * labelled_fraction
    if labelled_segments < 4 * fusion.width:
        warnings.warn(
            f"soft-HGR with labels: about {labelled_segments:.0f} labelled segments a batch, fewer than 4 x"
            f" model.fusion.width={fusion.width}: biased; a larger batch or model.fusion.ema helps",
            stacklevel=2,
        )


def jit_train_step(step: Callable, state: TrainState, mesh: Mesh, *, fsdp: bool) -> Callable:
    """Jits a training step over the mesh with a donated state."""
    sharding = state_sharding(state, mesh, fsdp=fsdp)
    return jax.jit(
        step,
        in_shardings=(sharding, batch_sharding(mesh)),
        out_shardings=(sharding, replicated(mesh)),
        donate_argnums=0,
        compiler_options=step_options(mesh),
    )


def make_eval_step(model) -> Callable:
    """The pure `(params, model_state, batch) -> {"probabilities", "levels", "loss", "weight"}` of a model.

    `levels` are the posteriors of each level's own classifier [b n c], zeros where a clip lacks the level;
    None where the fusion has none.
    """

    def eval_step(params: Params, model_state: Params, batch: Batch) -> dict:
        outputs, _ = model.apply(params, model_state, batch, train=False)
        loss, weight = cross_entropy(outputs.logits, batch.label, label_weight(batch), smoothing=0.0)
        probabilities = jax.nn.softmax(outputs.logits.astype(jnp.float32))
        levels = level_probabilities(outputs.aux)
        return {"probabilities": probabilities, "levels": levels, "loss": loss, "weight": weight}

    return eval_step


def jit_eval_step(model, mesh: Mesh) -> Callable:
    """`make_eval_step`, jitted over the rows of a batch on a mesh."""
    row_sharding, replicated_sharding = batch_sharding(mesh), replicated(mesh)
    return jax.jit(
        make_eval_step(model),
        in_shardings=(None, None, row_sharding),
        out_shardings={
            "probabilities": row_sharding,
            "levels": row_sharding,
            "loss": replicated_sharding,
            "weight": replicated_sharding,
        },
        compiler_options=step_options(mesh),
    )


def level_probabilities(aux: dict[str, Array]) -> Float[Array, "b n c"] | None:
    """Posteriors of the levels' own logits, zeros where masked; None where there are none."""
    if "level_logits" not in aux:
        return None
    probabilities = jax.nn.softmax(aux["level_logits"].astype(jnp.float32))
    return jnp.where(aux["level_mask"][..., None], probabilities, 0.0)
