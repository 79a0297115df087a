"""A few clips with what the network looked at, for the report."""

import jax
import numpy as np
from jaxtyping import Int

from emofuse_jax.data.pipeline import load_batch
from emofuse_jax.data.spectrogram_units import frequency_axis
from emofuse_jax.reporting.figures import display_specs
from emofuse_jax.scoring import attention_weights
from emofuse_jax.scoring.predict import Predictions
from emofuse_jax.training.experiment import Experiment
from emofuse_jax.types import Batch, Outputs, Params


def choose_examples(predictions: Predictions, count: int) -> Int[np.ndarray, " n"]:
    """Rows to show: two thirds the surest right answers of different classes, one third surest mistakes."""
    confidence = predictions.probabilities.max(-1)
    guess = predictions.probabilities.argmax(-1)
    right = guess == predictions.labels
    order = np.argsort(-confidence, kind="stable")
    wrong = [row for row in order if not right[row] and predictions.labels[row] >= 0][: count // 3]
    good: dict[int, int] = {}
    for row in order:
        if right[row]:
            good.setdefault(int(guess[row]), int(row))
    return np.array([*good.values()][: count - len(wrong)] + wrong, np.int64)


def make_examples(
    experiment: Experiment, params: Params, model_state: Params, predictions: Predictions, count: int
) -> list[dict]:
    """Pictures' worth of data for each chosen clip, in the form `report.write_report` takes."""
    rows = choose_examples(predictions, count)
    if not len(rows):
        return []
    batch = load_batch(experiment.dataset, predictions.clips[rows], experiment.spec)
    apply = jax.jit(lambda p, m, x: experiment.model.apply(p, m, x, train=False)[0])
    outputs = jax.tree.map(np.asarray, apply(params, model_state, batch))
    return [
        example(experiment, batch, outputs, i, predictions.probabilities[row]) for i, row in enumerate(rows)
    ]


def example(experiment: Experiment, batch: Batch, outputs: Outputs, i: int, probabilities) -> dict:
    """One clip of the gallery; `aux` holds everything that the network tells about it."""
    names, aux = experiment.dataset.classes, outputs.aux
    audio = experiment.dataset.prep["settings"]["audio"]
    steps = int(batch.audio_mask[i].sum())
    weights = aux["modality_weights"][i] if "modality_weights" in aux else (None, None)
    return {
        "clip_id": experiment.dataset.clip_ids[batch.clip[i]],
        "label": names[batch.label[i]] if batch.label[i] >= 0 else "unlabelled",
        "prediction": names[int(probabilities.argmax())],
        "probabilities": dict(zip(names, map(float, probabilities), strict=True)),
        "spectrogram": batch.audio[i, :steps].astype(np.float32) if steps else None,
        "seconds": steps * audio["hop_ms"] / 1000,
        **frequency_axis(audio),
        "audio_attention": attention_weights.attended_columns(aux["audio_attention"][i])
        if "audio_attention" in aux
        else None,
        "faces": batch.faces[i] if batch.faces.size else None,
        **what_is_missing(batch),
        "face_mask": batch.face_mask[i],
        "face_time": experiment.dataset.read(batch.clip[i]).face_time,
        "video_attention": aux["video_attention"][i] if "video_attention" in aux else None,
        "voice_weight": None if weights[0] is None else float(weights[0]),
        "face_weight": None if weights[1] is None else float(weights[1]),
        "aux": {name: of_clip(name, array, i, len(batch.clip)) for name, array in aux.items()},
    }


def what_is_missing(batch: Batch) -> dict[str, str]:
    """Words in place of pictures where records hold only what frozen encoders made of sound and faces."""
    words = {"no_sound": "features alone: no spectrogram", "no_faces": "features alone: no crops"}
    held = {"no_sound": batch.audio.size, "no_faces": batch.faces.size}
    return {name: text for name, text in words.items() if not held[name]}


def of_clip(name: str, array: np.ndarray, i: int, rows: int) -> np.ndarray:
    """A clip's row of what the network tells; the whole of what is the model's."""
    per_clip = array.ndim and len(array) == rows and name not in display_specs.MODEL_LEVEL_NAMES
    return np.asarray(array[i]) if per_clip else array  # a number stays an array
