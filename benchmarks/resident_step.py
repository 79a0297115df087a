"""Runs the training step of `emofuse train` on resident data, several steps per call."""

import os
from collections.abc import Callable, Iterator

import jax
import numpy as np

import emofuse_jax as ef
from emofuse_jax.parallel.mesh import make_mesh, state_sharding
from emofuse_jax.training.batch_source import ResidentBatchSource
from emofuse_jax.training.experiment import open_experiment
from emofuse_jax.training.optimizer import make_optimizer
from emofuse_jax.training.step import init_state, make_train_step
from emofuse_jax.types import InputSpec

SPEAKERS = 10
"""Number of speakers: two for each of five folds."""
CLIPS_PER_ROW = 4
"""Number of clips for each row of a batch; three fifths of them are training clips."""


def make_resident_step(config, spec: InputSpec, path: str) -> tuple[Callable[[], None], jax.stages.Compiled]:
    """Returns a function that trains for `config.train.steps_per_call` steps, and the program that it runs.

    Args:
      config: Config of the experiment. Its fields about the records are changed.
      spec: Sizes of the clips.
      path: Directory for records of random clips, which later calls use again.
    """
    if not os.path.isdir(path):
        clips = make_clips(spec, CLIPS_PER_ROW * config.data.batch_size)
        ef.write_records(path, clips, classes=[str(i) for i in range(spec.classes)])
    config.data.update(path=path, audio_steps=spec.t, mode="resident", recipe="arrays")
    experiment, mesh = open_experiment(config), make_mesh(config.mesh)
    source, tx = ResidentBatchSource(experiment, mesh), make_optimizer(config.optimizer, 1000)
    state = init_state(experiment.model, tx, jax.random.key(0), experiment.statistics)
    state = jax.device_put(state, state_sharding(state, mesh, fsdp=False))
    compiled = source.compile(make_train_step(experiment.model, tx, experiment.config), state)
    carry = {"state": state, "step": 0}

    def run() -> None:
        carry["state"], metrics, _ = source.step(carry["state"], carry["step"], source.steps_per_call)
        carry["step"] += source.steps_per_call
        jax.block_until_ready(metrics)

    return run, compiled


def make_clips(spec: InputSpec, count: int) -> Iterator[ef.Clip]:
    """Yields random clips without padding."""
    rng = np.random.default_rng(0)
    for i in range(count):
        yield ef.Clip(
            clip_id=f"clip{i:05d}",
            speaker=f"speaker{i % SPEAKERS}",
            label=str(i // SPEAKERS % spec.classes),
            spectrogram=rng.normal(-4, 2, (spec.t, spec.f)),
            faces=rng.integers(0, 256, (spec.s, spec.h, spec.w, 3), np.uint8),
        )
