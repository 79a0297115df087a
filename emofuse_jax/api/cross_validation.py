"""Cross-validation over all folds and several seeds, and comparison of two results."""

import dataclasses
import os
from collections.abc import Sequence

from emofuse_jax.api import training
from emofuse_jax.api.crossval_evaluation import write_crossval_outputs
from emofuse_jax.api.records import Records, with_records
from emofuse_jax.api.results import Comparison, Scores
from emofuse_jax.api.run import REPORT_FILE, export
from emofuse_jax.scoring import significance
from emofuse_jax.scoring.pooled_scores import read_crossval_results
from emofuse_jax.scoring.result_types import Metric
from emofuse_jax.training.crossval.replica_results import replica_directory
from emofuse_jax.utils.config_dict import ConfigDict


@dataclasses.dataclass(frozen=True)
class CrossvalResults:
    """The results of a cross-validation in its working directory."""

    workdir: str
    """Holds results.json, report.html, row.md (a row of a table), and runs/ with one directory per model."""

    def scores(self) -> Scores:
        """Returns the scores of the test predictions of all folds and seeds together.

        They are `ua` (mean recall of the classes), `wa` (accuracy) and `wf1` (F1 weighted by class size) as
        fractions of 1; their 95 % intervals over speakers, `(low, high)`, as `ua_interval`, `wa_interval` and
        `wf1_interval`; the names of the `classes`; and `confusion`, the numbers of clips as nested tuples,
        rows true classes, columns predicted classes. With several seeds, a clip counts once for each.

        Raises:
          FileNotFoundError: `workdir` has no results.json.
          OSError: results.json cannot be read.
          ValueError: results.json is damaged or is not a result of a cross-validation.
        """
        results = read_crossval_results(self._path)
        return Scores.from_dict(results["pooled"], results["classes"])

    def report(self) -> str:
        """Returns the path of the HTML page, `<workdir>/report.html`, which `crossval` wrote.

        Raises:
          FileNotFoundError: there is no such page, for example because matplotlib was not installed.
        """
        path = os.path.join(self.workdir, REPORT_FILE)
        if not os.path.exists(path):
            raise FileNotFoundError(f"{path}: not written; install matplotlib and run crossval again")
        return path

    def export(self, output: str | os.PathLike[str], *, fold: int = 0, seed: int | None = None) -> str:
        """Writes a serving bundle of the model of one fold and seed to the directory `output`.

        Args:
          output: directory to write; an existing bundle is replaced.
          fold: number of the fold.
          seed: None: the first seed of this fold.

        Returns:
          The absolute path of the bundle, which `load` opens.

        Raises:
          ValueError: there is no model of this fold and seed, results.json or the checkpoint is damaged,
            `output` exists and is neither a bundle nor an empty directory, or the bundle's predictions differ
            from those of the checkpoint by more than 1e-5.
          FileNotFoundError: results.json or the checkpoint is missing.
          OSError: a file cannot be read or written.
          Exception: JAX cannot export a registered encoder or fusion for batches of any size.
        """
        pairs = [(run["fold"], run["seed"]) for run in read_crossval_results(self._path)["runs"]]
        matching = [pair for pair in pairs if pair[0] == fold and seed in (None, pair[1])]
        if not matching:
            raise ValueError(
                f"fold={fold}, seed={seed}: no model was trained for this pair, expected one of {pairs}"
            )
        return export(replica_directory(self.workdir, matching[0]), output)

    @property
    def _path(self) -> str:
        return os.path.join(self.workdir, "results.json")

    def __str__(self) -> str:
        return str(self.scores())


def crossval(
    config: ConfigDict,
    records: Records | str | os.PathLike[str],
    workdir: str | os.PathLike[str],
    *,
    seeds: int = 1,
    folds: Sequence[int] | None = None,
) -> CrossvalResults:
    """Trains and tests every fold with several seeds, side by side on all devices.

    An interrupted cross-validation continues when the same call runs again. One line shows the progress. Each
    test fold is scored once, with the parameters of the epoch that has the best mean recall (`ua`) on the
    validation clips, or with the last ones if `config.data.hold_out` is False.

    Args:
      config: a config that `config` returned; `config.data.protocol` chooses the protocol if the records have
        several.
      records: records or their directory.
      workdir: directory for models and results; it is created.
      seeds: number of seeds per fold: `config.seed` and those that follow; at least 1.
      folds: numbers of the folds, at least one; None: all.

    Returns:
      The results in `workdir`: `scores()` returns the scores of all test predictions together, `report()` the
      path of report.html, and `export(output, fold=0)` writes a bundle of one of the models, which are in
      `runs/fold_<i>_seed_<j>/`.

    Raises:
      Preempted: after SIGTERM, once the state is saved.
      ValueError: there is no seed or no fold, config and records do not fit together, a fold has no test
        clips, fewer training clips than a batch, or shares a speaker between training and test, a file of the
        records is damaged, `workdir` holds another cross-validation or another process works in it, a model
        does not fit into the memory of a device, or the loss is NaN or infinite.
      FileNotFoundError: the records, the protocol, a fold or the checkpoint in `config.init` does not exist.
      OSError: a file cannot be read or written.
      TypeError, AttributeError, KeyError: the metadata of the saved state are damaged, a note in prep.json is
        not a text, its audio settings lack a field, or the config lacks a field.
      jax.errors.JaxRuntimeError: another process of the run is lost, or a device fails.

    Example:
      >>> config = ef.config("concat", form="small_features", train={"epochs": 1}, data={"batch_size": 8})
      >>> results = ef.crossval(config, "records", "cv", folds=[0, 1])
      >>> sum(map(sum, results.scores().confusion))
      12
    """
    if seeds < 1 or (folds is not None and not len(folds)):
        raise ValueError(f"seeds={seeds}, folds={folds}: expected at least one seed and one fold")
    workdir, config = os.path.abspath(workdir), with_records(config, records)
    results = training.crossval(config, workdir, seeds=seeds, folds=None if folds is None else list(folds))
    write_crossval_outputs(
        config, workdir, results, f"ef.crossval(config, records, {workdir!r}, seeds={seeds})"
    )
    return CrossvalResults(workdir)


def compare(
    a: CrossvalResults | str | os.PathLike[str],
    b: CrossvalResults | str | os.PathLike[str],
    *,
    measure: Metric = "ua",
) -> Comparison:
    """Compares two cross-validations on the same clips: do they differ by more than chance?

    In a permutation test, all predictions of a speaker are swapped between the two results; p is the fraction
    of swaps with a difference at least as large as the observed one. Printing the comparison shows its text.

    Args:
      a: results, or the path of a results.json.
      b: the other results, or the path of their results.json.
      measure: `ua` (mean recall of the classes), `wa` (accuracy), `wf1` (F1 weighted by class size) or `mf1`
        (mean F1 of the classes).

    Returns:
      The comparison: `measure`; both scores as `a` and `b`, their `difference` (A minus B) and its 95 %
      `interval` (low, high), all as fractions of 1; `p`; `effect`, the mean of the speakers' differences over
      their standard deviation, or None if all are equal; `speakers`, their number; `verdict`: A is `better`
      or `worse` if p is below 0.05, otherwise there is `no significant difference`; and `text`, all this in
      words.

    Raises:
      FileNotFoundError: there is no such file.
      OSError: a file cannot be read.
      ValueError: a file is damaged or not a result of a cross-validation, the results have other test clips,
        classes or protocols, no clip has a label, or an unknown measure.

    Example:
      >>> ef.compare("cv/results.json", "cv/results.json").p
      1.0
    """
    results = [read_crossval_results(x._path if isinstance(x, CrossvalResults) else x) for x in (a, b)]
    comparison = significance.compare(*results, measure=measure)
    return Comparison.from_dict(comparison, significance.describe_comparison(comparison))
