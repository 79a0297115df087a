"""How scores fall when sound gets noisy, faces are lost, or a stream is missing."""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from emofuse_jax.data.augment.audio_effects import noisy_spectrogram, replace_audio
from emofuse_jax.data.modality_mask import keep_modality
from emofuse_jax.data.spectrogram_units import units_per_neper
from emofuse_jax.scoring import metrics
from emofuse_jax.scoring.predict import Predictions, predict
from emofuse_jax.types import Batch, InputSpec

SNR = (None, 20.0, 10.0, 5.0, 0.0, -5.0)
"""dB; None: no noise."""
LOST = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Share of a clip's faces that are masked."""


def conditions(
    modalities: tuple[str, ...], spec: InputSpec, recipe: str
) -> dict[tuple[str, object], Callable[[Batch], Batch]]:
    """What is done to a batch, by curve and place on it: `snr`, `lost` and `without`, as far as they apply.

    Noise and lost faces are drawn from the numbers of a batch's clips: every model meets the same.

    Args:
      modalities: those that the network has, of `audio` and `video`.
      spec: of the records; no noise where they hold no spectrogram.
      recipe: of the records, which says what their numbers mean.
    """
    found: dict = {}
    if "audio" in modalities and spec.t:
        for snr in SNR:
            found["snr", snr] = (lambda b: b) if snr is None else _noisy(snr, units_per_neper(recipe))
    if "video" in modalities:
        found |= {("lost", share): _losing(share) for share in LOST}
    if len(modalities) == 2:
        found["without", "audio"] = lambda batch: keep_modality(batch, "video")
        found["without", "video"] = lambda batch: keep_modality(batch, "audio")
    return found


def _noisy(snr: float, unit: float) -> Callable[[Batch], Batch]:
    """White noise over the bins, `snr` dB below the clip's mean power (data/augment/audio_effects.py)."""

    def change(batch: Batch) -> Batch:
        rows = jnp.full(batch.label.shape, snr)
        audio = noisy_spectrogram(batch, _key(batch, 0), rows, jnp.zeros_like(rows), units_per_neper=unit)
        return replace_audio(batch, audio, batch.audio_mask)

    return change


def _losing(share: float) -> Callable[[Batch], Batch]:
    """Each clip without `share` of the faces that it has, rounded to whole frames, drawn at random."""

    def change(batch: Batch) -> Batch:
        order = jnp.where(batch.face_mask, jax.random.uniform(_key(batch, 1), batch.face_mask.shape), 2.0)
        rank = jnp.argsort(jnp.argsort(order, axis=1), axis=1)  # b s, of those that are there the first
        lost = jnp.round(share * batch.face_mask.sum(1, keepdims=True))
        return dataclasses.replace(batch, face_mask=batch.face_mask & (rank >= lost))

    return change


def _key(batch: Batch, number: int) -> jax.Array:
    """Of the clips of a batch."""
    return jax.random.fold_in(jax.random.key(number), jnp.sum(batch.clip))


def robustness(
    eval_step: Callable, params, model_state, batches: Callable[[], Iterator[Batch]], changes: dict
) -> dict[tuple, Predictions]:
    """The answers under every condition (`conditions`); `batches` reads the clips again for each."""
    return {
        place: predict(eval_step, params, model_state, changed(change, batches()))
        for place, change in changes.items()
    }


def changed(change: Callable[[Batch], Batch], batches: Iterator[Batch]) -> Iterator[Batch]:
    """Batches after a change, laid out over the devices as before it."""
    program = None
    for batch in batches:
        program = program or jax.jit(change, out_shardings=jax.tree.map(lambda x: x.sharding, batch))
        yield program(batch)


def curves(answers: list[dict[tuple, Predictions]], classes: int) -> dict[str, list[dict]]:
    """UA and WA of all runs pooled: `{"snr": [{"at", "ua", "wa"}], "lost": [..], "without": [..]}`.

    The lists are those that `conditions` has.
    """
    found: dict[str, list[dict]] = {}
    for curve, at in answers[0]:
        matrix = sum(_confusion(run[curve, at], classes) for run in answers)
        scores = metrics.scores(matrix)
        found.setdefault(curve, []).append({"at": at, "ua": scores["ua"], "wa": scores["wa"]})
    return found


def _confusion(answers: Predictions, classes: int) -> np.ndarray:
    known = (answers.labels >= 0).astype(np.float32)
    return np.asarray(metrics.confusion(answers.probabilities, answers.labels, known, classes))
