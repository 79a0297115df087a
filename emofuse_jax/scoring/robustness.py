"""How scores fall when sound gets noisy, faces are lost, or a stream is missing."""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from emofuse_jax.data.augment.audio_effects import noisy_spectrogram, replace_audio
from emofuse_jax.data.modality_mask import keep_only_modality
from emofuse_jax.data.spectrogram_units import units_per_neper
from emofuse_jax.scoring import metrics
from emofuse_jax.scoring.predict import Predictions, predict
from emofuse_jax.types import Batch, InputSpec

SNR_LEVELS_DB = (None, 20.0, 10.0, 5.0, 0.0, -5.0)
"""dB; None: no noise."""
LOST_FACE_FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Share of a clip's faces that are masked."""


def make_corruptions(
    modalities: tuple[str, ...], spec: InputSpec, recipe: str
) -> dict[tuple[str, object], Callable[[Batch], Batch]]:
    """What is done to a batch, by curve and place on it: `snr`, `lost` and `without`, as far as they
    apply.

    Noise and lost faces are drawn from the numbers of a batch's clips: every model meets the same.

    Args:
      modalities: those that the network has, of `audio` and `video`.
      spec: of the records; no noise where they hold no spectrogram.
      recipe: of the records, which says what their numbers mean.
    """
    corruptions: dict = {}
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


def _make_noise(snr_db: float, neper_unit: float) -> Callable[[Batch], Batch]:
    """White noise over the bins, `snr_db` dB below the clip's mean power (data/augment/audio_effects.py)."""

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


def _make_face_loss(fraction: float) -> Callable[[Batch], Batch]:
    """Each clip without `fraction` of the faces that it has, rounded to whole frames, drawn at random."""

    def corrupt(batch: Batch) -> Batch:
        sort_keys = jnp.where(
            batch.face_mask, jax.random.uniform(_batch_key(batch, 1), batch.face_mask.shape), 2.0
        )
        rank = jnp.argsort(jnp.argsort(sort_keys, axis=1), axis=1)  # b s, of those that are there the first
        lost_count = jnp.round(fraction * batch.face_mask.sum(1, keepdims=True))
        return dataclasses.replace(batch, face_mask=batch.face_mask & (rank >= lost_count))

    return corrupt


def _batch_key(batch: Batch, seed: int) -> jax.Array:
    """Of the clips of a batch."""
    return jax.random.fold_in(jax.random.key(seed), jnp.sum(batch.clip))


def predict_corrupted(
    eval_step: Callable, params, model_state, batches: Callable[[], Iterator[Batch]], corruptions: dict
) -> dict[tuple, Predictions]:
    """The answers under every condition (`make_corruptions`); `batches` reads the clips again for each."""
    return {
        condition: predict(eval_step, params, model_state, corrupt_batches(corrupt, batches()))
        for condition, corrupt in corruptions.items()
    }


def corrupt_batches(corrupt: Callable[[Batch], Batch], batches: Iterator[Batch]) -> Iterator[Batch]:
    """Batches after a change, laid out over the devices as before it."""
    jitted_corrupt = None
    for batch in batches:
        jitted_corrupt = jitted_corrupt or jax.jit(
            corrupt, out_shardings=jax.tree.map(lambda x: x.sharding, batch)
        )
        yield jitted_corrupt(batch)


def robustness_curves(
    predictions_by_run: list[dict[tuple, Predictions]], num_classes: int
) -> dict[str, list[dict]]:
    """UA and WA of all runs pooled: `{"snr": [{"at", "ua", "wa"}], "lost": [..], "without": [..]}`.

    The lists are those that `make_corruptions` has.
    """
    points_by_curve: dict[str, list[dict]] = {}
    for curve, severity in predictions_by_run[0]:
        matrix = sum(_confusion_matrix(run[curve, severity], num_classes) for run in predictions_by_run)
        scores = metrics.compute_scores(matrix)
        points_by_curve.setdefault(curve, []).append({"at": severity, "ua": scores["ua"], "wa": scores["wa"]})
    return points_by_curve


def _confusion_matrix(predictions: Predictions, num_classes: int) -> np.ndarray:
    weight = (predictions.labels >= 0).astype(np.float32)
    return np.asarray(
        metrics.confusion_matrix(predictions.probabilities, predictions.labels, weight, num_classes)
    )
