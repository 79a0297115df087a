"""Where training and validation clips come from: read as they are needed, or resident on the devices."""

import time
from collections.abc import Callable, Iterator
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int

from emofuse_jax.data.collate import empty_batch
from emofuse_jax.data.labels import hide_labels
from emofuse_jax.data.pipeline import SKIP_NOTHING, SkipPolicy, to_padded_batches, train_batches
from emofuse_jax.data.resident import load_resident, resident_bytes, row_numbers, take_sharded
from emofuse_jax.parallel.memory import device_bytes
from emofuse_jax.parallel.mesh import batch_sharding, put_as, put_batch, replicated, state_sharding
from emofuse_jax.parallel.xla_options import step_options
from emofuse_jax.scoring.predict import sharded_batches
from emofuse_jax.training.experiment import Experiment, experiment_sampler
from emofuse_jax.training.step import epoch_sums, jit_train_step
from emofuse_jax.types import Batch, InputSpec, TrainState

MODES = ("auto", "stream", "resident")
ON_CORRUPT = ("stop", "skip")
SHARE = 1 / 3
"""Of an accelerator's memory that a resident split may take: the step needs the rest."""
FUSED = 10
"""Steps in a dispatch on accelerators."""

Stepped = tuple[TrainState, dict, dict]
"""The state, the last step's metrics, and the sums over all steps of a call that an epoch adds up."""


class Feed(Protocol):
    """What the loop asks of either kind."""

    per_call: int
    """Steps that one call may take."""
    waited: float
    """Seconds that `step` stood still for data."""
    spare: SkipPolicy
    """Training clips, where damaged ones are to be left out."""

    def compile(self, step: Callable, state: TrainState) -> jax.stages.Compiled:
        """Compiles `step` (training/step.py) for this kind of data."""

    def step(self, state: TrainState, number: int, count: int) -> Stepped:
        """Takes steps `number` to `number + count`."""

    def validation(self) -> Iterator[Batch]:
        """The validation clips, each once, on the devices."""


def make_feed(experiment: Experiment, mesh: Mesh) -> Feed:
    """The feed of `config.data.mode`; ValueError on an unknown mode."""
    mode = experiment.config.data.mode
    if mode not in MODES:
        raise ValueError(f"config.data.mode={mode!r}: expected one of {', '.join(MODES)}")
    several = len(experiment.buckets.specs) > 1
    if several and mode == "resident":
        raise ValueError(
            "config.data.buckets: resident clips all have one shape; data.mode=stream has several"
        )
    resident = mode == "resident" or (mode == "auto" and not several and fits(experiment, mesh))
    return Resident(experiment, mesh) if resident else Streamed(experiment, mesh)


def fits(experiment: Experiment, mesh: Mesh) -> bool:
    """Whether accelerators hold training and validation; a CPU's own memory has the files cached anyway."""
    if jax.default_backend() == "cpu":
        return False
    taken = resident_bytes(len(_clips(experiment)), experiment.spec) / mesh.shape["data"]
    return taken <= SHARE * device_bytes()


class Streamed:
    """Batches are read while the devices work: a step's dispatch does not wait for the step before."""

    per_call = 1

    def __init__(self, experiment: Experiment, mesh: Mesh):
        self._experiment, self._mesh, self._batches, self.waited = experiment, mesh, None, 0.0
        self.spare = make_spare(experiment)
        self._programs: dict[tuple, jax.stages.Compiled] = {}

    def compile(self, step: Callable, state: TrainState) -> jax.stages.Compiled:
        """The step on one batch, of each length that there is; gives that of the longest."""
        config, mesh = self._experiment.config, self._mesh
        jitted = jit_train_step(step, state, mesh, fsdp=config.mesh.fsdp)
        for spec in self._experiment.buckets.specs:
            rows = abstract_batch(spec, config.data.batch_size, mesh)
            self._programs[lengths(rows)] = program = jitted.lower(state, rows).compile()
        return program

    def step(self, state: TrainState, number: int, count: int) -> Stepped:
        """Takes one step; `count` is 1."""
        began = time.monotonic()
        if self._batches is None:
            self._batches = make_batches(self._experiment, self.spare, start=number)
        batch = next(self._batches)
        self.waited += time.monotonic() - began
        state, measured = self._programs[lengths(batch)](state, put_batch(batch, self._mesh))
        return state, measured, epoch_sums(measured)

    def validation(self) -> Iterator[Batch]:
        """Reads them again."""
        experiment, size = self._experiment, self._experiment.config.train.eval_batch_size
        clips, buckets = experiment.clips["validation"], experiment.buckets
        clips = buckets.sort_by_bucket(clips)
        return sharded_batches(experiment.dataset, clips, buckets.spec, self._mesh, batch_size=size)


class Resident:
    """Training and validation lie in the devices' memory, sharded over `data`; steps gather their rows."""

    def __init__(self, experiment: Experiment, mesh: Mesh):
        self._experiment, self._mesh, self.waited = experiment, mesh, 0.0
        self._clips, self._sampler = _clips(experiment), experiment_sampler(experiment)
        self.spare = make_spare(experiment)
        fused = 1 if jax.default_backend() == "cpu" else FUSED
        self.per_call = experiment.config.train.steps_per_call or fused
        held = load_resident(
            experiment.dataset,
            self._clips,
            experiment.spec,
            row_multiple=mesh.shape["data"],
            process=(jax.process_index(), jax.process_count()),
            skip_policy=self.spare,
        )
        if experiment.labels is not None:  # of training alone: no clip is in both parts
            held = hide_labels(held, experiment.clips["train"][experiment.labels < 0])
        self._data = put_batch(held, mesh)
        self._take = jax.jit(
            lambda data, rows: take_sharded(data, rows, mesh), out_shardings=batch_sharding(mesh)
        )

    def compile(self, step: Callable, state: TrainState) -> jax.stages.Compiled:
        """Some steps, each on rows that it gathers; another number of them is compiled when it comes."""
        config, mesh = self._experiment.config, self._mesh

        def one(data: Batch, state: TrainState, rows: Int[Array, " b"]):
            state, measured = step(state, take_sharded(data, rows, mesh))
            return state, (measured, epoch_sums(measured))

        def steps(state: TrainState, data: Batch, rows: Int[Array, "k b"]) -> Stepped:
            if rows.shape[0] == 1:  # XLA's CPU backend runs convolutions slowly in a loop
                state, (measured, sums) = one(data, state, rows[0])
                return state, measured, sums
            state, (measured, sums) = jax.lax.scan(lambda state, r: one(data, state, r), state, rows)
            return state, jax.tree.map(lambda x: x[-1], measured), jax.tree.map(lambda x: x.sum(0), sums)

        own, whole = state_sharding(state, mesh, fsdp=config.mesh.fsdp), replicated(mesh)
        self._program = jax.jit(
            steps,
            in_shardings=(own, batch_sharding(mesh), whole),
            out_shardings=(own, whole, whole),
            donate_argnums=0,
            compiler_options=step_options(mesh),
        )
        shape = (self.per_call, config.data.batch_size)
        rows = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=whole)
        return self._program.lower(state, self._data, rows).compile()

    def step(self, state: TrainState, number: int, count: int) -> Stepped:
        """Takes `count` steps in one call."""
        began = time.monotonic()
        chosen = np.stack([self._sampler.batch(number + i) for i in range(count)])
        rows = put_as(row_numbers(self._clips, chosen), replicated(self._mesh))
        self.waited += time.monotonic() - began
        return self._program(state, self._data, rows)

    def validation(self) -> Iterator[Batch]:
        """Gathers them."""
        clips, size = self._experiment.clips["validation"], self._experiment.config.train.eval_batch_size
        for rows in to_padded_batches(row_numbers(self._clips, clips), size):
            yield self._take(self._data, put_as(rows, replicated(self._mesh)))


def make_spare(experiment: Experiment) -> SkipPolicy:
    """What `config.data.on_corrupt` lets go: nothing, or training clips; never one that is scored."""
    choice = experiment.config.data.on_corrupt
    if choice not in ON_CORRUPT:
        raise ValueError(f"config.data.on_corrupt={choice!r}: expected one of {', '.join(ON_CORRUPT)}")
    return SkipPolicy(frozenset(experiment.clips["train"].tolist() if choice == "skip" else ()))


def make_batches(experiment: Experiment, spare: SkipPolicy = SKIP_NOTHING, start: int = 0) -> Iterator[Batch]:
    """The training batches that this process reads, from batch `start`."""
    labels = experiment.labels
    return train_batches(
        experiment.dataset,
        experiment_sampler(experiment),
        experiment.buckets.spec,
        process=(jax.process_index(), jax.process_count()),
        threads=experiment.config.data.threads,
        hidden_label_clips=None if labels is None else experiment.clips["train"][labels < 0],
        start=start,
        skip_policy=spare,
    )


def abstract_batch(spec: InputSpec, size: int, mesh: Mesh) -> Batch:
    """Shapes, dtypes and shardings of a global batch of `size` rows."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype, sharding=sharding), empty_batch(1, spec)
    )


def lengths(batch: Batch) -> tuple[int, int]:
    """Steps of a batch's spectrograms and of its features."""
    features = batch.audio_features
    return batch.audio.shape[1], 0 if features is None else features.shape[1]


def _clips(experiment: Experiment) -> Int[np.ndarray, " n"]:
    """Training and validation, sorted."""
    return np.unique(np.concatenate([experiment.clips[part] for part in ("train", "validation")]))
