"""Scores a trained model on a part of its fold."""

import datetime
import math
import os
from collections.abc import Callable

import ml_collections

from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.models.registry import FUSIONS
from emofuse_jax.parallel.mesh import make_mesh, replicated
from emofuse_jax.reporting import cards
from emofuse_jax.reporting.examples import make_examples
from emofuse_jax.scoring.predict import (
    Predictions,
    predict,
    score_predictions,
    score_speakers,
    sharded_batches,
)
from emofuse_jax.scoring.result_labels import corpus_marks
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.checkpoint.load import load_trained_model
from emofuse_jax.training.checkpoint.saved_config import saved_config
from emofuse_jax.training.experiment import (
    Experiment,
    check_same_data,
    check_test_speakers_unseen,
    open_experiment,
)
from emofuse_jax.training.folds import VALIDATION_TRAINED_ON_MESSAGE
from emofuse_jax.training.step import jit_eval_step
from emofuse_jax.types import Params
from emofuse_jax.utils.files import write_json

ALL_DEVICES_MESH_CONFIG = ml_collections.ConfigDict({"data": -1})


def evaluate_workdir(
    workdir: str,
    *,
    split: str = "test",
    checkpoint_kind: str = "best",
    data_path: str = "",
    example_count: int = 6,
) -> tuple[dict, list[dict]]:
    """Scores a trained model on one part of its fold: both streams, and each alone from the same parameters.

    Args:
      workdir: of `emofuse train`.
      split: train, validation or test.
      checkpoint_kind: checkpoint, best or last.
      data_path: where the records lie now, if they moved.
      example_count: clips in the gallery.

    Returns:
      The results (their form: `run_report.write_report`) and the gallery.
    """
    experiment, params, model_state, metadata = load_trained_experiment(workdir, checkpoint_kind, data_path)
    if split == "test":
        check_test_speakers_unseen(experiment, metadata)
    predict_split = make_predictor(experiment, split)
    modality_names = evaluated_modalities(experiment.config.model.fusion.name)
    predictions = {modality: predict_split(params, model_state, modality) for modality in modality_names}
    main_predictions = predictions[modality_names[0]]
    results = make_evaluation_results(experiment, metadata, split, predictions)
    return results, make_examples(experiment, params, model_state, main_predictions, example_count)


def make_predictor(experiment: Experiment, split: str) -> Callable[[Params, Params, str], Predictions]:
    """`(params, model_state, modality)` to the answers for a part's clips, compiled once.

    Raises ValueError where the part is empty.
    """
    clips = experiment.clips[split]
    if not len(clips):
        reason = (
            f" ({VALIDATION_TRAINED_ON_MESSAGE})"
            if split == "validation" and not experiment.config.data.hold_out
            else ""
        )
        raise ValueError(
            f"{experiment.dataset.path}: protocol {experiment.protocol}: {split} is empty{reason}"
        )
    mesh = make_mesh(ALL_DEVICES_MESH_CONFIG)
    batch_size = math.lcm(experiment.config.train.eval_batch_size, mesh.shape["data"])
    eval_step = jit_eval_step(experiment.model, mesh)

    def predict_split(params: Params, model_state: Params, modality: str) -> Predictions:
        batches = sharded_batches(experiment.dataset, clips, experiment.shape, mesh, batch_size=batch_size)
        return predict(eval_step, params, model_state, batches, modality)

    return predict_split


def score_with_changed_params(
    change_params: Callable[[Params], Params], workdir: str, checkpoint_kind: str, data_path: str
) -> tuple[dict, dict]:
    """Scores of all streams on the validation clips, with the parameters as they are and altered."""
    experiment, params, model_state, _ = load_trained_experiment(workdir, checkpoint_kind, data_path)
    predict_split, main_modality = (
        make_predictor(experiment, "validation"),
        evaluated_modalities(experiment.config.model.fusion.name)[0],
    )
    before, after = (predict_split(p, model_state, main_modality) for p in (params, change_params(params)))
    return score_predictions(before, with_intervals=False), score_predictions(after, with_intervals=False)


def write_results(workdir: str, results: dict, checkpoint_kind: str = "best") -> str:
    """Writes `results.json` and both cards to `evaluation/<part>` of a workdir; gives that directory."""
    directory = os.path.join(workdir, "evaluation", results["split"])
    card = cards.make_checkpoint_card(store.read_metadata(workdir, checkpoint_kind), results)
    write_json(os.path.join(directory, "results.json"), results)
    cards.write_card(directory, cards.MODEL_CARD, card)
    cards.write_card(directory, cards.DATA_CARD, cards.make_data_card(open_dataset(results["dataset"])))
    return directory


def make_evaluation_results(
    experiment: Experiment, metadata: dict, split: str, predictions: dict[str, Predictions]
) -> dict:
    """The result file of a part: scores of every modality, and the first one's answers for every clip."""
    main_predictions = next(iter(predictions.values()))
    return {
        "config": experiment.config.name,
        "corpus": experiment.dataset.prep["corpus"],
        "dataset": experiment.dataset.path,
        "date": datetime.date.today().isoformat(),
        "protocol": experiment.protocol,
        "fold": experiment.config.data.fold,
        "split": split,
        "leaky": bool(metadata["leaks"]),
        "leaks": metadata["leaks"],
        "checkpoint_step": metadata["step"],
        "temperature": metadata["temperature"],
        "classes": list(experiment.dataset.classes),
        "clips": [experiment.dataset.clip_ids[clip] for clip in main_predictions.clips],
        "labels": main_predictions.labels.tolist(),
        "speakers": [experiment.dataset.speakers[speaker] for speaker in main_predictions.speakers],
        "probabilities": main_predictions.probabilities.tolist(),
        "modalities": {
            name: score_predictions(modality_predictions)
            for name, modality_predictions in predictions.items()
        },
        "per_speaker": score_speakers(main_predictions, experiment.dataset.speakers),
        "versions": metadata["versions"],
    }


def evaluated_modalities(fusion: str) -> tuple[str, ...]:
    """What a network can be scored on: its one stream, or both and each alone."""
    fusion_modalities = FUSIONS[fusion].modalities
    return fusion_modalities if len(fusion_modalities) == 1 else ("both", *fusion_modalities)


def load_trained_experiment(
    workdir: str, checkpoint_kind: str, data_path: str
) -> tuple[Experiment, Params, Params, dict]:
    """The experiment of a workdir with its parameters, model state and metadata."""
    _, params, model_state, metadata = load_trained_model(
        workdir, checkpoint_kind, replicated(make_mesh(ALL_DEVICES_MESH_CONFIG))
    )
    config = saved_config(metadata)
    if data_path:
        config.data.path = data_path
    experiment = open_experiment(config)
    check_same_data(experiment, metadata)
    return experiment, params, model_state, metadata


def result_marks(results: dict) -> list[str]:
    """What must stand loudly beside a result: leaks of its split, and that data was made."""
    return corpus_marks(results["corpus"], results["leaks"])
