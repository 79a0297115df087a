"""Fits a trained network's fusion again, on pooled vectors: real ones and generated ones of rare classes."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax

from emofuse_jax.data.feature_shapes import audio_step_mask
from emofuse_jax.data.labels import hide_labels
from emofuse_jax.data.pipeline import eval_batches
from emofuse_jax.losses.cross_entropy import cross_entropy
from emofuse_jax.models.feature_gan import LabelledVectors, choose_labels_to_generate, train_gan
from emofuse_jax.models.registry import FUSIONS
from emofuse_jax.scoring import metrics
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.experiment import Experiment, check_same_data
from emofuse_jax.training.folds import VALIDATION_TRAINED_ON_MESSAGE
from emofuse_jax.training.metric_writer import MetricWriter
from emofuse_jax.types import Batch, Params, TrainState
from emofuse_jax.utils.locks import lock_directory

COPIED_METADATA_FIELDS = (
    "classes",
    "settings",
    "spec",
    "statistics",
    "corpus",
    "protocol",
    "fold",
    "versions",
)
COPIED_METADATA_FIELDS += ("training_speakers", "training_clips_sha256", "leaks")
"""Metadata that the new checkpoint takes over from the old one."""


def refit(
    experiment: Experiment, params: Params, model_state: Params, metadata: dict, config, workdir: str
) -> dict:
    """Writes a checkpoint whose fusion has seen generated pairs too; gives what was made and reached.

    The encoders stay as they are. Generated vectors enter the training alone; the epoch is chosen by the real
    validation clips. The checkpoint is an ordinary one: `evaluate` and `export` take it.

    Args:
      experiment: of the run that `params`, `model_state` and `metadata` come from.
      params: its parameters.
      model_state: its statistics.
      metadata: metadata of its checkpoint.
      config: `seed`, `generate`, `gan` (models/feature_gan.py), `refit` (`epochs`, `batch_size`,
      `learning_rate`).
      workdir: to write to.

    Raises:
      ValueError: a fusion that does not take one pooled vector of each of two streams or that measures
        numbers while it trains, a run without clips held out, records other than those of the run, a
        workdir that holds a run or where another process trains, or no clip with both streams.
    """
    _check_fusion(experiment, model_state)
    if not experiment.config.data.hold_out:
        raise ValueError(f"{VALIDATION_TRAINED_ON_MESSAGE}, which are to choose among the fits")
    check_same_data(experiment, metadata, ("classes", "settings", "spec", "training_clips_sha256"))
    with lock_directory(workdir):
        if os.path.isdir(os.path.join(workdir, "checkpoints")):
            raise ValueError(f"{workdir}: holds a run; choose another --workdir")
        return _refit(experiment, params, model_state, metadata, config, workdir)


def _refit(
    experiment: Experiment, params: Params, model_state: Params, metadata: dict, config, workdir: str
) -> dict:
    key_gan, key_sample, key_fit = jax.random.split(jax.random.key(config.seed), 3)
    train_pairs, validation_pairs = (
        pool_vectors(experiment, params, model_state, split) for split in ("train", "validation")
    )
    report = {"real": len(train_pairs.label), "generated": 0}
    if config.generate:
        num_classes = len(experiment.dataset.classes)
        sample, report["losses"] = train_gan(train_pairs, num_classes, config.gan, key_gan)
        generated = sample(key_sample, choose_labels_to_generate(train_pairs.label, num_classes))
        report["generated"] = len(generated.label)
        train_pairs = LabelledVectors(
            *(np.concatenate(arrays) for arrays in zip(train_pairs, generated, strict=True))
        )
    writer = MetricWriter(workdir, resume_step=0, active=True)
    variables = (params, model_state)
    best_params, report["validation_ua"], report["epoch"] = _train_fusion(
        experiment.model, variables, train_pairs, validation_pairs, config.refit, key_fit, writer
    )
    writer.close()
    state = TrainState(jnp.asarray(report["epoch"], jnp.int32), best_params, model_state, optax.EmptyState())
    new_metadata = {name: metadata[name] for name in COPIED_METADATA_FIELDS} | {
        "config": {**metadata["config"], "name": config.name},
        "step": report["epoch"],
        "temperature": 1.0,
        "refit": config.to_dict() | report,
    }
    store.save(workdir, "best", state, new_metadata)
    return report


def pool_vectors(experiment: Experiment, params: Params, model_state: Params, split: str) -> LabelledVectors:
    """Vectors of the clips of a part that have both streams and a label, of training one that is not hidden.

    Raises ValueError where there are none.
    """
    model, clips = experiment.model, experiment.clips[split]
    should_hide = split == "train" and experiment.labels is not None
    hidden_label_clips = clips[experiment.labels < 0] if should_hide else clips[:0]
    apply_model = jax.jit(lambda p, s, batch: model.apply(p, s, batch, train=False)[0])
    arrays_by_batch = []
    batch_size = experiment.config.train.eval_batch_size
    for batch in eval_batches(experiment.dataset, clips, experiment.shape, batch_size=batch_size):
        batch = hide_labels(batch, hidden_label_clips)
        outputs = apply_model(params, model_state, batch)
        row_mask = batch.label_mask & (batch.clip >= 0) & has_both_modalities(batch)
        arrays_by_batch.append(
            [
                np.asarray(values)[row_mask]
                for values in (outputs.audio_vector, outputs.video_vector, batch.label)
            ]
        )
    pairs = LabelledVectors(*(np.concatenate(arrays) for arrays in zip(*arrays_by_batch, strict=True)))
    if not len(pairs.label):
        raise ValueError(f"{experiment.dataset.path}: no labelled clip of {split} has both streams")
    return pairs


def has_both_modalities(batch: Batch) -> np.ndarray:
    """bool [b]: which clips have sound, or features of it, and a face."""
    return audio_step_mask(batch).any(axis=1) & batch.face_mask.any(axis=1)


def _check_fusion(experiment: Experiment, model_state: Params) -> None:
    config = experiment.config.model.fusion
    fusion = FUSIONS[config.name]
    if len(fusion.modalities) != 2 or fusion.takes != "vectors" or config.get("parts", 0):
        raise ValueError(
            f"fusion {config.name!r}: expected one that takes one pooled vector of each of two streams"
        )
    if "fusion" in model_state:
        raise ValueError(f"fusion {config.name!r}: it measures numbers as it trains, which would go stale")


def _train_fusion(
    model,
    variables: tuple[Params, Params],
    train_pairs: LabelledVectors,
    validation_pairs: LabelledVectors,
    config,
    key,
    writer: MetricWriter,
):
    """The parameters, validation UA and number of the best epoch; epoch 0 is what was there before."""
    tx = optax.adam(config.learning_rate)
    params, model_state = variables
    train_epoch, compute_confusion = _make_jitted_functions(
        model, tx, config, max(len(train_pairs.label) // config.batch_size, 1)
    )
    data, validation_data = (jax.tree.map(jnp.asarray, pairs) for pairs in (train_pairs, validation_pairs))

    def compute_validation_ua(fusion: Params) -> float:
        merged_params = params | {"fusion": fusion}
        return metrics.compute_scores(
            np.asarray(compute_confusion(merged_params, model_state, validation_data))
        )["ua"]

    carry = (params["fusion"], tx.init(params["fusion"]))
    best = (carry[0], compute_validation_ua(carry[0]), 0)
    for epoch, key_epoch in enumerate(jax.random.split(key, config.epochs), 1):
        carry, loss = train_epoch(carry, key_epoch, variables, data)
        ua = compute_validation_ua(carry[0])
        writer.write(epoch, "epoch", {"epoch": epoch, "train_loss": float(loss), "validation_ua": ua})
        if ua > best[1]:
            best = (carry[0], ua, epoch)
    return params | {"fusion": best[0]}, best[1], best[2]


def _make_jitted_functions(model, tx, config, steps_per_epoch: int):
    """Returns two jitted functions: `train_epoch` and `compute_confusion`.

    `train_epoch(carry, key, variables, data) -> carry, loss`, and `compute_confusion(params, model_state,
    data)`, the confusion matrix [c c].
    """

    def loss_fn(fusion, variables, key, rows: LabelledVectors):
        merged_params = variables[0] | {"fusion": fusion}
        logits = model.fuse(merged_params, variables[1], rows.audio, rows.video, key=key)
        total, weight = cross_entropy(logits, rows.label, jnp.ones(rows.label.shape))
        return total / weight

    @jax.jit
    def train_epoch(carry, key, variables, data: LabelledVectors):
        def step(carry, inputs):
            fusion, opt_state = carry
            key_dropout, indices = inputs
            rows = jax.tree.map(lambda x: x[indices], data)
            value, grads = jax.value_and_grad(loss_fn)(fusion, variables, key_dropout, rows)
            updates, opt_state = tx.update(grads, opt_state)
            return (optax.apply_updates(fusion, updates), opt_state), value

        key_order, key_dropout = jax.random.split(key)
        order = jax.random.permutation(key_order, len(data.label))
        order = jnp.resize(order, steps_per_epoch * config.batch_size).reshape(
            steps_per_epoch, -1
        )  # n -> steps b
        carry, values = jax.lax.scan(step, carry, (jax.random.split(key_dropout, steps_per_epoch), order))
        return carry, values.mean()

    @jax.jit
    def compute_confusion(params, model_state, data: LabelledVectors):
        logits = model.fuse(params, model_state, data.audio, data.video)
        return metrics.confusion_matrix(logits, data.label, jnp.ones(data.label.shape), logits.shape[-1])

    return train_epoch, compute_confusion
