"""Scores as a table on the terminal."""

from rich.console import Console
from rich.table import Table

METRIC_TITLES = {"wa": "WA", "ua": "UA", "wf1": "weighted F1"}


def print_scores(rows: dict[str, dict], title: str = "") -> None:
    """One line per row, each measure in per cent with its 95 % interval by speaker."""
    table = Table("", *METRIC_TITLES.values(), title=title or None)
    for name, scores in rows.items():
        table.add_row(name, *(format_score(scores, metric) for metric in METRIC_TITLES))
    Console(width=100).print(table)


def format_score(scores: dict, metric: str) -> str:
    """`81.2 [78.0, 84.1]`."""
    text = f"{100 * scores[metric]:.1f}"
    if f"{metric}_interval" in scores:
        low, high = scores[f"{metric}_interval"]
        text += f" [{100 * low:.1f}, {100 * high:.1f}]"
    return text


def print_trials(sweep_results: dict) -> None:
    """The trials of a sweep (emofuse_jax/training/crossval/sweep.py), best first."""
    field_names = sorted({name for trial in sweep_results["trials"] for name in trial["fields"]})
    title = (
        f"{sweep_results['config']} on {sweep_results['corpus']}, {sweep_results['protocol']}: validation UA"
    )
    table = Table("trial", *field_names, "UA", "sd", "last epochs", title=title)
    for trial in sweep_results["trials"]:
        fields = [format_value(trial["fields"].get(name, "")) for name in field_names]
        scores = [f"{100 * trial[name]:.1f}" for name in ("validation_ua", "sd", "last_ua")]
        table.add_row(str(trial["number"]), *fields, *scores)
    Console(width=max(100, 24 + sum(len(name) + 4 for name in field_names))).print(table)


def format_value(value) -> str:
    """A field's value: a fraction with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_runs(results: dict) -> None:
    """UA of every fold and seed, their mean and spread, and the pooled scores
    (emofuse_jax/scoring/pooled_scores.py)."""
    seeds = sorted({run["seed"] for run in results["runs"]})
    ua_by_replica = {(run["fold"], run["seed"]): run["test"]["ua"] for run in results["runs"]}
    title = f"{results['config']} on {results['corpus']}, {results['protocol']}: test UA"
    table = Table("fold", *(f"seed {seed}" for seed in seeds), title=title)
    for fold in sorted({fold for fold, _ in ua_by_replica}):
        table.add_row(str(fold), *(f"{100 * ua_by_replica[fold, seed]:.1f}" for seed in seeds))
    console = Console(width=max(60, 12 * len(seeds) + 12))
    console.print(table)
    mean, sd = (100 * results[name]["ua"] for name in ("mean", "sd"))
    console.print(f"UA of a run: {mean:.1f} +- {sd:.1f} (mean and sd over {len(ua_by_replica)} runs)")
    print_scores({"pooled": results["pooled"]})
