"""Suite `systems`: trains and scores the rows of benchmarks/system_table.py on the demo corpus, three seeds.

A run whose workdir has a result is not repeated, so that the suite resumes after a stop.
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
"""Changed settings of each recipe for the small variants."""


def run_systems(
    systems: Iterable[System], data: str, runs_directory: str, names: list[str]
) -> Iterator[dict]:
    """Trains and scores every system and seed that has no result yet; yields a row per system.

    A row has the fields of `summarise_runs` and `measure_system_cost`.

    Args:
      systems: All systems.
      data: Records of the demo corpus with recipe `fbp`; their clips are in the folder `clips` next to them.
      runs_directory: Directory for the workdirs of the runs and for the records of other recipes.
      names: Names of the systems to run; empty: all.

    Raises:
      ValueError: No system has one of the names, or a stored result has other fields or records.
    """
    systems = tuple(systems)
    unknown = set(names) - {system.name for system in systems}
    if unknown:
        raise ValueError(
            f"--systems: {min(unknown)!r}, expected names of {', '.join(s.name for s in systems)}"
        )
    selected = [system for system in systems if not names or system.name in names]
    records_paths = {
        recipe: prepare_recipe(recipe, data, runs_directory)
        for recipe in sorted({ef.settings.small(system.config).data.recipe for system in selected})
    }
    for system in selected:
        runs = [run_seed(system, seed, records_paths, runs_directory) for seed in SEEDS]
        yield summarise_runs(system, runs) | measure_system_cost(system, records_paths, runs_directory)


def run_seed(system: System, seed: int, records_paths: dict[str, str], runs_directory: str) -> dict:
    """Returns the result of one run, which is read from its workdir if it is complete.

    Otherwise the function runs the prerequisites and the run, and stores the result in systems.json.

    Returns:
      `scores`: ua, wa and wf1 by modality; `seconds`: CPU seconds of the training; `about`: identity of the
      run (`make_identity`).

    Raises:
      ValueError: The stored result has another identity.
    """
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
    """Trains a system or, if it has `refit_fields`, fits the fusion of a complete run again.

    The fusion is fitted with generated pairs unless `generate` is False.
    """
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
    """Returns the config of one run: the small variant with the changed fields, the seed and the records."""
    config = ef.settings.small(system.config)
    fields = {
        k: v.format(seed=seed, home=runs_directory) if isinstance(v, str) else v
        for k, v in system.fields.items()
    }
    config.update_from_flattened_dict(fields)
    config.seed, config.data.path = seed, records_paths[config.data.recipe]
    return config


def make_identity(system: System, seed: int, config: ml_collections.ConfigDict) -> dict:
    """Returns everything on which the result of a run depends, for comparison with a stored result.

    Returns:
      `fields`: all config fields except paths; `gan`: changed fields of configs/gan.py or None; `seed`;
      `sources`: hash of the clips.
    """
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
    """Returns the stored result of a file, or None if the file does not exist.

    Raises:
      ValueError: The identity of the stored result is not `expected_identity`; names the first field.
    """
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
                f"{path}: was made with {name}={stored_fields.get(name)!r}, expected"
                f" {expected_fields.get(name)!r}; remove the folder of this file to run it again"
            )
    return stored_result


def measure_core_seconds(workdir: str, task) -> float:
    """Calls `task` and returns its CPU seconds, including those of earlier calls that were stopped.

    The seconds are stored in the file `seconds` of `workdir`, even if the task raises an exception.
    """
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
    """Returns the path of the demo corpus's records in a recipe: `data` for `fbp`.

    For other recipes, the clips are prepared with the settings of SMALL_RECORDS under `runs_directory`.
    """
    if recipe == "fbp":
        return data
    output = os.path.join(runs_directory, f"records_{recipe}")
    clips = os.path.join(os.path.dirname(os.path.abspath(data)), "clips")
    settings = recipe_settings(recipe, **SMALL_RECORDS[recipe])
    with progress_bar(f"records ({recipe})") as progress:
        prepare(read_corpus("demo", clips), settings, output, progress=progress)
    return output


def measure_system_cost(system: System, records_paths: dict[str, str], runs_directory: str) -> dict:
    """Returns the cost of a system (`measure_cost`), which is measured once and stored in cost.json.

    `clips_per_second` is None for a fusion that is fitted again.

    Raises:
      ValueError: The stored cost was measured with other fields or records.
    """
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
    """Returns one row of the results from the runs of all seeds.

    Returns:
      `ours` and `sd`: mean and sample standard deviation of the UA; `seeds`: UA of each seed; `modalities`:
      mean UA by modality; `seconds`: median CPU seconds of a run; `case`, `unit` and `repeats`.
    """
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
    """Returns the rows as a Markdown table, as in docs/systems.md."""
    lines = [
        "| system | UA, % | audio only | video only | parameters | GFLOP/clip | clips/s | core-s/run |",
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
