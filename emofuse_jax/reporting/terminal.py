"""Prints tables of scores on the terminal."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from emofuse_jax.scoring.result_types import INTERVAL_FIELDS, CrossvalFile, Metric, ScoreFields, SweepResults

METRIC_TITLES: dict[Metric, str] = {"wa": "WA", "ua": "UA", "wf1": "weighted F1"}


def print_scores(rows: Mapping[str, ScoreFields], title: str = "") -> None:
    """Prints a table with one line per entry of `rows` and the columns WA, UA and weighted F1, in per cent.

    Args:
      rows: maps the name of a line to its scores: fractions `wa`, `ua`, `wf1` and, optionally, their 95 %
        intervals `wa_interval`, `ua_interval`, `wf1_interval` as `(low, high)`.
      title: heading of the table; no heading if empty.

    Raises:
      KeyError: if an entry lacks one of the three scores.
      ValueError: if an interval does not have two bounds.
    """
    table = Table("", *METRIC_TITLES.values(), title=title or None)
    for name, scores in rows.items():
        table.add_row(name, *(format_score(scores, metric) for metric in METRIC_TITLES))
    Console(width=100).print(table)


def format_score(scores: ScoreFields, metric: Metric) -> str:
    """Formats `scores[metric]` in per cent, followed by its interval if there is one: `81.2 [78.0, 84.1]`.

    `metric` is `ua`, `wa`, `wf1` or `mf1`; the score is a fraction, and the interval is `[low, high]` in
    `scores["<metric>_interval"]`. NaN is written as `nan`. Raises KeyError if the score is missing, TypeError
    if it is None, and ValueError if the interval does not have two bounds.
    """
    text = f"{100 * scores[metric]:.1f}"
    if INTERVAL_FIELDS[metric] in scores:
        low, high = scores[INTERVAL_FIELDS[metric]]
        text += f" [{100 * low:.1f}, {100 * high:.1f}]"
    return text


def print_trials(sweep_results: SweepResults) -> None:
    """Prints a table of the trials of a sweep, in the order in which the results list them.

    Columns: number of the trial, a column for each field that was varied, and in per cent the validation UA
    (mean recall), its standard deviation and the UA of the last epochs.

    `sweep_results` has `config`, `corpus` and `protocol` (names) and `trials`, dicts with `number`, `fields`
    (changed config fields by dotted name; the cell of a field that a trial lacks is empty), and the fractions
    `validation_ua`, `sd` and `last_ua`. Raises KeyError if one of these is missing.
    """
    field_names = sorted({name for trial in sweep_results["trials"] for name in trial["fields"]})
    title = (
        f"{sweep_results['config']} on {sweep_results['corpus']}, {sweep_results['protocol']}: validation UA"
    )
    table = Table("trial", *field_names, "UA", "sd", "last epochs", title=title)
    for trial in sweep_results["trials"]:
        fields = [format_value(trial["fields"].get(name, "")) for name in field_names]
        scores = (trial["validation_ua"], trial["sd"], trial["last_ua"])
        table.add_row(str(trial["number"]), *fields, *(f"{100 * score:.1f}" for score in scores))
    Console(width=max(100, 24 + sum(len(name) + 4 for name in field_names))).print(table)


def format_value(value: object) -> str:
    """Returns `str(value)`, except that a float is written with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_runs(results: CrossvalFile) -> None:
    """Prints the results of a cross-validation in per cent.

    The output is a table of the test UA (mean recall) with a row per fold and a column per seed, the mean and
    standard deviation of the UA over all runs, and a table of the pooled WA (accuracy), UA and weighted F1
    with their intervals.

    Args:
      results: content of the results.json of `emofuse crossval`, of which `config`, `corpus`, `protocol`,
        `runs` (with `fold`, `seed` and `test` scores), `mean`, `sd` and `pooled` are used.

    Raises:
      KeyError: if one of these is missing, or a fold was not run with every seed.
      ValueError: if an interval in `pooled` does not have two bounds.
    """
    seeds = sorted({run["seed"] for run in results["runs"]})
    ua_by_replica = {(run["fold"], run["seed"]): run["test"]["ua"] for run in results["runs"]}
    title = f"{results['config']} on {results['corpus']}, {results['protocol']}: test UA"
    table = Table("fold", *(f"seed {seed}" for seed in seeds), title=title)
    for fold in sorted({fold for fold, _ in ua_by_replica}):
        table.add_row(str(fold), *(f"{100 * ua_by_replica[fold, seed]:.1f}" for seed in seeds))
    console = Console(width=max(60, 12 * len(seeds) + 12))
    console.print(table)
    mean, sd = 100 * results["mean"]["ua"], 100 * results["sd"]["ua"]
    console.print(
        f"UA per run: {mean:.1f} +- {sd:.1f} (mean and standard deviation over {len(ua_by_replica)} runs)"
    )
    print_scores({"pooled": results["pooled"]})
