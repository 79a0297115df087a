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
from emofuse_jax.scoring.predict import Predictions, per_speaker, placed_batches, predict, score
from emofuse_jax.scoring.result_labels import corpus_marks
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.checkpoint.compat import saved_config
from emofuse_jax.training.checkpoint.load import load_trained
from emofuse_jax.training.experiment import Experiment, check_same_data, check_unseen, open_experiment
from emofuse_jax.training.folds import TRAINED_ON
from emofuse_jax.training.step import make_eval_step
from emofuse_jax.types import Params
from emofuse_jax.utils.files import write_json

EVERY_DEVICE = ml_collections.ConfigDict({"replica": 1, "data": -1, "model": 1})


def evaluate_workdir(
    workdir: str, *, part: str = "test", kind: str = "best", data_path: str = "", examples: int = 6
) -> tuple[dict, list[dict]]:
    """Scores a trained model on one part of its fold: both streams, and each alone from the same parameters.

    Args:
      workdir: of `emofuse train`.
      part: train, validation or test.
      kind: checkpoint, best or last.
      data_path: where the records lie now, if they moved.
      examples: clips in the gallery.

    Returns:
      The results (their form: report.write_report) and the gallery.
    """
    experiment, params, model_state, about = load_experiment(workdir, kind, data_path)
    if part == "test":
        check_unseen(experiment, about)
    ask = asker(experiment, part)
    used = modalities(experiment.config.model.fusion.name)
    answers = {modality: ask(params, model_state, modality) for modality in used}
    first = answers[used[0]]
    results = summarise(experiment, about, part, answers)
    return results, make_examples(experiment, params, model_state, first, examples)


def asker(experiment: Experiment, part: str) -> Callable[[Params, Params, str], Predictions]:
    """`(params, model_state, modality)` to the answers for a part's clips, compiled once.

    Raises ValueError where the part is empty.
    """
    clips = experiment.clips[part]
    if not len(clips):
        why = f" ({TRAINED_ON})" if part == "validation" and not experiment.config.data.hold_out else ""
        raise ValueError(f"{experiment.dataset.path}: protocol {experiment.protocol}: {part} is empty{why}")
    mesh = make_mesh(EVERY_DEVICE)
    rows = math.lcm(experiment.config.train.eval_batch_size, mesh.shape["data"])
    eval_step = make_eval_step(experiment.model, mesh)

    def ask(params: Params, model_state: Params, modality: str) -> Predictions:
        batches = placed_batches(experiment.dataset, clips, experiment.shape, mesh, batch_size=rows)
        return predict(eval_step, params, model_state, batches, modality)

    return ask


def cost_of(alter: Callable[[Params], Params], workdir: str, kind: str, data_path: str) -> tuple[dict, dict]:
    """Scores of all streams on the validation clips, with the parameters as they are and altered."""
    experiment, params, model_state, _ = load_experiment(workdir, kind, data_path)
    ask, first = asker(experiment, "validation"), modalities(experiment.config.model.fusion.name)[0]
    before, after = (ask(p, model_state, first) for p in (params, alter(params)))
    return score(before, intervals=False), score(after, intervals=False)


def write_results(workdir: str, results: dict, kind: str = "best") -> str:
    """Writes `results.json` and both cards to `evaluation/<part>` of a workdir; gives that directory."""
    directory = os.path.join(workdir, "evaluation", results["split"])
    card = cards.card_of_checkpoint(store.read_metadata(workdir, kind), results)
    write_json(os.path.join(directory, "results.json"), results)
    cards.write_card(directory, cards.MODEL_CARD, card)
    cards.write_card(directory, cards.DATA_CARD, cards.data_card(open_dataset(results["dataset"])))
    return directory


def summarise(experiment: Experiment, about: dict, part: str, answers: dict[str, Predictions]) -> dict:
    """The result file of a part: scores of every modality, and the first one's answers for every clip."""
    first = next(iter(answers.values()))
    return {
        "config": experiment.config.name,
        "corpus": experiment.dataset.prep["corpus"],
        "dataset": experiment.dataset.path,
        "date": datetime.date.today().isoformat(),
        "protocol": experiment.protocol,
        "fold": experiment.config.data.fold,
        "split": part,
        "leaky": bool(about.get("leaks")),
        "leaks": about.get("leaks", []),
        "checkpoint_step": about["step"],
        "temperature": about.get("temperature", 1.0),
        "classes": list(experiment.dataset.classes),
        "clips": [experiment.dataset.clip_ids[clip] for clip in first.clips],
        "labels": first.labels.tolist(),
        "speakers": [experiment.dataset.speakers[speaker] for speaker in first.speakers],
        "probabilities": first.probabilities.tolist(),
        "modalities": {name: score(answer) for name, answer in answers.items()},
        "per_speaker": per_speaker(first, experiment.dataset.speakers),
        "versions": about["versions"],
    }


def modalities(fusion: str) -> tuple[str, ...]:
    """What a network can be scored on: its one stream, or both and each alone."""
    streams = FUSIONS[fusion].modalities
    return streams if len(streams) == 1 else ("both", *streams)


def load_experiment(workdir: str, kind: str, data_path: str) -> tuple[Experiment, Params, Params, dict]:
    """The experiment of a workdir with its parameters, model state and metadata."""
    _, params, model_state, about = load_trained(workdir, kind, replicated(make_mesh(EVERY_DEVICE)))
    config = saved_config(about)
    if data_path:
        config.data.path = data_path
    experiment = open_experiment(config)
    check_same_data(experiment, about)
    return experiment, params, model_state, about


def marks(results: dict) -> list[str]:
    """What must stand loudly beside a result: leaks of its split, and that data was made."""
    return corpus_marks(results["corpus"], results.get("leaks", ()))
