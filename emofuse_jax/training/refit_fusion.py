"""Refits the fusion of a trained network on pooled vectors: real ones, and generated ones of rare classes."""

import os
from collections.abc import Callable
from typing import NamedTuple, TypedDict, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict

from emofuse_jax.data.feature_shapes import audio_step_mask
from emofuse_jax.data.labels import hide_labels
from emofuse_jax.data.pipeline import eval_batches
from emofuse_jax.losses.cross_entropy import cross_entropy
from emofuse_jax.models.build import Model
from emofuse_jax.models.feature_gan import LabelledVectors, choose_labels_to_generate, train_gan
from emofuse_jax.models.registry import FUSIONS, count_trunks
from emofuse_jax.scoring import metrics
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.checkpoint.metadata import CheckpointMetadata
from emofuse_jax.training.experiment import Experiment, check_same_data
from emofuse_jax.training.hold_out import VALIDATION_TRAINED_ON_MESSAGE
from emofuse_jax.training.metric_writer import MetricWriter
from emofuse_jax.types import Batch, Params, PRNGKey, TrainState
from emofuse_jax.utils.locks import lock_directory

Carry = tuple[Params, optax.OptState]
"""Parameters of the fusion, and the state of their optimizer."""


class VectorRows(NamedTuple):
    """LabelledVectors on the devices."""

    audio: Float[Array, "n d_a"]
    video: Float[Array, "n d_v"]
    label: Int[Array, " n"]


TrainEpoch = Callable[[Carry, PRNGKey, tuple[Params, Params], VectorRows], tuple[Carry, Float[Array, ""]]]
"""Function `(carry, key, variables, data) -> (carry, loss)`."""
ComputeConfusion = Callable[[Params, Params, VectorRows], Float[Array, "c c"]]
"""Function `(params, model_state, data) -> confusion`."""


class RefitReport(TypedDict, total=False):
    """Results of refitting a fusion."""

    real: int
    """Number of real pairs of vectors."""
    generated: int
    """Number of generated pairs of vectors."""
    losses: dict[str, float]
    """Losses of the GAN; only if vectors were generated."""
    validation_ua: float
    """Validation UA of the best epoch."""
    epoch: int
    """Best epoch; 0 means that the original fusion is the best."""


def refit(
    experiment: Experiment,
    params: Params,
    model_state: Params,
    metadata: CheckpointMetadata,
    config: ConfigDict,
    workdir: str,
) -> RefitReport:
    """Refits the fusion of a trained model, and writes it as a `best` checkpoint to `workdir`.

    The encoders do not change. Generated vectors are used only for training; the best epoch is chosen by
    validation UA on real clips. The checkpoint works with `evaluate` and `export` like any other. Writes
    `metrics.jsonl` too (an older one is replaced) and, if tensorboardX is installed, `tensorboard/`.

    Args:
      experiment: experiment of the trained run.
      params: parameters of the trained run.
      model_state: model state of the trained run.
      metadata: metadata of its checkpoint, the dict that `store.read_model_metadata` returns.
      config: `name`, `seed`, `generate` (whether to generate vectors), `gan` (`noise`, `hidden`, `common`,
        `correlation`, `learning_rate`, `batch_size` and `steps` of `train_gan`), and `refit` (`epochs`,
        `batch_size`, `learning_rate`), as in configs/gan.py.
      workdir: output directory, without a run in it; created if it does not exist.

    Returns:
      A dict: `real` and `generated` (numbers of vector pairs); with `config.generate` also `losses`, a dict
      of the mean `generator` and `discriminator` loss of the GAN over its last 100 steps; and `validation_ua`
      (a fraction) and `epoch` of the best epoch; epoch 0 means that the original fusion is the best.

    Raises:
      ValueError: if the fusion does not take one pooled vector from each of two modalities or has a model
        state, if the run held out no validation clips, if the records differ from those of the run, lack a
        field of the batch or do not match prep.json, if `config.refit.batch_size` is below 1, if `workdir`
        contains a run or an invalid `metrics.jsonl` or is used by another process, or if no clip of the
        training or validation split has a label and both modalities.
      DamagedRecordError: if a record is damaged (a ValueError).
      OSError: if the checkpoint or `metrics.jsonl` cannot be written, or the file of the fold or a shard is
        missing or cannot be read.
      jax.errors.JaxRuntimeError: if a device fails or runs out of memory.
    """
    _check_fusion(experiment, model_state)
    if not experiment.config.data.hold_out:
        raise ValueError(
            f"{VALIDATION_TRAINED_ON_MESSAGE}; refitting needs validation clips that were held out of"
            " training to choose the best epoch; train with config.data.hold_out=True"
        )
    if config.refit.batch_size < 1:
        raise ValueError(f"config.refit.batch_size={config.refit.batch_size}: expected at least 1")
    check_same_data(experiment, metadata, ("classes", "settings", "spec", "training_clips_sha256"))
    with lock_directory(workdir):
        if os.path.isdir(os.path.join(workdir, "checkpoints")):
            raise ValueError(f"{workdir}: already contains a run; choose another --workdir")
        return _refit(experiment, params, model_state, metadata, config, workdir)


def _refit(
    experiment: Experiment,
    params: Params,
    model_state: Params,
    metadata: CheckpointMetadata,
    config: ConfigDict,
    workdir: str,
) -> RefitReport:
    key_gan, key_sample, key_fit = jax.random.split(jax.random.key(config.seed), 3)
    train_pairs, validation_pairs = (
        pool_vectors(experiment, params, model_state, split) for split in ("train", "validation")
    )
    report: RefitReport = {"real": len(train_pairs.label), "generated": 0}
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
    copied_fields = {k: v for k, v in metadata.items() if k in store.MODEL_METADATA_FIELDS}
    new_metadata = cast(
        CheckpointMetadata,
        copied_fields
        | {
            "config": {**metadata["config"], "name": config.name},
            "step": report["epoch"],
            "temperature": 1.0,
            "refit": config.to_dict() | report,
        },
    )
    store.save(workdir, "best", state, new_metadata)
    return report


def pool_vectors(experiment: Experiment, params: Params, model_state: Params, split: str) -> LabelledVectors:
    """Computes the pooled audio and video vectors of the clips of a split.

    Only clips with both modalities and a visible label are used; labels that training hides stay hidden.

    Args:
      experiment: experiment with the clips and the model.
      params: parameters of the model.
      model_state: model state of the model.
      split: `train`, `validation` or `test`.

    Returns:
      The vectors: `audio` [n d_a], `video` [n d_v] and `label` [n], NumPy arrays with one row per clip that
      is used, in the order of `experiment.clips[split]`.

    Raises:
      ValueError: if no clip of the split has both modalities and a visible label, if a record lacks a field
        of the batch, or if the records do not match prep.json.
      TypeError: if the split has no clips at all.
      DamagedRecordError: if a record is damaged (a ValueError).
      OSError: if a shard is missing or cannot be opened.
    """
    model, clips = experiment.model, experiment.clips[split]
    hidden_label_clips = clips[:0]
    if split == "train" and experiment.labels is not None:
        hidden_label_clips = clips[experiment.labels < 0]
    apply_model = jax.jit(lambda p, s, batch: model.apply(p, s, batch, train=False)[0])
    arrays_by_batch = []
    batch_size = experiment.config.train.eval_batch_size
    for batch in eval_batches(experiment.dataset, clips, experiment.choose_spec, batch_size=batch_size):
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
        raise ValueError(
            f"{experiment.dataset.path}: no labelled {split} clip has both audio and video; use a run on"
            " records that have such clips"
        )
    return pairs


def has_both_modalities(batch: Batch) -> Bool[Array, " b"]:
    """Returns bool [b]: True for clips whose masks have a step of audio (or audio features) and a face."""
    return audio_step_mask(batch).any(axis=1) & batch.face_mask.any(axis=1)


def _check_fusion(experiment: Experiment, model_state: Params) -> None:
    config = experiment.config.model.fusion
    fusion = FUSIONS[config.name]
    if len(fusion.modalities) != 2 or fusion.takes != "vectors" or count_trunks(config):
        raise ValueError(
            f"config.model.fusion.name of the run is fusion {config.name!r}: expected a fusion of one pooled"
            " vector from each of two modalities, such as concat; use another run"
        )
    if "fusion" in model_state:
        raise ValueError(
            f"config.model.fusion.name of the run is fusion {config.name!r}: expected a fusion without"
            " statistics that are updated in training, such as concat; use another run"
        )


def _train_fusion(
    model: Model,
    variables: tuple[Params, Params],
    train_pairs: LabelledVectors,
    validation_pairs: LabelledVectors,
    config: ConfigDict,
    key: PRNGKey,
    writer: MetricWriter,
) -> tuple[Params, float, int]:
    """Trains the fusion, and writes a row per epoch with `writer`.

    Args:
      model: model of the run.
      variables: (params, model_state) of the run.
      train_pairs: vectors to train on.
      validation_pairs: vectors by which the best epoch is chosen.
      config: `epochs`, `batch_size` and `learning_rate`.
      key: random key of the order of the rows and of dropout.
      writer: writes `epoch`, `train_loss` and `validation_ua` of each epoch.

    Returns:
      A tuple: all parameters with the best fusion, its validation UA (a fraction), and its epoch (0: the
      original fusion). If several have the same UA, the earliest is the best.

    Raises:
      OSError: if `writer` cannot write its files.
    """
    tx = optax.adam(config.learning_rate)
    params, model_state = variables
    train_epoch, compute_confusion = _make_jitted_functions(
        model, tx, config, max(len(train_pairs.label) // config.batch_size, 1)
    )
    data, validation_data = (
        VectorRows(*map(jnp.asarray, pairs)) for pairs in (train_pairs, validation_pairs)
    )

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


def _make_jitted_functions(
    model: Model, tx: optax.GradientTransformation, config: ConfigDict, steps_per_epoch: int
) -> tuple[TrainEpoch, ComputeConfusion]:
    """Returns two jitted functions, `train_epoch` and `compute_confusion`.

    `train_epoch(carry, key, variables, data) -> (carry, loss)` trains for one epoch of `steps_per_epoch`
    batches of `config.batch_size` rows; the carry is (fusion parameters, optimizer state), `variables` is
    (params, model_state), and the loss is the mean over the steps. `compute_confusion(params, model_state,
    data)` returns the confusion matrix [c c], rows true classes. `data` is a VectorRows: `audio` [n d_a],
    `video` [n d_v] and `label` [n] on the devices.
    """

    def loss_fn(
        fusion: Params, variables: tuple[Params, Params], key: PRNGKey, rows: VectorRows
    ) -> Float[Array, ""]:
        merged_params = variables[0] | {"fusion": fusion}
        logits = model.fuse(merged_params, variables[1], rows.audio, rows.video, train=True, key=key)
        total, weight = cross_entropy(logits, rows.label, jnp.ones(rows.label.shape))
        return total / weight

    @jax.jit
    def train_epoch(
        carry: Carry, key: PRNGKey, variables: tuple[Params, Params], data: VectorRows
    ) -> tuple[Carry, Float[Array, ""]]:
        def step(carry: Carry, inputs: tuple[PRNGKey, Int[Array, " b"]]) -> tuple[Carry, Float[Array, ""]]:
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
    def compute_confusion(params: Params, model_state: Params, data: VectorRows) -> Float[Array, "c c"]:
        logits = model.fuse(params, model_state, data.audio, data.video)
        return metrics.confusion_matrix(logits, data.label, jnp.ones(data.label.shape), logits.shape[-1])

    return train_epoch, compute_confusion
