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
from benchmarks.system_table import ABLATIONS, SYSTEMS, System
from data_prep.corpora import read_corpus
from data_prep.prepare import prepare
from data_prep.settings import recipe_settings
from emofuse_jax.api.evaluation import evaluate_workdir, load_experiment
from emofuse_jax.api.training import train
from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.training.experiment import flatten, open_experiment
from emofuse_jax.training.refit_fusion import refit
from emofuse_jax.utils.files import write_json
from emofuse_jax.utils.progress_bar import counted

SEEDS = (0, 1, 2)
SMALL_RECORDS = {
    "hgr": {"face_size": 56},
    "cross_attention": {"frames": 12, "snippet": 4, "face_size": 56},
}
"""What the small forms change in the records of a recipe."""


def run_systems(systems: Iterable[System], data: str, home: str, only: list[str]) -> Iterator[dict]:
    """Trains and scores every system and seed that has no result yet below `home`; a row a system.

    Args:
      systems: the rows.
      data: records of the demo corpus, `<somewhere>/records` with its media in `<somewhere>/clips`.
      home: workdirs of the runs, and records of the recipes other than that of `data`.
      only: names of systems, in place of all.

    Raises:
      ValueError: a name that no system has, or a result that was made with other fields or records.
    """
    systems = tuple(systems)
    unknown = set(only) - {system.name for system in systems}
    if unknown:
        raise ValueError(f"--systems: {min(unknown)!r}, expected of {', '.join(s.name for s in systems)}")
    chosen = [system for system in systems if not only or system.name in only]
    paths = {
        recipe: records_of(recipe, data, home)
        for recipe in sorted({ef.settings.small(system.config).data.recipe for system in chosen})
    }
    for system in chosen:
        runs = [run_once(system, seed, paths, home) for seed in SEEDS]
        yield summarise(system, runs) | cost_of(system, paths, home)


def run_once(system: System, seed: int, paths: dict[str, str], home: str) -> dict:
    """The result of one run, from its workdir if it is there; runs first what it starts from."""
    workdir = os.path.join(home, system.name, f"seed_{seed}")
    config = config_of(system, seed, paths, home)
    about = identity(system, seed, config)
    stored = read_stored(os.path.join(workdir, "systems.json"), about)
    if stored:
        return stored
    for name in system.needs:
        run_once(next(s for s in (*SYSTEMS, *ABLATIONS) if s.name == name), seed, paths, home)
    seconds = timed(workdir, lambda: execute(system, seed, config, workdir, home))
    results, _ = evaluate_workdir(workdir, example_count=0)
    kept = {name: {k: row[k] for k in ("ua", "wa", "wf1")} for name, row in results["modalities"].items()}
    result = {"scores": kept, "seconds": seconds, "about": about}
    write_json(os.path.join(workdir, "systems.json"), result)
    jax.clear_caches()
    return result


def execute(system: System, seed: int, config: ml_collections.ConfigDict, workdir: str, home: str) -> None:
    """Trains, or fits the fusion of a finished run again, with generated pairs unless `generate` is False."""
    if system.gan is None:
        train(open_experiment(config), workdir)
        return
    again = ef.settings.load_shipped("gan")
    again.update_from_flattened_dict({"seed": seed, **system.gan})
    refit(*load_experiment(os.path.join(home, system.config, f"seed_{seed}"), "best", ""), again, workdir)


def config_of(system: System, seed: int, paths: dict[str, str], home: str) -> ml_collections.ConfigDict:
    """The config of one run."""
    config = ef.settings.small(system.config)
    fields = {
        k: v.format(seed=seed, home=home) if isinstance(v, str) else v for k, v in system.fields.items()
    }
    config.update_from_flattened_dict(fields)
    config.seed, config.data.path = seed, paths[config.data.recipe]
    return config


def identity(system: System, seed: int, config: ml_collections.ConfigDict) -> dict:
    """What a stored result must have been made with: every field but paths, and the clips."""
    fields = {
        k: v for k, v in flatten(config.to_dict()).items() if k != "data.path" and k.split(".")[0] != "init"
    }
    prep = open_dataset(config.data.path).prep
    return {"fields": fields, "gan": system.gan, "seed": seed, "sources": prep.get("sources_sha256", "")}


def read_stored(path: str, about: dict) -> dict | None:
    """A result that was made before; ValueError naming the field where it was made with another."""
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        stored = json.load(file)
    then, now = flatten(stored["about"]), flatten(json.loads(json.dumps(about)))
    for name in sorted(then.keys() | now.keys()):
        if then.get(name) != now.get(name):
            raise ValueError(
                f"{path}: was made with {name}={then.get(name)!r}, now {now.get(name)!r}; remove its folder"
            )
    return stored


def timed(workdir: str, work) -> float:
    """Seconds of cores that `work` takes, with those of earlier calls that were stopped."""
    os.makedirs(workdir, exist_ok=True)
    path, before = os.path.join(workdir, "seconds"), 0.0
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            before = float(file.read())
    began = time.process_time()
    try:
        work()
    finally:
        seconds = round(before + time.process_time() - began, 1)
        with open(path, "w", encoding="utf-8") as file:
            file.write(str(seconds))
    return seconds


def records_of(recipe: str, data: str, home: str) -> str:
    """The demo corpus in a recipe: `data` is `fbp`, others are prepared below `home`, in small form."""
    if recipe == "fbp":
        return data
    output = os.path.join(home, f"records_{recipe}")
    clips = os.path.join(os.path.dirname(os.path.abspath(data)), "clips")
    settings = recipe_settings(recipe, **SMALL_RECORDS[recipe])
    with counted(f"records ({recipe})") as progress:
        prepare(read_corpus("demo", clips), settings, output, progress=progress)
    return output


def cost_of(system: System, paths: dict[str, str], home: str) -> dict:
    """What the system costs, measured once; a fusion that is fitted again has no speed of its own."""
    config = config_of(system, 0, paths, home)
    about = identity(system, 0, config)
    path = os.path.join(home, system.name, "cost.json")
    found = read_stored(path, about)
    if not found:
        found = {"cost": measure_cost(open_experiment(config)), "about": about}
        write_json(path, found)
        jax.clear_caches()
    return found["cost"] | ({} if system.gan is None else {"clips_per_second": None})


def summarise(system: System, runs: list[dict]) -> dict:
    """One row of the table: means over seeds, with the sample standard deviation of the UA."""
    main = [next(iter(run["scores"].values()))["ua"] for run in runs]
    return {
        "case": system.name,
        "unit": "UA",
        "ours": statistics.mean(main),
        "sd": statistics.stdev(main),
        "seeds": main,
        "modalities": {
            name: statistics.mean(run["scores"][name]["ua"] for run in runs) for name in runs[0]["scores"]
        },
        "seconds": statistics.median(run["seconds"] for run in runs),
        "repeats": len(runs),
    }


def markdown(rows: list[dict]) -> str:
    """The table of README.md."""
    lines = [
        "| system | UA, % | sound alone | face alone | parameters | GFLOP/clip | clips/s | core-s/run |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        alone = [row["modalities"].get(name) for name in ("audio", "video")]
        shown = ["" if ua is None else f"{100 * ua:.1f}" for ua in alone]
        speed = "" if row["clips_per_second"] is None else f"{row['clips_per_second']:.0f}"
        lines.append(
            f"| {row['case']} | {100 * row['ours']:.1f} ± {100 * row['sd']:.1f} | {shown[0]} | {shown[1]} |"
            f" {row['parameters']:,} | {row['forward_gflop']:.3f} | {speed} |"
            f" {row['seconds']:.0f} |"
        )
    return "\n".join(lines)
