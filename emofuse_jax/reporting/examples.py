"""Chooses clips for the gallery of a report and collects their inputs, predictions and attention."""

from typing import TypedDict

import jax
import numpy as np
from jaxtyping import Float, Int

from emofuse_jax.data.pipeline import load_batch
from emofuse_jax.data.spectrogram_units import frequency_axis
from emofuse_jax.reporting.figures import display_specs
from emofuse_jax.reporting.gallery_clip import GalleryClip
from emofuse_jax.scoring import attention_weights
from emofuse_jax.scoring.predict import Predictions
from emofuse_jax.training.experiment import Experiment
from emofuse_jax.types import Batch, Params


def choose_examples(predictions: Predictions, example_count: int) -> Int[np.ndarray, " n"]:
    """Chooses clips to show; returns at most `example_count` row indices of `predictions`, as int64.

    First come the most confident correct predictions, one for each class, then the most confident wrong ones,
    at most `example_count // 3`; both begin with the highest confidence. If there are too many, the least
    confident correct ones are left out. Clips without a label are never chosen, so that the result may be
    empty.

    Of `predictions`, only `probabilities` (a row for each clip, a column for each class) and `labels` (index
    of the true class of each clip, -1 without a label) are used.
    """
    confidence = predictions.probabilities.max(-1)
    predicted = predictions.probabilities.argmax(-1)
    is_correct = predicted == predictions.labels
    rows_by_confidence = np.argsort(-confidence, kind="stable")
    wrong_rows = [row for row in rows_by_confidence if not is_correct[row] and predictions.labels[row] >= 0][
        : example_count // 3
    ]
    surest_row_by_class: dict[int, int] = {}
    for row in rows_by_confidence:
        if is_correct[row]:
            surest_row_by_class.setdefault(int(predicted[row]), int(row))
    return np.array([*surest_row_by_class.values()][: example_count - len(wrong_rows)] + wrong_rows, np.int64)


def make_examples(
    experiment: Experiment, params: Params, model_state: Params, predictions: Predictions, example_count: int
) -> list[GalleryClip]:
    """Chooses clips and applies the model to them, to collect attention and other intermediate outputs.

    The most confident correct prediction of each class comes first, then the most confident wrong ones.

    Args:
      experiment: the experiment, as `open_experiment` returns it; its dataset, model and input shape are
        used.
      params: parameters of the model.
      model_state: running statistics of the model, and the statistics of its input.
      predictions: predictions from which the clips are chosen: for each clip `clips` (its record index),
        `labels` (true class, -1 without a label) and a row of `probabilities`.
      example_count: maximum number of clips.

    Returns:
      A dict for each chosen clip; an empty list if no clip was chosen. Its fields are `clip_id`; `label` and
      `prediction`, the names of the true and the predicted class; `probabilities` by class; `spectrogram`
      float32 [t f] without padding, its length `seconds`, `max_hz` (upper end of its frequency axis) and
      `bin_hz` [f] (centres of its mel filters in Hz, None for evenly spaced bins); `faces` uint8 [s h w 3],
      `face_mask` bool [s] (True: the frame has a face) and `face_time` [s] in seconds; `audio_attention` [u]
      or [u g] over u steps of the audio and g bands of frequency, and `video_attention` [l], each entry for
      s / l consecutive frames: weights as the model returns them; `voice_weight` and `face_weight`, the
      weights of audio and video from 0 to 1; and `aux`, all intermediate outputs for this clip by name.

      `spectrogram`, `faces`, the attention and the weights are None if the clip, the records or the model
      have none. If the records store only features, `no_sound` and `no_faces` are texts that say so.

    Raises:
      DamagedRecordError: if a record of a chosen clip is damaged (a ValueError).
      ValueError: if a record lacks a field that the model needs, if its speaker is not in prep.json, if the
        shards do not match prep.json and manifest.csv (their number, their names or the number of records),
        or if the records do not fit the model.
      KeyError: if the audio settings in prep.json lack a field.
      OSError: if a shard is missing or cannot be opened.
    """
    rows = choose_examples(predictions, example_count)
    if not len(rows):
        return []
    batch = load_batch(experiment.dataset, predictions.clips[rows], experiment.spec)
    apply = jax.jit(lambda p, m, x: experiment.model.apply(p, m, x, train=False)[0])
    outputs = apply(params, model_state, batch)
    aux = {name: np.asarray(array) for name, array in outputs.aux.items()}
    return [
        make_example(experiment, batch, aux, i, predictions.probabilities[row]) for i, row in enumerate(rows)
    ]


def make_example(
    experiment: Experiment,
    batch: Batch,
    aux: dict[str, np.ndarray],
    i: int,
    probabilities: Float[np.ndarray, " c"],
) -> GalleryClip:
    """Returns the data of one clip of the gallery: names, inputs, probabilities and attention.

    Args:
      experiment: the experiment, as `open_experiment` returns it; its dataset is used.
      batch: inputs of all b clips of the gallery.
      aux: intermediate outputs of the model for `batch`, by name. Optional are `audio_attention` [b u] or
        [b u g], `video_attention` [b l] and `modality_weights` [b 2] (audio, video).
      i: row of the clip in `batch`.
      probabilities: probability of each class for the clip.

    Returns:
      A dict: `clip_id`; `label` and `prediction`, the names of the true class ("unlabelled" without one) and
      of the most probable class; `probabilities` by class; `spectrogram` float32 [t f] without padding, its
      length `seconds`, `max_hz` (upper end of its frequency axis) and `bin_hz` [f] (centres of its mel
      filters in Hz, None for evenly spaced bins); `faces` uint8 [s h w 3], `face_mask` bool [s] (True: the
      frame has a face) and `face_time` [s] in seconds; `audio_attention` [u] or [u g] without padding, over u
      steps of the audio and g bands of frequency, and `video_attention` [l], each entry for s / l consecutive
      frames: weights as the model returns them; `voice_weight` and `face_weight`, the weights of audio and
      video from 0 to 1; and `aux`, the outputs for this clip by name.

      `spectrogram`, `faces`, the attention and the weights are None if the batch or the model does not have
      them. If the records store only features, `no_sound` and `no_faces` have a message to show instead of a
      picture.

    Raises:
      DamagedRecordError: if the record of the clip is damaged (a ValueError).
      ValueError: if `probabilities` does not have one entry for each class, or the shards do not match
        prep.json and manifest.csv (their number, their names or the number of records).
      KeyError: if the audio settings in prep.json lack a field.
      OSError: if the shard with the record is missing or cannot be opened.
    """
    class_names, clip, label = experiment.dataset.classes, int(batch.clip[i]), int(batch.label[i])
    audio_settings = experiment.dataset.prep["settings"]["audio"]
    audio_steps = int(batch.audio_mask[i].sum())
    modality_weights = aux["modality_weights"][i] if "modality_weights" in aux else (None, None)
    return {
        "clip_id": experiment.dataset.clip_ids[clip],
        "label": class_names[label] if label >= 0 else "unlabelled",
        "prediction": class_names[int(probabilities.argmax())],
        "probabilities": dict(zip(class_names, map(float, probabilities), strict=True)),
        "spectrogram": np.asarray(batch.audio[i, :audio_steps], np.float32) if audio_steps else None,
        "seconds": audio_steps * audio_settings["hop_ms"] / 1000,
        **frequency_axis(audio_settings),
        "audio_attention": attention_weights.attended_columns(aux["audio_attention"][i])
        if "audio_attention" in aux
        else None,
        "faces": np.asarray(batch.faces[i]) if batch.faces.size else None,
        **missing_input_messages(batch),
        "face_mask": np.asarray(batch.face_mask[i]),
        "face_time": experiment.dataset.read(clip).face_time,
        "video_attention": aux["video_attention"][i] if "video_attention" in aux else None,
        "voice_weight": None if modality_weights[0] is None else float(modality_weights[0]),
        "face_weight": None if modality_weights[1] is None else float(modality_weights[1]),
        "aux": {name: select_clip(name, array, i, len(batch.clip)) for name, array in aux.items()},
    }


class MissingInputs(TypedDict, total=False):
    """Messages shown in place of a picture; absent for an input that the batch contains."""

    no_sound: str
    no_faces: str


def missing_input_messages(batch: Batch) -> MissingInputs:
    """Returns the messages to show in place of pictures if the records store only encoder features.

    The dict has the key `no_sound` if the batch has no spectrograms and `no_faces` if it has no face crops;
    the values are short English texts. It is empty if the batch has both.
    """
    messages: MissingInputs = {}
    if not batch.audio.size:
        messages["no_sound"] = "records store features only: no spectrogram"
    if not batch.faces.size:
        messages["no_faces"] = "records store features only: no face crops"
    return messages


def select_clip(name: str, array: np.ndarray, i: int, batch_size: int) -> np.ndarray:
    """Returns row `i` of an output that has one row per clip; other outputs are returned unchanged.

    An output has one row per clip if its first axis has `batch_size` entries. Outputs whose `name` is in
    `display_specs.MODEL_LEVEL_NAMES` belong to the model and are never indexed. A scalar row is returned as
    an array without axes.
    """
    is_per_clip = array.ndim and len(array) == batch_size and name not in display_specs.MODEL_LEVEL_NAMES
    return np.asarray(array[i]) if is_per_clip else array  # asarray: a scalar becomes a 0-d array
