"""Evaluates the models of a cross-validation under corruptions, and writes its results and report."""

import math
import os
from collections.abc import Iterator

from emofuse_jax.api.evaluation import ALL_DEVICES_MESH_CONFIG
from emofuse_jax.api.run import REPORT_FILE
from emofuse_jax.models.registry import FUSIONS
from emofuse_jax.parallel.distributed import exclusive_workdir, is_first_process
from emofuse_jax.parallel.mesh import make_mesh, replicated
from emofuse_jax.reporting import cards, page
from emofuse_jax.reporting.crossval_report import write_crossval_report
from emofuse_jax.reporting.examples import make_examples
from emofuse_jax.reporting.gallery_clip import GalleryClip
from emofuse_jax.scoring.pooled_scores import format_markdown_row
from emofuse_jax.scoring.predict import Predictions, predict, sharded_batches
from emofuse_jax.scoring.result_types import CrossvalFile, ReplicaResult, RobustnessCurves
from emofuse_jax.scoring.robustness import Condition, make_corruptions, predict_corrupted, robustness_curves
from emofuse_jax.training.checkpoint.load import load_trained_model
from emofuse_jax.training.crossval.replica_results import replica_directory
from emofuse_jax.training.experiment import Experiment, make_metadata, open_experiment, with_fold_and_seed
from emofuse_jax.training.metric_writer import read_epoch_rows
from emofuse_jax.training.step import jit_eval_step
from emofuse_jax.types import Batch
from emofuse_jax.utils.config_dict import ConfigDict
from emofuse_jax.utils.files import write_json


def evaluate_robustness(
    base_experiment: Experiment, workdir: str, runs: list[ReplicaResult], *, example_count: int = 6
) -> tuple[RobustnessCurves, list[GalleryClip]]:
    """Scores every model of a cross-validation on its test clips, with noise, lost frames or one modality.

    Args:
      base_experiment: the experiment of any fold; its config, records and model are used.
      workdir: directory of the cross-validation; the checkpoints are in `runs/fold_<i>_seed_<j>/`.
      runs: `runs` of results.json, at least one; only `fold` and `seed` of each are read.
      example_count: largest number of clips in the gallery of the report, from the first run.

    Returns:
      A pair. First, the curves over the predictions of all runs together: a dict with the lists `snr`, `lost`
      and `without`, as far as they apply to the model. Each entry has `at` (signal-to-noise ratio in dB, None
      without noise; fraction of masked faces; or the missing modality, `audio` or `video`), `ua` (mean recall
      of the classes) and `wa` (accuracy), both as fractions of 1. Second, the clips of the gallery: a list
      with a dict for each of these clips: `clip_id`; `label` and `prediction` (names of the true and the
      predicted class); `probabilities` (by class name); `spectrogram` [t f], its length in `seconds`,
      `max_hz` (upper end of its frequencies) and `bin_hz` [f] (centres of mel filters, or None); `faces`
      uint8 [s h w 3], `face_mask` [s] (True: a face) and `face_time` [s] (seconds); `audio_attention` [u] or
      [u g] over u steps and g bands of frequency, `video_attention` [l] over groups of s / l frames,
      `voice_weight` and `face_weight` (0 to 1); and other outputs of the model by name as `aux`. None stands
      for what the clip or the model does not have.

    Raises:
      FileNotFoundError: a checkpoint, a fold or its statistics are missing.
      ValueError: a checkpoint, a fold or a record is damaged, the recipe is unknown, a fold has no test
        clips, or no test clip has a label.
      OSError: a file cannot be read.
      KeyError: the audio settings in prep.json lack a field.
      IndexError: `runs` is empty.
    """
    config, mesh = base_experiment.config, make_mesh(ALL_DEVICES_MESH_CONFIG)
    eval_step = jit_eval_step(base_experiment.model, mesh)
    batch_size = math.lcm(config.train.eval_batch_size, mesh.shape["data"])
    corruptions = make_corruptions(
        FUSIONS[config.model.fusion.name].modalities, base_experiment.spec, config.data.recipe
    )
    predictions_by_run: list[dict[Condition, Predictions]] = []
    gallery_examples: list[GalleryClip] = []
    for run in runs:
        replica_id = run["fold"], run["seed"]
        experiment, directory = (
            with_fold_and_seed(base_experiment, *replica_id),
            replica_directory(workdir, replica_id),
        )
        _, params, model_state, _ = load_trained_model(directory, "best", replicated(mesh))

        def batches(experiment: Experiment = experiment) -> Iterator[Batch]:
            choose_spec, clips = experiment.choose_spec, experiment.clips["test"]
            return sharded_batches(experiment.dataset, clips, choose_spec, mesh, batch_size=batch_size)

        predictions_by_run.append(predict_corrupted(eval_step, params, model_state, batches, corruptions))
        if run is runs[0]:
            first_predictions = predict(eval_step, params, model_state, batches())
            gallery_examples = make_examples(
                experiment, params, model_state, first_predictions, example_count
            )
    return robustness_curves(predictions_by_run, len(base_experiment.dataset.classes)), gallery_examples


def write_crossval_outputs(
    config: ConfigDict,
    workdir: str,
    results: CrossvalFile,
    command: str,
    *,
    example_count: int = 6,
) -> None:
    """Writes the results, the report and the cards of a cross-validation to `workdir`.

    The files are `results.json`, `row.md` (a Markdown table of one row), `robustness.json` (scores with
    noise, lost faces or one modality), `MODEL_CARD.md`, `DATA_CARD.md`, and `report.html` with its figures in
    `figures/`; without matplotlib, the report is left out and a line on stderr says so. Existing files are
    replaced. Every process scores; the first one writes.

    Args:
      config: config of the cross-validation.
      workdir: directory of the cross-validation; the trained models are in `runs/`.
      results: contents of results.json, as `emofuse_jax.api.training.crossval` returns them.
      command: the command or call that made the results, for the report.
      example_count: largest number of clips in the gallery of the report.

    Raises:
      FileNotFoundError: a checkpoint is missing, or the records are gone.
      ValueError: the config is invalid, a checkpoint, a file of the records or a metrics.jsonl is damaged, or
        another process uses `workdir`.
      OSError: a file cannot be read or written.
      KeyError, IndexError: `results` lacks a field, or its lists do not fit together; KeyError also if the
        audio settings in prep.json lack a field.
      TypeError: a note in prep.json is not a text.
    """
    with exclusive_workdir(workdir):
        _write_crossval_outputs(config, workdir, results, command, example_count)


def _write_crossval_outputs(
    config: ConfigDict, workdir: str, results: CrossvalFile, command: str, example_count: int
) -> None:
    if is_first_process():
        write_json(os.path.join(workdir, "results.json"), results)
    base_experiment, replica_ids = (
        open_experiment(config),
        [(run["fold"], run["seed"]) for run in results["runs"]],
    )
    score_curves, gallery_examples = evaluate_robustness(
        base_experiment, workdir, results["runs"], example_count=example_count
    )
    if not is_first_process():
        return
    write_json(os.path.join(workdir, "robustness.json"), score_curves)
    with open(os.path.join(workdir, "row.md"), "w", encoding="utf-8") as file:
        file.write(format_markdown_row(results))
    run_metadata = make_metadata(with_fold_and_seed(base_experiment, *replica_ids[0]))
    cards.write_card(workdir, cards.MODEL_CARD, cards.make_crossval_card(run_metadata, results))
    cards.write_card(workdir, cards.DATA_CARD, cards.make_data_card(base_experiment.dataset))
    if not page.can_draw_figures(REPORT_FILE):
        return
    write_crossval_report(
        os.path.join(workdir, REPORT_FILE),
        results=results,
        histories=[read_epoch_rows(replica_directory(workdir, run)) for run in replica_ids],
        robustness=score_curves,
        examples=gallery_examples,
        command=command,
    )
