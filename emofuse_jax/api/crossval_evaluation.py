"""What the report of a cross-validation shows beside scores: robustness of its models, clips to look at."""

import math
import os

import ml_collections

from emofuse_jax.api.evaluation import EVERY_DEVICE
from emofuse_jax.models.registry import FUSIONS
from emofuse_jax.parallel.distributed import is_first
from emofuse_jax.parallel.mesh import make_mesh, replicated
from emofuse_jax.reporting import cards
from emofuse_jax.reporting.crossval_report import write_crossval_report
from emofuse_jax.reporting.examples import make_examples
from emofuse_jax.scoring.pooled_scores import markdown_row
from emofuse_jax.scoring.predict import placed_batches, predict
from emofuse_jax.scoring.robustness import conditions, curves, robustness
from emofuse_jax.training.checkpoint.load import load_trained
from emofuse_jax.training.crossval.crossval import run_directory
from emofuse_jax.training.experiment import Experiment, metadata, open_experiment, other_fold
from emofuse_jax.training.metric_writer import read_epochs
from emofuse_jax.training.step import make_eval_step
from emofuse_jax.utils.files import write_json


def examine(
    base: Experiment, workdir: str, runs: list[dict], *, examples: int = 6
) -> tuple[dict, list[dict]]:
    """Scores every model of a cross-validation on its own test clips, made worse in known ways.

    Args:
      base: the experiment of any fold.
      workdir: of it; the checkpoints lie below `runs/`.
      runs: of results.json.
      examples: clips in the gallery, of the first run.

    Returns:
      `{"snr": [{"at", "ua", "wa"}], "lost": [..], "without": [..]}` (robustness.py), and the gallery.
    """
    config, mesh = base.config, make_mesh(EVERY_DEVICE)
    step = make_eval_step(base.model, mesh)
    size = math.lcm(config.train.eval_batch_size, mesh.shape["data"])
    changes = conditions(FUSIONS[config.model.fusion.name].modalities, base.spec, config.data.recipe)
    answers, shown = [], []
    for run in runs:
        fold_and_seed = run["fold"], run["seed"]
        experiment, directory = other_fold(base, *fold_and_seed), run_directory(workdir, fold_and_seed)
        _, params, model_state, _ = load_trained(directory, "best", replicated(mesh))

        def batches(experiment=experiment):
            shape, clips = experiment.shape, experiment.clips["test"]
            return placed_batches(experiment.dataset, clips, shape, mesh, batch_size=size)

        answers.append(robustness(step, params, model_state, batches, changes))
        if run is runs[0]:
            first = predict(step, params, model_state, batches())
            shown = make_examples(experiment, params, model_state, first, examples)
    return curves(answers, len(base.dataset.classes)), shown


def publish(
    config: ml_collections.ConfigDict, workdir: str, results: dict, command: str, *, examples: int = 6
) -> None:
    """Writes `results.json`, `row.md` (a row for a paper), `robustness.json`, `report.html` and both cards.

    Every process scores; the first one writes.
    """
    if is_first():
        write_json(os.path.join(workdir, "results.json"), results)
    base, runs = open_experiment(config), [(run["fold"], run["seed"]) for run in results["runs"]]
    curves_, shown = examine(base, workdir, results["runs"], examples=examples)
    if not is_first():
        return
    write_json(os.path.join(workdir, "robustness.json"), curves_)
    with open(os.path.join(workdir, "row.md"), "w", encoding="utf-8") as file:
        file.write(markdown_row(results))
    about = metadata(other_fold(base, *runs[0]))
    cards.write_card(workdir, cards.MODEL_CARD, cards.card_of_crossval(about, results))
    cards.write_card(workdir, cards.DATA_CARD, cards.data_card(base.dataset))
    write_crossval_report(
        os.path.join(workdir, "report.html"),
        results=results,
        histories=[read_epochs(run_directory(workdir, run)) for run in runs],
        robustness=curves_,
        examples=shown,
        command=command,
    )
