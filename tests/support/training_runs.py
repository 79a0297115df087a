"""Trainings of seconds on features of frozen encoders, in this process or in one of their own."""

import json
import os
import subprocess
import sys

import jax
import numpy as np

from benchmarks.feature_records import CorpusSpec
from emofuse_jax import settings
from emofuse_jax.api.evaluation import load_trained_experiment
from emofuse_jax.training.metric_writer import read_metric_rows

FEATURE_SPEC = CorpusSpec(
    clips=144, speakers=6, folds=3, classes=3, steps=8, audio=12, frames=6, face=10, shift=0.25
)
RUN = [sys.executable, "-m", "tests.support.run_train"]


def small_config(records, fusion="am_fbp", **fields):
    config = settings.with_features(fusion)
    config.data.update(path=records, audio_steps=16, batch_size=8)
    config.model.audio.embedding = config.model.video.embedding = 16
    fusion_sizes = {"width": 16, "factors": 2}.items()
    config.model.fusion.update({name: size for name, size in fusion_sizes if name in config.model.fusion})
    config.train.update(epochs=4, eval_batch_size=8)
    config.optimizer.learning_rate = 3e-3
    config.update_from_flattened_dict(fields)
    return config


def start_train(workdir, config, *, devices=1, process=()):
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
    arguments = [*RUN, str(workdir), json.dumps(config.to_dict()), *map(str, process)]
    with open(f"{workdir}-{process[0] if process else ''}.log", "w") as log:
        return subprocess.Popen(arguments, env=env, stdout=log, stderr=subprocess.STDOUT)


def read_log(workdir, process=""):
    with open(f"{workdir}-{process}.log") as log:
        return log.read()[-3000:]


def wait_for_success(process, timeout=240):
    assert process.wait(timeout) == 0, read_log(process.args[3])


def final_params(workdir):
    """Of both checkpoints."""
    both = [load_trained_experiment(str(workdir), kind, "")[1:3] for kind in ("last", "best")]
    return jax.tree.map(np.asarray, both)


def read_untimed_rows(workdir):
    timing_fields = ("clips_per_second", "waiting")
    return [
        {k: v for k, v in row.items() if k not in timing_fields}
        for row in read_metric_rows(f"{workdir}/metrics.jsonl")
    ]
