"""One training step and one scoring step, pure and jitted over a mesh."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from emofuse_jax import losses, metrics
from emofuse_jax.data.augment import augment
from emofuse_jax.objectives.classification import cross_entropy, label_weight
from emofuse_jax.train.sharding import batch_sharding, replicated, state_sharding
from emofuse_jax.train.warm_start import Start, overlay
from emofuse_jax.types import Batch, Params, PRNGKey, TrainState


def init_state(
    model, tx: optax.GradientTransformation, key: PRNGKey, statistics, start: Start = ({}, {})
) -> TrainState:
    """A fresh state; `statistics`: (mean, std) per bin of the training clips, `start`: of `read_start`."""
    params, model_state = map(overlay, model.init(key), start)
    model_state = model.with_statistics(model_state, *statistics)
    return TrainState(jnp.zeros((), jnp.int32), params, model_state, tx.init(params))


def make_train_step(model, tx: optax.GradientTransformation, config) -> Callable:
    """The pure step `(state, batch) -> (state, metrics)` of an experiment's config."""

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        key_augment, key_dropout = jax.random.split(key)
        batch = augment(batch, key_augment, config.augment)

        def objective(params: Params):
            outputs, model_state = model.apply(params, state.model_state, batch, train=True, key=key_dropout)
            loss, parts = losses.total_loss(outputs, batch, config.loss)
            return loss, (model_state, outputs, parts)

        gradient = jax.value_and_grad(objective, has_aux=True)
        (loss, (model_state, outputs, parts)), grads = gradient(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        weight = label_weight(batch)
        measured = {
            **parts,
            "loss": loss,
            "gradient_norm": optax.global_norm(grads),
            "confusion": metrics.confusion(outputs.logits, batch.label, weight, outputs.logits.shape[-1]),
        }
        return TrainState(state.step + 1, params, model_state, opt_state), measured

    return train_step


def jit_train_step(step: Callable, state: TrainState, mesh: Mesh, *, fsdp: bool) -> Callable:
    """Jits a training step over the mesh with a donated state."""
    sharding = state_sharding(state, mesh, fsdp=fsdp)
    return jax.jit(
        step,
        in_shardings=(sharding, batch_sharding(mesh)),
        out_shardings=(sharding, replicated(mesh)),
        donate_argnums=0,
    )


def make_eval_step(model, mesh: Mesh) -> Callable:
    """The jitted `(params, model_state, batch) -> {"probabilities", "loss", "weight"}` of a model."""

    def eval_step(params: Params, model_state: Params, batch: Batch) -> dict:
        outputs, _ = model.apply(params, model_state, batch, train=False)
        loss, weight = cross_entropy(outputs.logits, batch.label, label_weight(batch), smoothing=0.0)
        probabilities = jax.nn.softmax(outputs.logits.astype(jnp.float32))
        return {"probabilities": probabilities, "loss": loss, "weight": weight}

    rows, whole = batch_sharding(mesh), replicated(mesh)
    return jax.jit(
        eval_step,
        in_shardings=(None, None, rows),
        out_shardings={"probabilities": rows, "loss": whole, "weight": whole},
    )


def keep_modality(batch: Batch, modality: str) -> Batch:
    """Masks the faces (`audio`), the sound (`video`), or nothing (`both`)."""
    if modality == "audio":
        return dataclasses.replace(batch, face_mask=jnp.zeros_like(batch.face_mask))
    if modality == "video":
        return dataclasses.replace(batch, audio_mask=jnp.zeros_like(batch.audio_mask))
    if modality != "both":
        raise ValueError(f"modality {modality!r}: expected both, audio or video")
    return batch
