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
from emofuse_jax.parallel.memory import usable_device_bytes
from emofuse_jax.parallel.mesh import batch_sharding, put_batch, put_with_sharding, replicated, state_sharding
from emofuse_jax.parallel.xla_options import step_options
from emofuse_jax.scoring.predict import sharded_batches
from emofuse_jax.training.experiment import Experiment, make_experiment_sampler
from emofuse_jax.training.step import jit_train_step, select_epoch_sums
from emofuse_jax.types import Batch, InputSpec, TrainState

DATA_MODES = ("auto", "stream", "resident")
ON_CORRUPT_CHOICES = ("stop", "skip")
MAX_RESIDENT_MEMORY_FRACTION = 1 / 3
"""Of an accelerator's memory that a resident split may take: the step needs the rest."""
ACCELERATOR_STEPS_PER_CALL = 10
"""Steps in a dispatch on accelerators."""

StepOutputs = tuple[TrainState, dict, dict]
"""The state, the last step's metrics, and the sums over all steps of a call that an epoch adds up."""


class BatchSource(Protocol):
    """What the loop asks of either kind."""

    steps_per_call: int
    """Steps that one call may take."""
    data_wait_seconds: float
    """Seconds that `step` stood still for data."""
    skip_policy: SkipPolicy
    """Training clips, where damaged ones are to be left out."""

    def compile(self, step: Callable, state: TrainState) -> jax.stages.Compiled:
        """Compiles `step` (training/step.py) for this kind of data."""

    def step(self, state: TrainState, first_step: int, step_count: int) -> StepOutputs:
        """Takes steps `first_step` to `first_step + step_count`."""

    def validation_batches(self) -> Iterator[Batch]:
        """The validation clips, each once, on the devices."""


def make_batch_source(experiment: Experiment, mesh: Mesh) -> BatchSource:
    """The batch source of `config.data.mode`; ValueError on an unknown mode."""
    mode = experiment.config.data.mode
    if mode not in DATA_MODES:
        raise ValueError(f"config.data.mode={mode!r}: expected one of {', '.join(DATA_MODES)}")
    has_several_buckets = len(experiment.buckets.specs) > 1
    if has_several_buckets and mode == "resident":
        raise ValueError(
            "config.data.buckets: resident clips all have one shape; data.mode=stream has several"
        )
    is_resident = mode == "resident" or (
        mode == "auto" and not has_several_buckets and fits_in_device_memory(experiment, mesh)
    )
    return ResidentBatchSource(experiment, mesh) if is_resident else StreamedBatchSource(experiment, mesh)


def fits_in_device_memory(experiment: Experiment, mesh: Mesh) -> bool:
    """Whether accelerators hold training and validation; a CPU's own memory has the files cached anyway."""
    if jax.default_backend() == "cpu":
        return False
    bytes_per_device = resident_bytes(len(_resident_clips(experiment)), experiment.spec) / mesh.shape["data"]
    return bytes_per_device <= MAX_RESIDENT_MEMORY_FRACTION * usable_device_bytes()


class StreamedBatchSource:
    """Batches are read while the devices work: a step's dispatch does not wait for the step before."""

    steps_per_call = 1

    def __init__(self, experiment: Experiment, mesh: Mesh):
        self._experiment, self._mesh, self._batches, self.data_wait_seconds = experiment, mesh, None, 0.0
        self.skip_policy = make_skip_policy(experiment)
        self._compiled_steps: dict[tuple, jax.stages.Compiled] = {}

    def compile(self, step: Callable, state: TrainState) -> jax.stages.Compiled:
        """The step on one batch, of each length that there is; gives that of the longest."""
        config, mesh = self._experiment.config, self._mesh
        jitted_step = jit_train_step(step, state, mesh, fsdp=config.mesh.fsdp)
        for spec in self._experiment.buckets.specs:
            batch = abstract_batch(spec, config.data.batch_size, mesh)
            self._compiled_steps[batch_lengths(batch)] = compiled_step = jitted_step.lower(
                state, batch
            ).compile()
        return compiled_step

    def step(self, state: TrainState, first_step: int, step_count: int) -> StepOutputs:
        """Takes one step; `step_count` is 1."""
        start_time = time.monotonic()
        if self._batches is None:
            self._batches = make_train_batches(self._experiment, self.skip_policy, first_batch=first_step)
        batch = next(self._batches)
        self.data_wait_seconds += time.monotonic() - start_time
        state, step_metrics = self._compiled_steps[batch_lengths(batch)](state, put_batch(batch, self._mesh))
        return state, step_metrics, select_epoch_sums(step_metrics)

    def validation_batches(self) -> Iterator[Batch]:
        """Reads them again."""
        experiment, batch_size = self._experiment, self._experiment.config.train.eval_batch_size
        clips, buckets = experiment.clips["validation"], experiment.buckets
        clips = buckets.sort_by_bucket(clips)
        return sharded_batches(experiment.dataset, clips, buckets.spec, self._mesh, batch_size=batch_size)


class ResidentBatchSource:
    """Training and validation lie in the devices' memory, sharded over `data`; steps gather their rows."""

    def __init__(self, experiment: Experiment, mesh: Mesh):
        self._experiment, self._mesh, self.data_wait_seconds = experiment, mesh, 0.0
        self._clips, self._sampler = _resident_clips(experiment), make_experiment_sampler(experiment)
        self.skip_policy = make_skip_policy(experiment)
        default_steps_per_call = 1 if jax.default_backend() == "cpu" else ACCELERATOR_STEPS_PER_CALL
        self.steps_per_call = experiment.config.train.steps_per_call or default_steps_per_call
        resident_batch = load_resident(
            experiment.dataset,
            self._clips,
            experiment.spec,
            row_multiple=mesh.shape["data"],
            process=(jax.process_index(), jax.process_count()),
            skip_policy=self.skip_policy,
        )
        if experiment.labels is not None:  # of training alone: no clip is in both parts
            resident_batch = hide_labels(resident_batch, experiment.clips["train"][experiment.labels < 0])
        self._data = put_batch(resident_batch, mesh)
        self._take_batch = jax.jit(
            lambda data, rows: take_sharded(data, rows, mesh), out_shardings=batch_sharding(mesh)
        )

    def compile(self, step: Callable, state: TrainState) -> jax.stages.Compiled:
        """Some steps, each on rows that it gathers; another number of them is compiled when it comes."""
        config, mesh = self._experiment.config, self._mesh

        def take_step(data: Batch, state: TrainState, rows: Int[Array, " b"]):
            state, step_metrics = step(state, take_sharded(data, rows, mesh))
            return state, (step_metrics, select_epoch_sums(step_metrics))

        def take_steps(state: TrainState, data: Batch, rows: Int[Array, "k b"]) -> StepOutputs:
            if rows.shape[0] == 1:  # XLA's CPU backend runs convolutions slowly in a loop
                state, (step_metrics, sums) = take_step(data, state, rows[0])
                return state, step_metrics, sums
            state, (step_metrics, sums) = jax.lax.scan(
                lambda state, step_rows: take_step(data, state, step_rows), state, rows
            )
            return state, jax.tree.map(lambda x: x[-1], step_metrics), jax.tree.map(lambda x: x.sum(0), sums)

        state_shardings, replicated_sharding = (
            state_sharding(state, mesh, fsdp=config.mesh.fsdp),
            replicated(mesh),
        )
        self._compiled_steps = jax.jit(
            take_steps,
            in_shardings=(state_shardings, batch_sharding(mesh), replicated_sharding),
            out_shardings=(state_shardings, replicated_sharding, replicated_sharding),
            donate_argnums=0,
            compiler_options=step_options(mesh),
        )
        rows_shape = (self.steps_per_call, config.data.batch_size)
        rows = jax.ShapeDtypeStruct(rows_shape, jnp.int32, sharding=replicated_sharding)
        return self._compiled_steps.lower(state, self._data, rows).compile()

    def step(self, state: TrainState, first_step: int, step_count: int) -> StepOutputs:
        """Takes `step_count` steps in one call."""
        start_time = time.monotonic()
        clip_indices = np.stack([self._sampler.batch(first_step + i) for i in range(step_count)])
        rows = put_with_sharding(row_numbers(self._clips, clip_indices), replicated(self._mesh))
        self.data_wait_seconds += time.monotonic() - start_time
        return self._compiled_steps(state, self._data, rows)

    def validation_batches(self) -> Iterator[Batch]:
        """Gathers them."""
        clips, batch_size = (
            self._experiment.clips["validation"],
            self._experiment.config.train.eval_batch_size,
        )
        for rows in to_padded_batches(row_numbers(self._clips, clips), batch_size):
            yield self._take_batch(self._data, put_with_sharding(rows, replicated(self._mesh)))


def make_skip_policy(experiment: Experiment) -> SkipPolicy:
    """What `config.data.on_corrupt` lets go: nothing, or training clips; never one that is scored."""
    on_corrupt = experiment.config.data.on_corrupt
    if on_corrupt not in ON_CORRUPT_CHOICES:
        raise ValueError(
            f"config.data.on_corrupt={on_corrupt!r}: expected one of {', '.join(ON_CORRUPT_CHOICES)}"
        )
    return SkipPolicy(frozenset(experiment.clips["train"].tolist() if on_corrupt == "skip" else ()))


def make_train_batches(
    experiment: Experiment, skip_policy: SkipPolicy = SKIP_NOTHING, first_batch: int = 0
) -> Iterator[Batch]:
    """The training batches that this process reads, from batch `first_batch`."""
    labels = experiment.labels
    return train_batches(
        experiment.dataset,
        make_experiment_sampler(experiment),
        experiment.buckets.spec,
        process=(jax.process_index(), jax.process_count()),
        threads=experiment.config.data.threads,
        hidden_label_clips=None if labels is None else experiment.clips["train"][labels < 0],
        start=first_batch,
        skip_policy=skip_policy,
    )


def abstract_batch(spec: InputSpec, batch_size: int, mesh: Mesh) -> Batch:
    """Shapes, dtypes and shardings of a global batch of `batch_size` rows."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype, sharding=sharding),
        empty_batch(1, spec),
    )


def batch_lengths(batch: Batch) -> tuple[int, int]:
    """Steps of a batch's spectrograms and of its features."""
    features = batch.audio_features
    return batch.audio.shape[1], 0 if features is None else features.shape[1]


def _resident_clips(experiment: Experiment) -> Int[np.ndarray, " n"]:
    """Training and validation, sorted."""
    return np.unique(np.concatenate([experiment.clips[split] for split in ("train", "validation")]))
