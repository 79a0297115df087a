"""Every system on the demo corpus, three seeds each: what the suite `systems` runs, in which order.

A row is a shipped config in its small form (configs/demo.py) with overrides. A run whose results lie in its
workdir is not run again, so that the suite goes on where it was stopped.
"""

import dataclasses
import json
import os
import statistics
import time
from collections.abc import Iterator

import jax

from configs import demo, gan
from data_prep.corpora import read_corpus
from data_prep.pipeline import prepare
from data_prep.settings import recipe_settings
from emofuse_jax.evaluate import evaluate_workdir, load_experiment, write_results
from emofuse_jax.train.experiment import Experiment, open_experiment
from emofuse_jax.train.loop import train
from emofuse_jax.train.optimizer import make_optimizer
from emofuse_jax.train.refit import refit
from emofuse_jax.train.sharding import make_mesh, put_batch, state_sharding
from emofuse_jax.train.step import init_state, jit_train_step, make_train_step
from launch.bars import counted

SEEDS = (0, 1, 2)
STEPS = 15
"""Timed steps of each system."""


SMALL_RECORDS = {
    "hgr": {"face_size": 56},
    "cross_attention": {"frames": 12, "snippet": 4, "face_size": 56},
}
"""What the small forms change in the records of a recipe."""


@dataclasses.dataclass(frozen=True)
class System:
    """One row: its config, and the fields that it changes; `{seed}` and `{home}` in a text are filled in."""

    name: str
    config: str
    fields: dict = dataclasses.field(default_factory=dict)
    gan: dict | None = None
    """Fields of configs/gan.py: the fusion of the row named `config` is fitted again (train/refit.py)."""


SYSTEMS = (
    System("audio_only", "audio_only"),
    System("video_only", "video_only"),
    System("concat", "concat"),
    System("late", "late"),
    System("f_score", "f_score"),
    System("g_fbp", "g_fbp"),
    System("ag_fbp", "ag_fbp"),
    System("am_fbp", "am_fbp"),
    System(
        "two_stage",
        "two_stage",
        {"init.audio": "{home}/audio_only/seed_{seed}", "init.video": "{home}/video_only/seed_{seed}"},
    ),
    System("mfb", "mfb"),
    System("mfh", "mfh"),
    System("lmf", "lmf"),
    System("emodal", "emodal"),
    System("joint_cross_attention", "joint_cross_attention"),
    System("bottleneck", "bottleneck"),
    System("avef", "avef"),
    System("hgr", "hgr"),
    System("hgr-no_correlation", "hgr", {"loss.objectives.correlation": 0.0}),
    System("hgr-10_percent", "hgr_semi"),
    System("hgr-10_percent-supervised", "hgr_semi", {"data.keep_unlabelled": False, "train.epochs": 90}),
    System("cross_attention", "cross_attention"),
    System("cross_attention-no_metric", "cross_attention", {"loss.objectives.emotional_metric": 0.0}),
    System("cross_attention-triplet", "cross_attention", {"model.margins.kind": "triplet"}),
    System(
        "cross_attention-polarity",
        "cross_attention",
        {
            "loss.objectives.emotional_metric": 0.0,
            "loss.objectives.cross_entropy": 0.0,
            "loss.objectives.polarity": 1.0,
        },
    ),
    System(
        "cross_attention-adaptive_triplet",
        "cross_attention",
        {"loss.objectives.emotional_metric": 0.0, "loss.objectives.adaptive_triplet": 0.3},
    ),
    System("am_fbp-dropout", "am_fbp", {"augment.audio_dropout": 0.2, "augment.video_dropout": 0.2}),
    System("concat-gan", "concat", gan={}),
    System("concat-refit", "concat", gan={"generate": False}),
)


def run_systems(data: str, home: str, only: list[str]) -> Iterator[dict]:
    """Trains and scores every system and seed that has no result yet below `home`; a row a system.

    Args:
      data: records of the demo corpus, `<somewhere>/records` with its media in `<somewhere>/clips`.
      home: workdirs of the runs, and records of the recipes other than that of `data`.
      only: names of systems, in place of all.

    Raises:
      ValueError: a name that no system has.
    """
    unknown = set(only) - {system.name for system in SYSTEMS}
    if unknown:
        raise ValueError(f"--systems: {min(unknown)!r}, expected of {', '.join(s.name for s in SYSTEMS)}")
    for system in SYSTEMS:
        if not only or system.name in only:
            runs = [run_once(system, seed, data, home) for seed in SEEDS]
            yield summarise(system, runs) | cost(system, data, home)


def run_once(system: System, seed: int, data: str, home: str) -> dict:
    """The result of one run, from its workdir if it is there."""
    workdir = os.path.join(home, system.name, f"seed_{seed}")
    path = os.path.join(workdir, "systems.json")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    began = time.monotonic()
    if system.gan is None:
        train(open_system(system, seed, data, home), workdir)
    else:
        fields = {"seed": seed, **system.gan}
        fit_again(os.path.join(home, system.config, f"seed_{seed}"), workdir, fields)
    seconds = time.monotonic() - began
    results, _ = evaluate_workdir(workdir, examples=0)
    result = {
        "scores": {
            name: {k: row[k] for k in ("ua", "wa", "wf1")} for name, row in results["modalities"].items()
        },
        "seconds": round(seconds, 1),
    }
    write_results(path, result)
    jax.clear_caches()
    return result


def open_system(system: System, seed: int, data: str, home: str) -> Experiment:
    """The experiment of one run."""
    config = demo.get_config(system.config)
    fields = {
        k: v.format(seed=seed, home=home) if isinstance(v, str) else v for k, v in system.fields.items()
    }
    config.update_from_flattened_dict(fields)
    config.seed, config.data.path = seed, records_of(config.data.recipe, data, home)
    return open_experiment(config)


def fit_again(encoder: str, workdir: str, fields: dict) -> None:
    """Fits the fusion of a finished run again, with generated pairs unless `generate` is False."""
    config = gan.get_config()
    config.update_from_flattened_dict(fields)
    refit(*load_experiment(encoder, "best", ""), config, workdir)


def records_of(recipe: str, data: str, home: str) -> str:
    """The demo corpus in a recipe: `data` is `fbp`, others are prepared below `home`, in small form."""
    if recipe == "fbp":
        return data
    output, clips = os.path.join(home, f"records_{recipe}"), os.path.join(os.path.dirname(data), "clips")
    settings = recipe_settings(recipe, **SMALL_RECORDS[recipe])
    with counted(f"records ({recipe})") as progress:
        prepare(read_corpus("demo", clips), settings, output, progress=progress)
    return output


def cost(system: System, data: str, home: str) -> dict:
    """Parameters, arithmetic of scoring a clip, and training speed on batches that lie in memory."""
    path = os.path.join(home, system.name, "cost.json")
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    experiment = open_system(system, 0, data, home)
    found = {
        "parameters": count_parameters(experiment),
        "forward_gflop": forward_flops(experiment) / 1e9,
        "clips_per_second": training_speed(experiment),
    }
    write_results(path, found)
    jax.clear_caches()
    return found


def training_speed(experiment: Experiment) -> float:
    """Clips per second of the compiled training step: the median of STEPS steps after one that warms up."""
    config, mesh = experiment.config, make_mesh(experiment.config.mesh)
    tx = make_optimizer(config.optimizer, STEPS)
    state = init_state(experiment.model, tx, jax.random.key(0), experiment.statistics)
    state = jax.device_put(state, state_sharding(state, mesh, fsdp=False))
    step = jit_train_step(make_train_step(experiment.model, tx, config), state, mesh, fsdp=False)
    batch = put_batch(experiment.model.fake_batch(config.data.batch_size), mesh)
    times = []
    for _ in range(STEPS + 1):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        times.append(time.perf_counter() - began)
    return config.data.batch_size / statistics.median(times[1:])


def count_parameters(experiment: Experiment) -> int:
    """Trained numbers."""
    params, _ = jax.eval_shape(experiment.model.init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def forward_flops(experiment: Experiment) -> float:
    """Floating-point operations of scoring one clip, as XLA counts them."""
    numbers = jax.eval_shape(experiment.model.init, jax.random.key(0))
    batch = experiment.model.fake_batch(1)
    return jax.jit(experiment.model.apply).lower(*numbers, batch).cost_analysis()["flops"]


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
        "| system | UA, % | sound alone | face alone | parameters | GFLOP/clip | clips/s | s/run |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        alone = [row["modalities"].get(name) for name in ("audio", "video")]
        shown = ["" if ua is None else f"{100 * ua:.1f}" for ua in alone]
        lines.append(
            f"| {row['case']} | {100 * row['ours']:.1f} ± {100 * row['sd']:.1f} | {shown[0]} | {shown[1]} |"
            f" {row['parameters']:,} | {row['forward_gflop']:.3f} | {row['clips_per_second']:.0f} |"
            f" {row['seconds']:.0f} |"
        )
    return "\n".join(lines)
