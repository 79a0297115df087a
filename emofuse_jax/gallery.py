"""A few clips with what the network looked at, for the report."""

import jax
import numpy as np
from jaxtyping import Int

from emofuse_jax.data.pipeline import load_batch
from emofuse_jax.predictions import Predictions
from emofuse_jax.train.experiment import Experiment
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
    """One clip of the gallery."""
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
        "max_hz": audio["bins"] * audio["sample_rate"] / audio["dft"],
        "audio_attention": valid_columns(aux.get("audio_attention"), i, steps / batch.audio.shape[1]),
        "faces": batch.faces[i],
        "face_mask": batch.face_mask[i],
        "face_time": experiment.dataset.read(batch.clip[i]).face_time,
        "video_attention": aux["video_attention"][i] if "video_attention" in aux else None,
        "voice_weight": None if weights[0] is None else float(weights[0]),
        "face_weight": None if weights[1] is None else float(weights[1]),
    }


def valid_columns(attention: np.ndarray | None, i: int, share: float) -> np.ndarray | None:
    """The columns of a clip's attention that lie over its sound, not over its padding."""
    if attention is None or not share:
        return None
    return attention[i, : max(1, round(share * attention.shape[1]))]
