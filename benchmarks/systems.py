"""Systems on the demo corpus, three seeds each: trains, scores and sums up the rows of
benchmarks/system_table.py.

A run whose result lies in its workdir is not run again, so that the suite goes on where it was stopped.
"""

import json
import os
import statistics
import time
from collections.abc import Iterable, Iterator

import jax
import ml_collections

import emofuse_jax as ef
from benchmarks.cost import measure_cost
from benchmarks.system_table import SYSTEMS, System
from data_prep.corpora import read_corpus
from data_prep.prepare import prepare
from data_prep.settings import recipe_settings
from emofuse_jax.api.evaluation import evaluate_workdir, load_trained_experiment
from emofuse_jax.api.training import train
from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.training.experiment import flatten_fields, open_experiment
from emofuse_jax.training.refit_fusion import refit
from emofuse_jax.utils.files import write_json
from emofuse_jax.utils.progress_bar import progress_bar

SEEDS = (0, 1, 2)
SMALL_RECORDS = {
    "hgr": {"face_size": 56},
    "cross_attention": {"frames": 12, "snippet": 4, "face_size": 56},
}
"""What the small forms change in the records of a recipe."""


def run_systems(
    systems: Iterable[System], data: str, runs_directory: str, names: list[str]
) -> Iterator[dict]:
    """Trains and scores every system and seed that has no result yet below `runs_directory`; a row a system.

    Args:
      systems: the rows.
      data: records of the demo corpus, `<somewhere>/records` with its media in `<somewhere>/clips`.
      runs_directory: workdirs of the runs, and records of the recipes other than that of `data`.
      names: names of systems, in place of all.

    Raises:
      ValueError: a name that no system has, or a result that was made with other fields or records.
    """
    systems = tuple(systems)
    unknown = set(names) - {system.name for system in systems}
    if unknown:
        raise ValueError(f"--systems: {min(unknown)!r}, expected of {', '.join(s.name for s in systems)}")
    selected = [system for system in systems if not names or system.name in names]
    records_paths = {
        recipe: prepare_recipe(recipe, data, runs_directory)
        for recipe in sorted({ef.settings.small(system.config).data.recipe for system in selected})
    }
    for system in selected:
        runs = [run_seed(system, seed, records_paths, runs_directory) for seed in SEEDS]
        yield summarise_runs(system, runs) | measure_system_cost(system, records_paths, runs_directory)


def run_seed(system: System, seed: int, records_paths: dict[str, str], runs_directory: str) -> dict:
    """The result of one run, from its workdir if it is there; runs first what it starts from."""
    workdir = os.path.join(runs_directory, system.name, f"seed_{seed}")
    config = make_config(system, seed, records_paths, runs_directory)
    expected_identity = make_identity(system, seed, config)
    stored_result = read_stored_result(os.path.join(workdir, "systems.json"), expected_identity)
    if stored_result:
        return stored_result
    for name in system.prerequisites:
        run_seed(next(s for s in SYSTEMS if s.name == name), seed, records_paths, runs_directory)
    seconds = measure_core_seconds(
        workdir, lambda: train_or_refit(system, seed, config, workdir, runs_directory)
    )
    results, _ = evaluate_workdir(workdir, example_count=0)
    scores = {name: {k: row[k] for k in ("ua", "wa", "wf1")} for name, row in results["modalities"].items()}
    result = {"scores": scores, "seconds": seconds, "about": expected_identity}
    write_json(os.path.join(workdir, "systems.json"), result)
    jax.clear_caches()
    return result


def train_or_refit(
    system: System, seed: int, config: ml_collections.ConfigDict, workdir: str, runs_directory: str
) -> None:
    """Trains, or fits the fusion of a finished run again, with generated pairs unless `generate` is False."""
    if system.refit_fields is None:
        train(open_experiment(config), workdir)
        return
    refit_config = ef.settings.load_shipped("gan")
    refit_config.update_from_flattened_dict({"seed": seed, **system.refit_fields})
    refit(
        *load_trained_experiment(os.path.join(runs_directory, system.config, f"seed_{seed}"), "best", ""),
        refit_config,
        workdir,
    )


def make_config(
    system: System, seed: int, records_paths: dict[str, str], runs_directory: str
) -> ml_collections.ConfigDict:
    """The config of one run."""
    config = ef.settings.small(system.config)
    fields = {
        k: v.format(seed=seed, home=runs_directory) if isinstance(v, str) else v
        for k, v in system.fields.items()
    }
    config.update_from_flattened_dict(fields)
    config.seed, config.data.path = seed, records_paths[config.data.recipe]
    return config


def make_identity(system: System, seed: int, config: ml_collections.ConfigDict) -> dict:
    """What a stored result must have been made with: every field but paths, and the clips."""
    fields = {
        k: v
        for k, v in flatten_fields(config.to_dict()).items()
        if k != "data.path" and k.split(".")[0] != "init"
    }
    prep = open_dataset(config.data.path).prep
    return {
        "fields": fields,
        "gan": system.refit_fields,
        "seed": seed,
        "sources": prep.get("sources_sha256", ""),
    }


def read_stored_result(path: str, expected_identity: dict) -> dict | None:
    """A result that was made before; ValueError naming the field where it was made with another."""
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        stored_result = json.load(file)
    stored_fields, expected_fields = (
        flatten_fields(stored_result["about"]),
        flatten_fields(json.loads(json.dumps(expected_identity))),
    )
    for name in sorted(stored_fields.keys() | expected_fields.keys()):
        if stored_fields.get(name) != expected_fields.get(name):
            raise ValueError(
                f"{path}: was made with {name}={stored_fields.get(name)!r}, now"
                f" {expected_fields.get(name)!r}; remove its folder"
            )
    return stored_result


def measure_core_seconds(workdir: str, task) -> float:
    """Seconds of cores that `task` takes, with those of earlier calls that were stopped."""
    os.makedirs(workdir, exist_ok=True)
    path, previous_seconds = os.path.join(workdir, "seconds"), 0.0
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            previous_seconds = float(file.read())
    start_time = time.process_time()
    try:
        task()
    finally:
        seconds = round(previous_seconds + time.process_time() - start_time, 1)
        with open(path, "w", encoding="utf-8") as file:
            file.write(str(seconds))
    return seconds


def prepare_recipe(recipe: str, data: str, runs_directory: str) -> str:
    """The demo corpus in a recipe: `data` is `fbp`, others are prepared below `runs_directory`, in small
    form."""
    if recipe == "fbp":
        return data
    output = os.path.join(runs_directory, f"records_{recipe}")
    clips = os.path.join(os.path.dirname(os.path.abspath(data)), "clips")
    settings = recipe_settings(recipe, **SMALL_RECORDS[recipe])
    with progress_bar(f"records ({recipe})") as progress:
        prepare(read_corpus("demo", clips), settings, output, progress=progress)
    return output


def measure_system_cost(system: System, records_paths: dict[str, str], runs_directory: str) -> dict:
    """What the system costs, measured once; a fusion that is fitted again has no speed of its own."""
    config = make_config(system, 0, records_paths, runs_directory)
    expected_identity = make_identity(system, 0, config)
    path = os.path.join(runs_directory, system.name, "cost.json")
    stored_result = read_stored_result(path, expected_identity)
    if not stored_result:
        stored_result = {"cost": measure_cost(open_experiment(config)), "about": expected_identity}
        write_json(path, stored_result)
        jax.clear_caches()
    return stored_result["cost"] | ({} if system.refit_fields is None else {"clips_per_second": None})


def summarise_runs(system: System, runs: list[dict]) -> dict:
    """One row of the table: means over seeds, with the sample standard deviation of the UA."""
    ua_scores = [next(iter(run["scores"].values()))["ua"] for run in runs]
    return {
        "case": system.name,
        "unit": "UA",
        "ours": statistics.mean(ua_scores),
        "sd": statistics.stdev(ua_scores),
        "seeds": ua_scores,
        "modalities": {
            name: statistics.mean(run["scores"][name]["ua"] for run in runs) for name in runs[0]["scores"]
        },
        "seconds": statistics.median(run["seconds"] for run in runs),
        "repeats": len(runs),
    }


def format_table(rows: list[dict]) -> str:
    """The table of README.md."""
    lines = [
        "| system | UA, % | sound alone | face alone | parameters | GFLOP/clip | clips/s | core-s/run |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        single_stream_scores = [row["modalities"].get(name) for name in ("audio", "video")]
        cells = ["" if ua is None else f"{100 * ua:.1f}" for ua in single_stream_scores]
        speed = "" if row["clips_per_second"] is None else f"{row['clips_per_second']:.0f}"
        lines.append(
            f"| {row['case']} | {100 * row['ours']:.1f} ± {100 * row['sd']:.1f} | {cells[0]} | {cells[1]} |"
            f" {row['parameters']:,} | {row['forward_gflop']:.3f} | {speed} |"
            f" {row['seconds']:.0f} |"
        )
    return "\n".join(lines)
