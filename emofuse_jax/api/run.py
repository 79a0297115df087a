"""Training, evaluation and export of one model."""

import dataclasses
import os
from collections.abc import Sequence

from emofuse_jax.api import evaluation, training
from emofuse_jax.api.export import export_bundle
from emofuse_jax.api.records import Records, with_records
from emofuse_jax.api.results import Scores
from emofuse_jax.data.metadata import Split
from emofuse_jax.reporting import page, run_report
from emofuse_jax.reporting.gallery_clip import GalleryClip
from emofuse_jax.scoring.result_types import EvaluationResults
from emofuse_jax.training.experiment import open_experiment
from emofuse_jax.training.metric_writer import read_epoch_rows
from emofuse_jax.utils.config_dict import ConfigDict
from emofuse_jax.utils.optional import require_package

REPORT_FILE = "report.html"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores of a trained model on one split of its fold, and where its files are."""

    scores: dict[str, Scores]
    """Scores by modality: `both`, `audio` and `video`, or the one modality of the model."""
    directory: str
    """Holds results.json with the prediction for each clip, report.html and two cards."""

    def __str__(self) -> str:
        return "\n".join(f"{name}: {scores}" for name, scores in self.scores.items())


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model in its working directory."""

    workdir: str
    """Holds checkpoints/, metrics.jsonl and what `scores` and `report` write to evaluation/."""

    def scores(self, split: Split = "test") -> Scores:
        """Scores the best checkpoint on a split of its fold, with all modalities.

        The split is `train`, `validation` or `test`. Writes results.json, MODEL_CARD.md, DATA_CARD.md and, if
        matplotlib is installed, report.html with its pictures in `figures/` to
        `<workdir>/evaluation/<split>`; existing files are replaced.

        Returns:
          The scores: `ua` (mean recall of the classes), `wa` (accuracy) and `wf1` (F1 weighted by class size)
          as fractions of 1; their 95 % intervals `(low, high)` as `ua_interval`, `wa_interval` and
          `wf1_interval`; the names of the `classes`; and `confusion`, the numbers of clips as nested tuples,
          rows true classes, columns predicted classes.

        Raises:
          FileNotFoundError: there is no checkpoint, or the records are gone.
          ValueError: the split is unknown, empty or has no labelled clips, the checkpoint, metrics.jsonl or
            the records are damaged, the records differ from those of the training, or the model was trained
            on a test speaker.
          OSError: a file cannot be read or written.
          TypeError: a note in prep.json is not a text.
        """
        return next(iter(evaluate(self, split=split).scores.values()))

    def report(self, split: Split = "test") -> str:
        """Scores the best checkpoint on a split, writes an HTML page about it, and returns the page's path.

        The split is `train`, `validation` or `test`. The path is `<workdir>/evaluation/<split>/report.html`;
        results.json, MODEL_CARD.md, DATA_CARD.md and the folder `figures/` are written next to it. Existing
        files are replaced.

        Raises:
          FileNotFoundError: there is no checkpoint, or the records are gone.
          ValueError: matplotlib is not installed, the split is unknown, empty or has no labelled clips, the
            checkpoint, metrics.jsonl or the records are damaged, the records differ from those of the
            training, or the model was trained on a test speaker.
          OSError: a file cannot be read or written.
          TypeError: a note in prep.json is not a text.
        """
        require_package("matplotlib", "report", "the report")
        return os.path.join(evaluate(self, split=split).directory, REPORT_FILE)

    def export(self, output: str | os.PathLike[str]) -> str:
        """Writes a serving bundle of the best checkpoint to the directory `output`.

        An existing bundle is replaced.

        Returns:
          The absolute path of the bundle, which `emofuse_jax.load` opens.

        Raises:
          FileNotFoundError: `workdir` holds no checkpoint.
          ValueError: `output` exists and is neither a bundle nor an empty directory, the checkpoint is
            damaged, or the bundle's predictions differ from those of the checkpoint by more than 1e-5.
          OSError: a file cannot be read or written.
          Exception: JAX cannot export a registered encoder or fusion for batches of any size.
        """
        return export(self, output)


def train(
    config: ConfigDict,
    records: Records | str | os.PathLike[str],
    workdir: str | os.PathLike[str],
) -> Run:
    """Trains a model on one fold, keeping the parameters with the best mean recall on the validation clips.

    An interrupted training continues where it was saved, to the same numbers, when the same call runs again.
    One line shows the progress.

    Args:
      config: a config that `config` returned; `config.data.fold` and `config.data.protocol` choose the fold.
      records: records or their directory.
      workdir: directory for checkpoints and metrics; it is created.

    Returns:
      The run in `workdir`; its methods `scores`, `report` and `export` score and export the model.

    Raises:
      Preempted: after SIGTERM, once the state is saved.
      FileNotFoundError: the records, the protocol, the fold or the checkpoint in `config.init` does not
        exist.
      ValueError: config and records do not fit together, the fold has fewer training clips than a batch, a
        file of the records is damaged, another process trains in `workdir`, `workdir` holds a run of another
        config, a device runs out of memory, or the loss is NaN or infinite.
      OSError: a file cannot be read or written.
      TypeError, AttributeError: the metadata of the checkpoint in `workdir` are damaged, a note in prep.json
        is not a text, or the config lacks a field.
      jax.errors.JaxRuntimeError: another process of the run is lost, or a device fails.

    Example:
      >>> config = ef.config("concat", form="small_features", train={"epochs": 2}, data={"batch_size": 8})
      >>> run = ef.train(config, "records", "run")
      >>> 0 <= run.scores("test").ua <= 1
      True
    """
    workdir = os.path.abspath(workdir)
    training.train(open_experiment(with_records(config, records)), workdir)
    return Run(workdir)


def evaluate(run: Run | str | os.PathLike[str], *, split: Split = "test") -> Evaluation:
    """Scores the best checkpoint of a run on a split of its fold and writes the results and an HTML page.

    The files are results.json, MODEL_CARD.md, DATA_CARD.md and report.html with `figures/`, which needs
    matplotlib; without it, the others are written. Existing files are replaced.

    Args:
      run: a run or its working directory.
      split: `train`, `validation` or `test`.

    Returns:
      `scores`, a dict by modality (`both`, `audio` and `video`, or the only one of the model) of Scores: `ua`
      (mean recall of the classes), `wa` (accuracy) and `wf1` (F1 weighted by class size) as fractions of 1,
      their 95 % intervals `(low, high)` such as `ua_interval`, `classes` and `confusion`; and `directory`,
      the absolute path of the written files, `<workdir>/evaluation/<split>`.

    Raises:
      FileNotFoundError: the directory holds no checkpoint, or the records are gone.
      ValueError: the split is unknown, empty or has no labelled clips, the checkpoint, metrics.jsonl or the
        records are damaged, the records differ from those of the training, or the model was trained on a test
        speaker.
      OSError: a file cannot be read or written.
      TypeError: a note in prep.json is not a text.

    Example:
      >>> evaluation = ef.evaluate("run", split="validation")
      >>> list(evaluation.scores)
      ['both', 'audio', 'video']
    """
    workdir = _workdir_of(run)
    results, examples = evaluation.evaluate_workdir(workdir, split=split)
    directory = write_evaluation(workdir, results, examples)
    scores = {name: Scores.from_dict(row, results["classes"]) for name, row in results["modalities"].items()}
    return Evaluation(scores, directory)


def write_evaluation(
    workdir: str, results: EvaluationResults, examples: Sequence[GalleryClip], checkpoint_kind: str = "best"
) -> str:
    """Writes results.json, MODEL_CARD.md, DATA_CARD.md and, if matplotlib is installed, report.html.

    Existing files are replaced.

    Args:
      workdir: directory of a training run.
      results: contents of results.json, the first result of `evaluation.evaluate_workdir`.
      examples: clips for the gallery of the HTML page, its second result; may be empty.
      checkpoint_kind: `best` or `last`, the checkpoint that was scored.

    Returns:
      The directory of these files, `<workdir>/evaluation/<split>`, where the split is `results["split"]`.

    Raises:
      FileNotFoundError: there is no checkpoint, or the records are gone.
      ValueError: the checkpoint's metadata, the records or metrics.jsonl are damaged, or the lengths of lists
        in `results` or `examples` do not fit together.
      OSError: a file cannot be read or written.
      KeyError, IndexError: a field of `results` or `examples` is missing, or a label is not a class index.
      TypeError: a note in prep.json is not a text.
    """
    directory = evaluation.write_results(workdir, results, checkpoint_kind)
    if not page.can_draw_figures(REPORT_FILE):
        return directory
    run_report.write_report(
        os.path.join(directory, REPORT_FILE),
        results=results,
        history=read_epoch_rows(workdir),
        examples=examples,
        title=f"{results['config']} on {results['corpus']}",
        marks=evaluation.result_marks(results),
    )
    return directory


def export(run: Run | str | os.PathLike[str], output: str | os.PathLike[str]) -> str:
    """Writes a serving bundle of the best checkpoint, after comparing its predictions with the checkpoint's.

    Args:
      run: a run or its working directory.
      output: directory to write; an existing bundle is replaced.

    Returns:
      The absolute path of the bundle, which `emofuse_jax.load` opens.

    Raises:
      FileNotFoundError: the directory holds no checkpoint.
      ValueError: `output` exists and is neither a bundle nor an empty directory, the checkpoint is damaged,
        or the bundle's predictions differ from those of the checkpoint by more than 1e-5.
      OSError: a file cannot be read or written.
      Exception: JAX cannot export a registered encoder or fusion for batches of any size.

    Example:
      >>> import os
      >>> os.path.basename(ef.export("run", "bundle"))
      'bundle'
    """
    output = os.path.abspath(output)
    export_bundle(_workdir_of(run), output)
    return output


def _workdir_of(run: Run | str | os.PathLike[str]) -> str:
    return run.workdir if isinstance(run, Run) else os.path.abspath(run)
