"""Scores a trained model on a part of its fold."""

import datetime
import math
import os
from collections.abc import Callable

import ml_collections

from emofuse_jax.data.dataset import SPLITS, open_dataset
from emofuse_jax.models.registry import FUSIONS
from emofuse_jax.parallel.mesh import make_mesh, replicated
from emofuse_jax.reporting import cards
from emofuse_jax.reporting.examples import make_examples
from emofuse_jax.reporting.gallery_clip import GalleryClip
from emofuse_jax.scoring.predict import (
    Predictions,
    predict,
    score_predictions,
    score_speakers,
    sharded_batches,
)
from emofuse_jax.scoring.result_marks import corpus_marks
from emofuse_jax.scoring.result_types import EvaluationResults, ScoreFields
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.checkpoint.load import load_trained_model
from emofuse_jax.training.checkpoint.metadata import CheckpointMetadata
from emofuse_jax.training.checkpoint.saved_config import saved_config
from emofuse_jax.training.experiment import (
    Experiment,
    check_same_data,
    check_test_speakers_unseen,
    open_experiment,
)
from emofuse_jax.training.hold_out import VALIDATION_TRAINED_ON_MESSAGE
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
) -> tuple[EvaluationResults, list[GalleryClip]]:
    """Scores a trained model on one split of its fold: with both modalities, and with each alone.

    Args:
      workdir: directory of a training run.
      split: `train`, `validation` or `test`.
      checkpoint_kind: `best` or `last`.
      data_path: directory of the records, if they were moved after training.
      example_count: largest number of clips in the gallery of the report.

    Returns:
      A pair. First, the contents of results.json, a dict. `modalities` has the scores by modality (`both`,
      `audio` and `video`, or the only one of the model): `ua` (mean recall of the classes), `wa` (accuracy),
      `wf1` (F1 weighted by class size), `mf1` (mean F1), their 95 % intervals such as `ua_interval`, all as
      fractions of 1, `recall` (one per class, None without clips) and `confusion` (numbers of clips, rows
      true classes, columns predicted classes). `per_speaker` is a dict by name of the speaker of dicts with
      `ua`, `wa` and `clips` (number of labelled clips). The lists `clips` (clip_ids), `labels` (class
      indices, -1 without a label), `speakers` (names) and `probabilities` (one per class) have one entry per
      clip. The others are facts about the run, which `make_evaluation_results` lists, such as `config`,
      `corpus`, `dataset`, `fold`, `split` and `classes`. Second, the clips of the gallery: a list with a dict
      for each of these clips: `clip_id`; `label` and `prediction` (names of the true and the predicted
      class); `probabilities` (by class name); `spectrogram` [t f], its length in `seconds`, `max_hz` (upper
      end of its frequencies) and `bin_hz` [f] (centres of mel filters, or None); `faces` uint8 [s h w 3],
      `face_mask` [s] (True: a face) and `face_time` [s] (seconds); `audio_attention` [u] or [u g] over u
      steps and g bands of frequency, `video_attention` [l] over groups of s / l frames, `voice_weight` and
      `face_weight` (0 to 1); and other outputs of the model by name as `aux`. None stands for what the clip
      or the model does not have.

    Raises:
      FileNotFoundError: there is no checkpoint, or the records are gone.
      ValueError: the split is unknown, empty or has no labelled clips, the checkpoint is damaged, the records
        are damaged or differ from those of the training, or the model was trained on a test speaker.
      OSError: a file cannot be read.
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
    """Returns a function that predicts the clips of a split; the model is compiled once.

    The function takes parameters, model state and modality (`both`, `audio` or `video`). It returns
    `Predictions` of n clips as NumPy arrays: `clips` [n] (record indices), `labels` [n] (class indices, -1
    without a label), `speakers` [n] (indices into `experiment.dataset.speakers`), `probabilities` [n c] of c
    classes, and `levels` [n m c], those of the m levels of the fusion, or None if it has no levels. `loss` is
    the mean cross-entropy of the labelled clips, a float. The function raises ValueError if a record is
    damaged or the modality is unknown, and OSError if a file cannot be read.

    Args:
      experiment: config, records, clips of each split, and model.
      split: `train`, `validation` or `test`.

    Raises:
      ValueError: the split is not `train`, `validation` or `test`, or has no clips.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: expected one of {', '.join(SPLITS)}")
    clips = experiment.clips[split]
    if not len(clips):
        reason = (
            f" ({VALIDATION_TRAINED_ON_MESSAGE})"
            if split == "validation" and not experiment.config.data.hold_out
            else ""
        )
        raise ValueError(
            f"{experiment.dataset.path}: protocol {experiment.protocol}: {split} is empty{reason};"
            " choose another split or fold"
        )
    mesh = make_mesh(ALL_DEVICES_MESH_CONFIG)
    batch_size = math.lcm(experiment.config.train.eval_batch_size, mesh.shape["data"])
    eval_step = jit_eval_step(experiment.model, mesh)

    def predict_split(params: Params, model_state: Params, modality: str) -> Predictions:
        batches = sharded_batches(
            experiment.dataset, clips, experiment.choose_spec, mesh, batch_size=batch_size
        )
        return predict(eval_step, params, model_state, batches, modality)

    return predict_split


def score_with_changed_params(
    change_params: Callable[[Params], Params], workdir: str, checkpoint_kind: str, data_path: str
) -> tuple[ScoreFields, ScoreFields]:
    """Scores a model on its validation clips twice: unchanged, and with changed parameters.

    Args:
      change_params: takes the parameters, nested dicts of arrays, and returns the changed ones.
      workdir: directory of a training run.
      checkpoint_kind: `best` or `last`.
      data_path: directory of the records, if they were moved after training; otherwise empty.

    Returns:
      A pair of scores, before and after the change, with all modalities of the model: dicts of `ua` (mean
      recall of the classes), `wa` (accuracy), `wf1` (F1 weighted by class size) and `mf1` (mean F1), all as
      fractions of 1; `recall`, a list with one fraction per class, None for a class without clips; and
      `confusion`, the numbers of clips as nested lists, rows true classes, columns predicted classes.

    Raises:
      FileNotFoundError: there is no checkpoint, or the records are gone.
      ValueError: there are no validation clips, none of them has a label, the checkpoint or the records are
        damaged, or the records differ from those of the training.
      OSError: a file cannot be read.
    """
    experiment, params, model_state, _ = load_trained_experiment(workdir, checkpoint_kind, data_path)
    predict_split, main_modality = (
        make_predictor(experiment, "validation"),
        evaluated_modalities(experiment.config.model.fusion.name)[0],
    )
    before, after = (predict_split(p, model_state, main_modality) for p in (params, change_params(params)))
    return score_predictions(before, with_intervals=False), score_predictions(after, with_intervals=False)


def write_results(workdir: str, results: EvaluationResults, checkpoint_kind: str = "best") -> str:
    """Writes results.json, MODEL_CARD.md and DATA_CARD.md to `evaluation/<split>` of a workdir.

    Args:
      workdir: directory of a training run; existing files are replaced.
      results: contents of results.json, as `evaluate_workdir` returns them; `results["split"]` is the split,
        and `results["dataset"]` the directory of the records that the data card describes.
      checkpoint_kind: `best` or `last`, the checkpoint that the model card describes.

    Returns:
      The path of the directory with these files, `<workdir>/evaluation/<split>`.

    Raises:
      FileNotFoundError: there is no checkpoint, or the records are gone.
      ValueError: the checkpoint's metadata or the records are damaged.
      OSError: a file cannot be read or written.
      KeyError: `results` lacks a field, or has an unknown modality.
      TypeError: a note in prep.json is not a text.
    """
    directory = os.path.join(workdir, "evaluation", results["split"])
    metadata = store.read_model_metadata(workdir, checkpoint_kind)
    card = cards.make_checkpoint_card(metadata, results)
    write_json(os.path.join(directory, "results.json"), results)
    cards.write_card(directory, cards.MODEL_CARD, card)
    cards.write_card(directory, cards.DATA_CARD, cards.make_data_card(open_dataset(results["dataset"])))
    return directory


def make_evaluation_results(
    experiment: Experiment, metadata: CheckpointMetadata, split: str, predictions: dict[str, Predictions]
) -> EvaluationResults:
    """Returns the contents of results.json: facts about the run, scores by modality and speaker, predictions.

    `modalities` has the scores of each entry of `predictions`: `ua` (mean recall of the classes), `wa`
    (accuracy), `wf1` (F1 weighted by class size) and `mf1` (mean F1), their 95 % intervals such as
    `ua_interval` (`[low, high]`), all as fractions of 1, `recall` (one per class, None without clips) and
    `confusion` (rows true classes, columns predicted classes). `per_speaker` has `ua`, `wa` and the number of
    labelled `clips` by name of the speaker. The predictions are those of the first modality in `predictions`,
    as lists with one entry per clip: `clips` (clip_ids), `labels` (class indices, -1 without a label),
    `speakers` (names) and `probabilities` (one per class). The other keys are `config` (name), `corpus`,
    `dataset` (path), `date` (YYYY-MM-DD), `protocol`, `fold`, `split`, `leaky` (True if there are `leaks`,
    texts), `checkpoint_step`, `temperature`, `classes` (names) and `versions` (by package).

    Args:
      experiment: the experiment of the run, with its config and records.
      metadata: metadata of the checkpoint, of which `leaks`, `step`, `temperature` and `versions` are read.
      split: name of the split that was predicted.
      predictions: `Predictions` by modality, at least one, as the function of `make_predictor` returns them.

    Raises:
      ValueError: no clip has a label.
    """
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
    """Returns the names of the inputs with which a fusion is scored, the main one first.

    They are `("both", "audio", "video")`, or the only modality of the fusion, such as `("audio",)`. Raises
    KeyError if there is no such fusion, ValueError if an installed package provides it, but it can't be
    imported.
    """
    fusion_modalities = FUSIONS[fusion].modalities
    return fusion_modalities if len(fusion_modalities) == 1 else ("both", *fusion_modalities)


def load_trained_experiment(
    workdir: str, checkpoint_kind: str, data_path: str
) -> tuple[Experiment, Params, Params, CheckpointMetadata]:
    """Opens a training run.

    Args:
      workdir: directory of the run.
      checkpoint_kind: `best` or `last`.
      data_path: directory of the records, if they were moved; otherwise empty.

    Returns:
      A tuple: the experiment, with the fields `config`, `dataset` (the records), `protocol`, `clips` (record
      indices by split), `spec` (shape of a clip), `model`, `statistics` (mean and standard deviation of each
      frequency bin) and `labels` (of each training clip, -1 if hidden; None: all are used); the parameters
      and the model state, nested dicts of arrays; and the metadata of the checkpoint, a dict with `config`,
      `classes`, `settings` (of the preparation), `spec`, `statistics`, `training_speakers`,
      `training_clips_sha256`, `corpus`, `protocol`, `fold`, `leaks`, `versions`, `step`, `temperature` and
      perhaps `progress`, `epoch` and `refit`, the state of the training.

    Raises:
      FileNotFoundError: there is no checkpoint, or the records are gone.
      ValueError: the checkpoint or the records are damaged, or the records differ from those of the training.
      OSError: a file cannot be read.
    """
    _, params, model_state, metadata = load_trained_model(
        workdir, checkpoint_kind, replicated(make_mesh(ALL_DEVICES_MESH_CONFIG))
    )
    config = saved_config(metadata)
    if data_path:
        config.data.path = data_path
    experiment = open_experiment(config)
    check_same_data(experiment, metadata)
    return experiment, params, model_state, metadata


def result_marks(results: EvaluationResults) -> list[str]:
    """Returns the warnings to show next to a result, one line each; an empty list if there are none.

    They begin with `LEAKY:` for each known leak of the split, `SYNTHETIC:` for drawn or synthesised data, and
    `COMPOSITE:` for audio and faces of different people. Of `results`, the contents of results.json, the
    fields `corpus` (its name) and `leaks` (a list of texts) are read.
    """
    return corpus_marks(results["corpus"], results["leaks"])
