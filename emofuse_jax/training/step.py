"""Defines one training step and one scoring step: pure functions, jitted over a mesh."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from emofuse_jax import losses
from emofuse_jax.data.augment.apply import augment
from emofuse_jax.data.spectrogram_units import units_per_neper
from emofuse_jax.losses.cross_entropy import cross_entropy, label_weight
from emofuse_jax.models.build import Model
from emofuse_jax.models.registry import check_training, count_trunks
from emofuse_jax.parallel.mesh import batch_sharding, replicated, state_sharding
from emofuse_jax.parallel.xla_options import step_options
from emofuse_jax.scoring import metrics
from emofuse_jax.scoring.predict import EvalOutputs, EvalStep
from emofuse_jax.training.warm_start import WarmStart, overlay_arrays
from emofuse_jax.types import Batch, Outputs, Params, PRNGKey, TrainState

InputStatistics = tuple[Float[np.ndarray, " f"], Float[np.ndarray, " f"]]
"""Mean and standard deviation of each frequency bin over the training clips."""
StepMetrics = dict[str, Array]
"""Metrics of a training step: `loss`, each term of the loss, `gradient_norm` and `confusion` [c c]."""
EpochSums = dict[str, Array]
"""Metrics summed over the steps of an epoch: `loss` and `confusion` [c c]."""
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]
"""Function `(state, batch) -> (state, metrics)`."""


def init_state(
    model: Model,
    tx: optax.GradientTransformation,
    key: PRNGKey,
    statistics: InputStatistics,
    warm_start: WarmStart = ({}, {}),
) -> TrainState:
    """Returns a new training state at step 0: `step`, `params`, `model_state` and `opt_state`.

    Args:
      model: model to initialise.
      tx: optimizer of `make_optimizer`.
      key: random key of the initial parameters.
      statistics: (mean, std) of each frequency bin over the training clips, stored in `model_state["input"]`.
      warm_start: (params, model_state): nested dicts with some of the arrays, which replace the initial ones;
        their shapes are not checked.

    Raises:
      ValueError: if the statistics have the wrong shape or are not finite.
      KeyError: if the model has no array of a name in `warm_start`.
    """
    params, model_state = map(overlay_arrays, model.init(key), warm_start)
    model_state = model.with_statistics(model_state, *statistics)
    return TrainState(jnp.zeros((), jnp.int32), params, model_state, tx.init(params))


def make_train_step(
    model: Model,
    tx: optax.GradientTransformation,
    config: ConfigDict,
    seed: int | Int[Array, ""] | None = None,
) -> TrainStep:
    """Returns the pure training step `(state, batch) -> (state, metrics)` of a config.

    The metrics are a dict: `loss`, each term of the loss by the name of its objective, `gradient_norm`
    (scalars) and `confusion` [c c], rows true classes. Warns if the batch is too small for soft-HGR with
    labels.

    Args:
      model: model to train.
      tx: optimizer of `make_optimizer`.
      config: config of the experiment.
      seed: seed of augmentation and dropout, by default `config.seed`. It can be a traced array, because the
        replicas of one program have different seeds.

    Raises:
      KeyError: if there is no fusion of the name `config.model.fusion.name`.
      ValueError: if an installed package provides this fusion, but it cannot be imported or used, if
        `config.augment.frames` is above 0 and smaller than the number of parts of the fusion, or if a check
        of the fusion rejects the config. The step also raises ValueError, when it is first called,
        if the recipe or an objective is unknown, if an objective needs an output that the network lacks, if
        `config.augment.frames` or `config.augment.crop` is larger than a clip, if a dropout rate is not in
        [0, 1), or if the shapes of the batch do not fit the model.
    """
    check_frame_count(config)
    check_training(config)
    seed = config.seed if seed is None else seed

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        key_augment, key_dropout = jax.random.split(key)
        batch = augment(
            batch, key_augment, config.augment, units_per_neper=units_per_neper(config.data.recipe)
        )

        def loss_fn(
            params: Params,
        ) -> tuple[Float[Array, ""], tuple[Params, Outputs, dict[str, Float[Array, ""]]]]:
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


def select_epoch_sums(step_metrics: StepMetrics) -> EpochSums:
    """Returns a dict of the metrics of a step that are summed over an epoch: `loss`, `confusion` [c c]."""
    return {"loss": step_metrics["loss"], "confusion": step_metrics["confusion"]}


def check_frame_count(config: ConfigDict) -> None:
    """Checks that training samples at least one frame for each part into which the fusion divides a clip.

    `config` is the config of an experiment. `augment.frames=0` means all frames and is always valid.

    Raises:
      ValueError: if `augment.frames` is above 0 and smaller than the number of parts, or if an installed
        package provides the fusion, but it cannot be imported or used.
      KeyError: if there is no fusion of the name `model.fusion.name`.
    """
    frames, parts = config.augment.frames, count_trunks(config.model.fusion)
    if 0 < frames < parts:
        raise ValueError(
            f"config.augment.frames={frames}: expected 0 (all) or at least config.model.fusion.parts={parts}"
        )


def jit_train_step(step: TrainStep, state: TrainState, mesh: Mesh, *, fsdp: bool) -> jax.stages.Wrapped:
    """Returns the training step `(state, batch) -> (state, metrics)`, jitted over the mesh.

    The state is donated: do not use the one that was passed in afterwards. With `fsdp`, arrays of at least
    65,536 elements are split over the devices. The jitted step raises what `step` raises, and ValueError if
    the devices cannot share the rows of the batch equally.

    Args:
      step: training step of `make_train_step`.
      state: training state; only the shapes of its arrays are used.
      mesh: mesh to run on; the rows of a batch are split over its axis `data`.
      fsdp: whether to split large arrays of the state.
    """
    sharding = state_sharding(state, mesh, fsdp=fsdp)
    return jax.jit(
        step,
        in_shardings=(sharding, batch_sharding(mesh)),
        out_shardings=(sharding, replicated(mesh)),
        donate_argnums=0,
        compiler_options=step_options(mesh),
    )


def make_eval_step(model: Model) -> EvalStep:
    """Returns the pure scoring step `(params, model_state, batch) -> outputs` of a model.

    The outputs are a dict: `probabilities` [b c]; `levels` [b n c] or None; `loss`, the sum of the
    cross-entropies of the labelled clips, each multiplied by the clip's weight (`batch.weight`); and
    `weight`, the sum of these weights, so that `loss / weight` is the mean. The n levels of a fusion are
    streams or parts of a clip that have a separate classifier: `levels` has their probabilities, 0 if a clip
    lacks the level, and is None if the fusion has no levels.

    The step raises ValueError if the shapes of the batch do not fit the model, or if the fusion
    returns `level_logits` without `level_mask`.
    """

    def eval_step(params: Params, model_state: Params, batch: Batch) -> EvalOutputs:
        outputs, _ = model.apply(params, model_state, batch, train=False)
        loss, weight = cross_entropy(outputs.logits, batch.label, label_weight(batch), smoothing=0.0)
        probabilities = jax.nn.softmax(outputs.logits.astype(jnp.float32))
        levels = level_probabilities(outputs.aux)
        return {"probabilities": probabilities, "levels": levels, "loss": loss, "weight": weight}

    return eval_step


def jit_eval_step(model: Model, mesh: Mesh) -> EvalStep:
    """Returns the scoring step `(params, model_state, batch) -> outputs`, jitted over the mesh.

    The rows of a batch are split over the mesh axis `data`. The outputs are a dict: `probabilities` [b c];
    `levels` [b n c], the probabilities of the n levels of the fusion (streams or parts of a clip that have a
    separate classifier), or None if it has none; `loss`, the sum of the cross-entropies of the labelled
    clips, each multiplied by the clip's weight; and `weight`, the sum of these weights.

    The step raises ValueError if the devices cannot share the rows equally or the shapes of the batch do not
    fit the model, or if the fusion returns `level_logits` without `level_mask`.
    """
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
    """Returns the class probabilities [b n c] of the n levels of the fusion, 0 for a level that a clip lacks.

    A level is a stream or a part of a clip that has a separate classifier. `aux` has the named results of the
    network, of which `level_logits` [b n c] and `level_mask` [b n] are used. Returns None if it has no
    `level_logits`. Raises ValueError if it has `level_logits`, but no `level_mask`.
    """
    if "level_logits" not in aux:
        return None
    if "level_mask" not in aux:
        raise ValueError("aux: the fusion returns level_logits without level_mask; return both")
    probabilities = jax.nn.softmax(aux["level_logits"].astype(jnp.float32))
    return jnp.where(aux["level_mask"][..., None], probabilities, 0.0)
