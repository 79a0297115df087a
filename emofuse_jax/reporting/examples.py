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


def choose_examples(predictions: Predictions, example_count: int) -> Int[np.ndarray, " n"]:
    """Rows to show: two thirds the surest right answers of different classes, one third surest mistakes."""
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
) -> list[dict]:
    """Pictures' worth of data for each chosen clip, in the form `run_report.write_report` takes."""
    rows = choose_examples(predictions, example_count)
    if not len(rows):
        return []
    batch = load_batch(experiment.dataset, predictions.clips[rows], experiment.spec)
    apply = jax.jit(lambda p, m, x: experiment.model.apply(p, m, x, train=False)[0])
    outputs = jax.tree.map(np.asarray, apply(params, model_state, batch))
    return [
        make_example(experiment, batch, outputs, i, predictions.probabilities[row])
        for i, row in enumerate(rows)
    ]


def make_example(experiment: Experiment, batch: Batch, outputs: Outputs, i: int, probabilities) -> dict:
    """One clip of the gallery; `aux` holds everything that the network tells about it."""
    class_names, aux = experiment.dataset.classes, outputs.aux
    audio_settings = experiment.dataset.prep["settings"]["audio"]
    audio_steps = int(batch.audio_mask[i].sum())
    modality_weights = aux["modality_weights"][i] if "modality_weights" in aux else (None, None)
    return {
        "clip_id": experiment.dataset.clip_ids[batch.clip[i]],
        "label": class_names[batch.label[i]] if batch.label[i] >= 0 else "unlabelled",
        "prediction": class_names[int(probabilities.argmax())],
        "probabilities": dict(zip(class_names, map(float, probabilities), strict=True)),
        "spectrogram": batch.audio[i, :audio_steps].astype(np.float32) if audio_steps else None,
        "seconds": audio_steps * audio_settings["hop_ms"] / 1000,
        **frequency_axis(audio_settings),
        "audio_attention": attention_weights.attended_columns(aux["audio_attention"][i])
        if "audio_attention" in aux
        else None,
        "faces": batch.faces[i] if batch.faces.size else None,
        **missing_input_messages(batch),
        "face_mask": batch.face_mask[i],
        "face_time": experiment.dataset.read(batch.clip[i]).face_time,
        "video_attention": aux["video_attention"][i] if "video_attention" in aux else None,
        "voice_weight": None if modality_weights[0] is None else float(modality_weights[0]),
        "face_weight": None if modality_weights[1] is None else float(modality_weights[1]),
        "aux": {name: select_clip(name, array, i, len(batch.clip)) for name, array in aux.items()},
    }


def missing_input_messages(batch: Batch) -> dict[str, str]:
    """Words in place of pictures where records hold only what frozen encoders made of sound and faces."""
    messages = {"no_sound": "features alone: no spectrogram", "no_faces": "features alone: no crops"}
    input_sizes = {"no_sound": batch.audio.size, "no_faces": batch.faces.size}
    return {name: message for name, message in messages.items() if not input_sizes[name]}


def select_clip(name: str, array: np.ndarray, i: int, batch_size: int) -> np.ndarray:
    """A clip's row of what the network tells; the whole of what is the model's."""
    is_per_clip = array.ndim and len(array) == batch_size and name not in display_specs.MODEL_LEVEL_NAMES
    return np.asarray(array[i]) if is_per_clip else array  # a number stays an array
