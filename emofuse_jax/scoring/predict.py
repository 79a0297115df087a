"""Predicts the clips of a dataset with a model, and scores the predictions."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import TypedDict

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from emofuse_jax.data.dataset import Dataset
from emofuse_jax.data.modality_mask import keep_only_modality
from emofuse_jax.data.pipeline import ChooseSpec, eval_batches
from emofuse_jax.parallel.mesh import put_batch, to_host
from emofuse_jax.scoring import metrics
from emofuse_jax.scoring.result_types import INTERVAL_FIELDS, ScoreFields, SpeakerScores
from emofuse_jax.types import Batch, Params


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predictions of a model: one row for each of n clips, in the order of the clips; c classes, m levels."""

    clips: Int[np.ndarray, " n"]
    """Record index of each clip."""
    labels: Int[np.ndarray, " n"]
    """True classes; -1 for clips without a label."""
    speakers: Int[np.ndarray, " n"]
    """Index of each speaker in `Dataset.speakers`."""
    probabilities: Float[np.ndarray, "n c"]
    loss: float
    """Mean cross-entropy over the labelled clips; 0 if there are none."""
    levels: Float[np.ndarray, "n m c"] | None = None
    """Probabilities of each level of the fusion, 0 where a clip lacks the level; None without levels."""


class EvalOutputs(TypedDict):
    """Outputs of a scoring step for a batch."""

    probabilities: Float[Array, "b c"]
    levels: Float[Array, "b m c"] | None
    """Probabilities of each level of the fusion, 0 where a clip lacks the level; None without levels."""
    loss: Float[Array, ""]
    """Sum of the cross-entropies of the labelled clips."""
    weight: Float[Array, ""]
    """Sum of the weights of the labelled clips."""


EvalStep = Callable[[Params, Params, Batch], EvalOutputs]
"""Predicts a batch from parameters and model state (`make_eval_step` in training/step.py)."""


class _BatchRows(TypedDict):
    """The fields of `Predictions` that have a row per clip."""

    clips: np.ndarray
    labels: np.ndarray
    speakers: np.ndarray
    probabilities: np.ndarray
    levels: np.ndarray | None


def sharded_batches(
    dataset: Dataset, clips: Int[np.ndarray, " n"], choose_spec: ChooseSpec, mesh: Mesh, *, batch_size: int
) -> Iterator[Batch]:
    """Yields batches of all clips, once and in order, sharded over the mesh; the last one is padded.

    A batch has the spectrogram `audio` [b t f], `faces` uint8 [b s h w 3], the masks `audio_mask` [b t] and
    `face_mask` [b s], True at valid positions; the features of frozen encoders `audio_features` [b u d] with
    `audio_features_mask` [b u], and `face_features` [b s d], valid where `face_mask` is (None if the records
    have none); and `label`, `label_mask`, `weight`, `speaker` and `clip` (record index), [b] each. A padded
    row has weight 0, and label, speaker and clip -1.

    Args:
      dataset: the records, as `open_dataset` returns them.
      clips: record indices.
      choose_spec: maps the record indices of a batch (-1: padded row) to its `InputSpec`: the sizes t, f, s,
        h, w, the number of classes and the sizes of the features. Audio longer than t is cropped to its
        middle.
      mesh: devices; the rows of a batch are split over its axis `data`.
      batch_size: number of rows of a batch, over all processes and devices; at least 1.

    Raises:
      DamagedRecordError: if a record is damaged (a ValueError).
      ValueError: if a record lacks a field that the batch needs or does not have its sizes, if its speaker is
        not in prep.json, if the shards do not match prep.json and manifest.csv (their number, their names or
        the number of records), or if the devices cannot share `batch_size` rows equally.
      OSError: if a shard is missing or cannot be opened.
    """
    process_index_and_count = (jax.process_index(), jax.process_count())
    for batch in eval_batches(
        dataset, clips, choose_spec, batch_size=batch_size, process=process_index_and_count
    ):
        yield put_batch(batch, mesh)


def predict(
    eval_step: EvalStep, params: Params, model_state: Params, batches: Iterable[Batch], modality: str = "both"
) -> Predictions:
    """Predicts the clips of batches with a model, and collects the predictions without padded rows.

    Args:
      eval_step: scoring step `(params, model_state, batch) -> outputs`, as `make_eval_step` returns it. The
        outputs are a dict: `probabilities` [b c], `levels` [b m c] or None, `loss`, the sum of the
        cross-entropies of the labelled clips, and `weight`, the sum of their weights.
      params: parameters of the model.
      model_state: running statistics of the model, and the statistics of its input.
      batches: at least one batch, already on the devices.
      modality: `audio` masks the faces, `video` masks the audio, `both` masks nothing.

    Returns:
      The predictions of all n clips, the same on every process, as NumPy arrays with one row per clip:
      `clips` (record indices), `labels` (true classes, -1 without a label), `speakers` (indices into
      `Dataset.speakers`) and `probabilities` [n c] of c classes. Also `levels` [n m c], the probabilities of
      each of m levels of the fusion (a stream or a part of the clip that has a separate classifier), 0 if a
      clip lacks the level, or None if the fusion has no levels; and `loss`, the mean cross-entropy of the
      labelled clips, 0 if there are none.

    Raises:
      ValueError: if `modality` is unknown, there are no batches, or a batch does not fit the model.
      DamagedRecordError, ValueError, OSError: if `batches` reads records from disk and a record is damaged or
        lacks a field, or a file is missing or cannot be read.
    """
    batch_rows: list[_BatchRows] = []
    loss_sums = np.zeros(2)
    for batch in batches:
        outputs = eval_step(params, model_state, keep_only_modality(batch, modality))
        row_outputs = {"probabilities": outputs["probabilities"], "levels": outputs["levels"]}
        rows: _BatchRows = to_host(
            {"clips": batch.clip, "labels": batch.label, "speakers": batch.speaker, **row_outputs}
        )
        batch_rows.append(_select_rows(rows, rows["clips"] >= 0))
        loss_sums += [float(outputs["loss"]), float(outputs["weight"])]
    if not batch_rows:
        raise ValueError(
            "batches: there are none, expected at least one; choose another split or fold, one that has clips"
        )
    fields: _BatchRows = jax.tree.map(lambda *pieces: np.concatenate(pieces), *batch_rows)
    return Predictions(**fields, loss=float(loss_sums[0] / max(loss_sums[1], 1.0)))


def _select_rows(rows: _BatchRows, row_mask: Bool[np.ndarray, " n"]) -> _BatchRows:
    return jax.tree.map(lambda field: field[row_mask], rows)


def score_predictions(predictions: Predictions, *, with_intervals: bool = True, seed: int = 0) -> ScoreFields:
    """Computes the scores of the labelled clips.

    Args:
      predictions: predictions of a model: for each clip a row of `probabilities`, `labels` (true class; clips
        with -1 are left out) and `speakers` (index of the speaker).
      with_intervals: also compute 95 % confidence intervals over speakers.
      seed: seed of the bootstrap resamples.

    Returns:
      A dict: `ua` (mean recall), `wa` (accuracy), `wf1` (F1 weighted by class size) and `mf1` (mean F1) as
      fractions; `recall`, a list of fractions with one entry per class (None for a class without clips);
      `confusion`, the numbers of clips as nested lists of ints, rows true classes, columns predicted classes;
      and with intervals also `ua_interval`, `wa_interval`, `wf1_interval` and `mf1_interval`, as lists
      `[low, high]`, which are [0, 1] if there is only one speaker.

    Raises:
      ValueError: if no clip has a label, or intervals of several speakers are computed and `seed` is
        negative.
      IndexError: if a label is not the index of a class.
    """
    labelled = predictions.labels >= 0
    labels, speakers = predictions.labels[labelled], predictions.speakers[labelled]
    predicted = predictions.probabilities[labelled].argmax(-1)
    num_classes = predictions.probabilities.shape[-1]
    # counted on the host, because replicas are scored after every epoch
    confusion = metrics.speaker_confusion_matrices(predicted, labels, speakers, num_classes).sum(0)
    scores = metrics.compute_scores(confusion)
    scores["confusion"] = confusion.astype(int).tolist()
    if with_intervals:
        metric_intervals = metrics.speaker_intervals(predicted, labels, speakers, num_classes, seed=seed)
        for name, (low, high) in metric_intervals.items():
            scores[INTERVAL_FIELDS[name]] = [low, high]
    return scores


def score_speakers(predictions: Predictions, speaker_names: tuple[str, ...]) -> dict[str, SpeakerScores]:
    """Computes the scores of each speaker.

    Args:
      predictions: predictions of a model: for each clip a row of `probabilities`, `labels` (true class; clips
        with -1 are left out) and `speakers` (index of the speaker in `speaker_names`).
      speaker_names: names of the speakers.

    Returns:
      `{speaker name: {"ua": ..., "wa": ..., "clips": ...}}`: mean recall and accuracy as fractions, and the
      number of labelled clips. Speakers without a labelled clip are left out; the dict is empty if no clip
      has a label.

    Raises:
      IndexError: if a label is not the index of a class, or a speaker index is not below the number of names.
    """
    labels, speakers = predictions.labels, predictions.speakers
    labelled_speakers = np.unique(speakers[labels >= 0])
    if not len(labelled_speakers):
        return {}
    predicted, num_classes = predictions.probabilities.argmax(-1), predictions.probabilities.shape[-1]
    matrices = metrics.speaker_confusion_matrices(predicted, labels, speakers, num_classes)
    scores_by_speaker: dict[str, SpeakerScores] = {}
    for speaker, matrix in zip(labelled_speakers, matrices, strict=True):
        scores = metrics.compute_scores(matrix)
        scores_by_speaker[speaker_names[speaker]] = {
            "ua": scores["ua"],
            "wa": scores["wa"],
            "clips": int(matrix.sum()),
        }
    return scores_by_speaker
