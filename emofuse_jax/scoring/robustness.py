"""Measures how scores fall with audio noise, lost faces, or a missing modality."""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from emofuse_jax.data.augment.audio_effects import noisy_spectrogram, replace_audio
from emofuse_jax.data.modality_mask import keep_only_modality
from emofuse_jax.data.spectrogram_units import units_per_neper
from emofuse_jax.scoring import metrics
from emofuse_jax.scoring.predict import EvalStep, Predictions, predict
from emofuse_jax.scoring.result_types import RobustnessCurves
from emofuse_jax.types import Batch, InputSpec, Params

Corruption = Callable[[Batch], Batch]
"""Returns a corrupted copy of a batch."""
Condition = tuple[str, float | str | None]
"""A curve (`snr`, `lost` or `without`) and the severity of a corruption."""

SNR_LEVELS_DB = (None, 20.0, 10.0, 5.0, 0.0, -5.0)
"""Signal-to-noise ratios in dB; None means no noise."""
LOST_FACE_FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Fractions of the faces of a clip that are masked."""


def make_corruptions(
    modalities: tuple[str, ...], spec: InputSpec, recipe: str
) -> dict[Condition, Corruption]:
    """Makes the functions that corrupt a batch, for the curves that apply to the model and its records.

    Random noise and lost faces depend only on the indices of the clips in a batch, so that every model sees
    the same corruptions.

    Args:
      modalities: modalities of the network, of `audio` and `video`.
      spec: input shape of the records; there are no noise curves if they have no spectrogram (`spec.t` is 0).
      recipe: name of the preprocessing recipe of the records, such as `fbp`; defines the unit of the
        spectrogram.

    Returns:
      A function for each `(curve, severity)`, which returns a changed copy of a batch. `("snr", dB)` adds
      white noise to `audio` at a signal-to-noise ratio of 20, 10, 5, 0 or -5 dB, or none if dB is None.
      `("lost", fraction)` sets `face_mask` to False for a fraction of 0, 0.25, 0.5, 0.75 or 1 of the faces of
      each clip. With two modalities, `("without", modality)` sets the masks of `audio` or `video` to False.
      The dict is empty if no curve applies.

    Raises:
      ValueError: if there are noise curves and the recipe is unknown.
    """
    corruptions: dict[Condition, Corruption] = {}
    if "audio" in modalities and spec.t:
        for snr_db in SNR_LEVELS_DB:
            corruptions["snr", snr_db] = (
                (lambda b: b) if snr_db is None else _make_noise(snr_db, units_per_neper(recipe))
            )
    if "video" in modalities:
        corruptions |= {("lost", fraction): _make_face_loss(fraction) for fraction in LOST_FACE_FRACTIONS}
    if len(modalities) == 2:
        corruptions["without", "audio"] = lambda batch: keep_only_modality(batch, "video")
        corruptions["without", "video"] = lambda batch: keep_only_modality(batch, "audio")
    return corruptions


def _make_noise(snr_db: float, neper_unit: float) -> Corruption:
    """Returns a function that adds white noise to the spectrograms of a batch and returns the new batch.

    The noise of a clip is `snr_db` dB below its mean power over all valid steps and bins; padding stays 0.
    Its random numbers depend only on the clip indices of the batch. `neper_unit` is one neper in the unit of
    the spectrogram: 1 for log magnitudes, 2 for log energies, 8.69 for decibels.
    """

    def corrupt(batch: Batch) -> Batch:
        snr_per_clip = jnp.full(batch.label.shape, snr_db)
        audio = noisy_spectrogram(
            batch,
            _batch_key(batch, 0),
            snr_per_clip,
            jnp.zeros_like(snr_per_clip),
            units_per_neper=neper_unit,
        )
        return replace_audio(batch, audio, batch.audio_mask)

    return corrupt


def _make_face_loss(fraction: float) -> Corruption:
    """Returns a function that masks a random `fraction` of the valid faces of each clip of a batch.

    The function returns a copy of the batch whose `face_mask` is False at these faces too. Their number in a
    clip is rounded; which ones they are depends only on the clip indices and the face masks of the batch.
    """

    def corrupt(batch: Batch) -> Batch:
        sort_keys = jnp.where(
            batch.face_mask, jax.random.uniform(_batch_key(batch, 1), batch.face_mask.shape), 2.0
        )
        rank = jnp.argsort(jnp.argsort(sort_keys, axis=1), axis=1)  # [b s]; valid faces come first
        lost_count = jnp.round(fraction * batch.face_mask.sum(1, keepdims=True))
        return dataclasses.replace(batch, face_mask=batch.face_mask & (rank >= lost_count))

    return corrupt


def _batch_key(batch: Batch, seed: int) -> jax.Array:
    """Returns a random key that depends only on `seed` and on the sum of the clip indices of the batch."""
    return jax.random.fold_in(jax.random.key(seed), jnp.sum(batch.clip))


def predict_corrupted(
    eval_step: EvalStep,
    params: Params,
    model_state: Params,
    batches: Callable[[], Iterator[Batch]],
    corruptions: dict[Condition, Corruption],
) -> dict[Condition, Predictions]:
    """Predicts the clips under every condition, that is, with the batches changed by each corruption.

    Args:
      eval_step: scoring step `(params, model_state, batch) -> outputs`, as `make_eval_step` returns it. The
        outputs are a dict: `probabilities` [b c], `levels` [b m c] or None, `loss`, the sum of the
        cross-entropies of the labelled clips, and `weight`, the sum of their weights.
      params: parameters of the model.
      model_state: running statistics of the model, and the statistics of its input.
      batches: returns a new iterator over at least one batch on the devices; called once per condition.
      corruptions: the function `Batch -> Batch` of each condition, as `make_corruptions` returns them.

    Returns:
      The predictions by condition, a tuple `(curve, severity)` such as `("snr", 10.0)`: for each, one row per
      clip of `clips`, `labels`, `speakers`, `probabilities` and `levels`, and the mean `loss`.

    Raises:
      ValueError: if an iterator has no batches, or a batch does not fit the model.
      DamagedRecordError, ValueError, OSError: if `batches` reads records from disk and a record is damaged or
        lacks a field, or a file is missing or cannot be read.
    """
    return {
        condition: predict(eval_step, params, model_state, corrupt_batches(corrupt, batches()))
        for condition, corrupt in corruptions.items()
    }


def corrupt_batches(corrupt: Corruption, batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yields each batch after the function `corrupt` has changed it, with the same sharding as before.

    `corrupt` is compiled with `jax.jit`; the arrays of the batches must be JAX arrays. Errors of `batches`,
    for example of a damaged record, pass through.
    """
    jitted_corrupt = None
    for batch in batches:
        jitted_corrupt = jitted_corrupt or jax.jit(
            corrupt, out_shardings=jax.tree.map(lambda x: x.sharding, batch)
        )
        yield jitted_corrupt(batch)


def robustness_curves(
    predictions_by_run: list[dict[Condition, Predictions]], num_classes: int
) -> RobustnessCurves:
    """Computes UA and WA under each condition, over the pooled predictions of all runs.

    Args:
      predictions_by_run: for each run, at least one, the predictions by condition `(curve, severity)`.
      num_classes: number of classes.

    Returns:
      A dict with a list for each curve that was measured: `snr`, `lost` and `without`. Each list has one dict
      per severity, in the order of the first run: `at` (`snr`: dB, None for no noise; `lost`: fraction of the
      faces that are masked; `without`: the missing modality, `audio` or `video`), `ua` (mean recall) and `wa`
      (accuracy) as fractions.

    Raises:
      ValueError: if no clip has a label.
      IndexError: if there are no runs.
      KeyError: if a run lacks a condition of the first run.
    """
    points_by_curve: RobustnessCurves = {}
    for curve, severity in predictions_by_run[0]:
        matrices = [_confusion_matrix(run[curve, severity], num_classes) for run in predictions_by_run]
        scores = metrics.compute_scores(np.sum(matrices, axis=0))
        points_by_curve.setdefault(curve, []).append({"at": severity, "ua": scores["ua"], "wa": scores["wa"]})
    return points_by_curve


def _confusion_matrix(predictions: Predictions, num_classes: int) -> np.ndarray:
    weight = (predictions.labels >= 0).astype(np.float32)
    return np.asarray(
        metrics.confusion_matrix(predictions.probabilities, predictions.labels, weight, num_classes)
    )
