"""Scores as a table on the terminal."""

from rich.console import Console
from rich.table import Table

MEASURES = {"wa": "WA", "ua": "UA", "wf1": "weighted F1"}


def print_scores(rows: dict[str, dict], title: str = "") -> None:
    """One line per row, each measure in per cent with its 95 % interval by speaker."""
    table = Table("", *MEASURES.values(), title=title or None)
    for name, scores in rows.items():
        table.add_row(name, *(measure(scores, key) for key in MEASURES))
    Console(width=100).print(table)


def measure(scores: dict, key: str) -> str:
    """`81.2 [78.0, 84.1]`."""
    text = f"{100 * scores[key]:.1f}"
    if f"{key}_interval" in scores:
        low, high = scores[f"{key}_interval"]
        text += f" [{100 * low:.1f}, {100 * high:.1f}]"
    return text


def print_trials(found: dict) -> None:
    """The trials of a sweep (emofuse_jax/training/crossval/sweep.py), best first."""
    names = sorted({name for trial in found["trials"] for name in trial["fields"]})
    title = f"{found['config']} on {found['corpus']}, {found['protocol']}: validation UA"
    table = Table("trial", *names, "UA", "sd", "last epochs", title=title)
    for trial in found["trials"]:
        fields = [format_value(trial["fields"].get(name, "")) for name in names]
        scores = [f"{100 * trial[name]:.1f}" for name in ("validation_ua", "sd", "last_ua")]
        table.add_row(str(trial["number"]), *fields, *scores)
    Console(width=max(100, 24 + sum(len(name) + 4 for name in names))).print(table)


def format_value(value) -> str:
    """A field's value: a fraction with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def print_runs(results: dict) -> None:
    """UA of every fold and seed, their mean and spread, and the pooled scores
    (emofuse_jax/scoring/pooled_scores.py)."""
    seeds = sorted({run["seed"] for run in results["runs"]})
    found = {(run["fold"], run["seed"]): run["test"]["ua"] for run in results["runs"]}
    title = f"{results['config']} on {results['corpus']}, {results['protocol']}: test UA"
    table = Table("fold", *(f"seed {seed}" for seed in seeds), title=title)
    for fold in sorted({fold for fold, _ in found}):
        table.add_row(str(fold), *(f"{100 * found[fold, seed]:.1f}" for seed in seeds))
    console = Console(width=max(60, 12 * len(seeds) + 12))
    console.print(table)
    mean, sd = (100 * results[name]["ua"] for name in ("mean", "sd"))
    console.print(f"UA of a run: {mean:.1f} +- {sd:.1f} (mean and sd over {len(found)} runs)")
    print_scores({"pooled": results["pooled"]})
