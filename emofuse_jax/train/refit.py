"""Fits a trained network's fusion again, on pooled vectors: real ones and generated ones of rare classes."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax

from emofuse_jax import metrics
from emofuse_jax.data.pipeline import eval_batches
from emofuse_jax.models.fusions.registry import FUSIONS
from emofuse_jax.objectives.classification import cross_entropy
from emofuse_jax.train import checkpoint
from emofuse_jax.train.experiment import Experiment
from emofuse_jax.train.gan import Pairs, missing_labels, train_gan
from emofuse_jax.train.writer import Writer
from emofuse_jax.types import Params, TrainState


def refit(
    experiment: Experiment, params: Params, model_state: Params, about: dict, config, workdir: str
) -> dict:
    """Writes a checkpoint whose fusion has seen generated pairs too; gives what was made and reached.

    The encoders stay as they are. Generated vectors enter the training alone; the epoch is chosen by the real
    validation clips. The checkpoint is an ordinary one: `evaluate` and `export` take it.

    Args:
      experiment: of the run that `params`, `model_state` and `about` come from.
      params: its parameters.
      model_state: its statistics.
      about: metadata of its checkpoint.
      config: `seed`, `generate`, `gan` (train/gan.py), `refit` (`epochs`, `batch_size`, `learning_rate`).
      workdir: to write to.

    Raises:
      ValueError: a fusion that does not take one pooled vector of each of two streams.
    """
    _check_fusion(experiment)
    key_gan, key_sample, key_fit = jax.random.split(jax.random.key(config.seed), 3)
    classes = len(experiment.dataset.classes)
    train, validation = (pooled(experiment, params, model_state, part) for part in ("train", "validation"))
    told = {"real": len(train.label), "generated": 0}
    if config.generate:
        sample, told["losses"] = train_gan(train, classes, config.gan, key_gan)
        made = sample(key_sample, missing_labels(train.label, classes))
        told["generated"] = len(made.label)
        train = Pairs(*(np.concatenate(both) for both in zip(train, made, strict=True)))
    os.makedirs(workdir, exist_ok=True)
    writer = Writer(workdir, resume_step=0, active=True)
    best, told["validation_ua"], told["epoch"] = _fit(
        experiment.model, params, model_state, train, validation, config.refit, key_fit, writer
    )
    writer.close()
    state = TrainState(jnp.asarray(told["epoch"], jnp.int32), best, model_state, optax.EmptyState())
    named = {**about["config"], "name": config.name}
    checkpoint.save(workdir, "best", state, {**about, "config": named, "step": told["epoch"], "refit": told})
    return told


def pooled(experiment: Experiment, params: Params, model_state: Params, part: str) -> Pairs:
    """Vectors of the labelled clips of a part that have both streams."""
    apply = jax.jit(lambda batch: experiment.model.apply(params, model_state, batch, train=False)[0])
    rows = []
    size = experiment.config.train.eval_batch_size
    for batch in eval_batches(experiment.dataset, experiment.clips[part], experiment.spec, batch_size=size):
        outputs = apply(batch)
        kept = batch.label_mask & (batch.clip >= 0) & batch.audio_mask.any(1) & batch.face_mask.any(1)
        rows.append([np.asarray(x)[kept] for x in (outputs.audio_vector, outputs.video_vector, batch.label)])
    return Pairs(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def _check_fusion(experiment: Experiment) -> None:
    name = experiment.config.model.fusion.name
    fusion = FUSIONS[name]
    if (
        len(fusion.modalities) != 2
        or fusion.takes != "vectors"
        or experiment.config.model.fusion.get("parts", 0)
    ):
        raise ValueError(f"fusion {name!r}: expected one that takes one pooled vector of each of two streams")


def _fit(model, params, model_state, train: Pairs, validation: Pairs, config, key, writer):
    """The parameters, validation UA and number of the best epoch; epoch 0 is what was there before."""
    tx = optax.adam(config.learning_rate)
    steps = max(len(train.label) // config.batch_size, 1)
    data, seen = (jax.tree.map(jnp.asarray, pairs) for pairs in (train, validation))

    def loss(fusion, key, chosen):
        whole = params | {"fusion": fusion}
        logits = model.fuse(whole, model_state, data.audio[chosen], data.video[chosen], key=key)
        total, weight = cross_entropy(logits, data.label[chosen], jnp.ones(len(chosen)))
        return total / weight

    def step(carry, inputs):
        fusion, opt_state = carry
        value, grads = jax.value_and_grad(loss)(fusion, *inputs)
        updates, opt_state = tx.update(grads, opt_state)
        return (optax.apply_updates(fusion, updates), opt_state), value

    @jax.jit
    def epoch(carry, key):
        key_order, key_drop = jax.random.split(key)
        order = jax.random.permutation(key_order, len(data.label))
        order = jnp.resize(order, steps * config.batch_size).reshape(steps, -1)  # n -> steps b
        carry, values = jax.lax.scan(step, carry, (jax.random.split(key_drop, steps), order))
        return carry, values.mean()

    @jax.jit
    def confusion(fusion):
        logits = model.fuse(params | {"fusion": fusion}, model_state, seen.audio, seen.video)
        return metrics.confusion(logits, seen.label, jnp.ones(seen.label.shape), logits.shape[-1])

    def validation_ua(fusion) -> float:
        return metrics.scores(np.asarray(confusion(fusion)))["ua"]

    carry = (params["fusion"], tx.init(params["fusion"]))
    best = (carry[0], validation_ua(carry[0]), 0)
    for number, key_epoch in enumerate(jax.random.split(key, config.epochs), 1):
        carry, value = epoch(carry, key_epoch)
        ua = validation_ua(carry[0])
        row = {"epoch": number, "train_loss": float(value), "validation_ua": ua}
        writer.write(number, "epoch", row)
        if ua > best[1]:
            best = (carry[0], ua, number)
    return params | {"fusion": best[0]}, best[1], best[2]
