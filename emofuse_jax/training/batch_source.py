"""Provides training and validation batches: read from disk when needed, or resident on the devices."""

import time
from collections.abc import Iterator
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
from emofuse_jax.training.step import EpochSums, StepMetrics, TrainStep, jit_train_step, select_epoch_sums
from emofuse_jax.types import Batch, InputSpec, TrainState

DATA_MODES = ("auto", "stream", "resident")
"""Values of `config.data.mode`."""
ON_CORRUPT_CHOICES = ("stop", "skip")
"""Values of `config.data.on_corrupt`."""
MAX_RESIDENT_MEMORY_FRACTION = 1 / 3
"""Maximum fraction of an accelerator's memory for resident clips; the training step needs the rest."""
ACCELERATOR_STEPS_PER_CALL = 10
"""Default number of steps per dispatch on accelerators."""

StepOutputs = tuple[TrainState, StepMetrics, EpochSums]
"""The state, the metrics of the last step, and the sums over all steps of the call (`select_epoch_sums`)."""


class BatchSource(Protocol):
    """Interface of the two batch sources, used by the training loop."""

    steps_per_call: int
    """Maximum number of steps per call."""
    data_wait_seconds: float
    """Seconds that `step` has waited for data."""
    skip_policy: SkipPolicy
    """Training clips that are skipped if their records are damaged."""

    def compile(self, step: TrainStep, state: TrainState) -> jax.stages.Compiled:
        """Compiles a training step for the data of this source; `step` then executes it.

        Args:
          step: function `(state, batch) -> (state, metrics)` of `make_train_step`.
          state: training state; only its shapes and dtypes are used.

        Returns:
          The compiled program, of which only the FLOPs and the memory are of use to the caller.

        Raises:
          ValueError: if `step` raises it because its config does not fit the model or the clips, or if
            `config.data.batch_size` is not a multiple of the devices.
        """

    def step(self, state: TrainState, first_step: int, step_count: int) -> StepOutputs:
        """Executes `step_count` steps; the first one has the number `first_step`, counted from 0.

        `compile` must be called before. `state` is donated: do not use it afterwards. `step_count` is at most
        the attribute `steps_per_call`; each call must continue where the last one ended.

        Returns:
          A tuple of trees of arrays on the devices: the new state; the metrics of the last step, a dict of
          `loss`, each term of the loss by name, `gradient_norm` (scalars) and `confusion` [c c] (c classes,
          rows true classes); and a dict with the sums of `loss` and `confusion` over all steps.

        Raises:
          DamagedRecordError: if batches are read from disk, and a record is damaged and must not be skipped
            (a ValueError).
          ValueError: if batches are read from disk, and `config.data.threads`, `config.data.batch_size` or a
            field of the sampler (`seed`, `balanced`, `labelled_share`) is invalid, a record lacks a field of
            the batch, or the records do not match prep.json.
          OSError: if batches are read from disk, and a shard is missing or cannot be opened.
        """

    def validation_batches(self) -> Iterator[Batch]:
        """Yields batches of all validation clips, each clip once, on the devices; the last one is padded.

        Each Batch has the inputs `audio` [b t f], `faces` [b s h w 3], `audio_features` [b u d] and
        `face_features` [b s d] (None if the records have none), their masks `audio_mask` [b t], `face_mask`
        [b s] and `audio_features_mask` [b u] (True where valid), and `label`, `weight` (1, or 0 on a padded
        row) and `clip` (record index, -1 on a padded row), [b] each. The rows are sharded over the mesh axis
        `data`. The order of the clips depends on the source.

        Raises:
          DamagedRecordError: if batches are read from disk and a record is damaged (a ValueError).
          ValueError: if `config.train.eval_batch_size` is not a multiple of the devices, or if batches are
            read from disk, and a record lacks a field of the batch or the records do not match prep.json.
          OSError: if batches are read from disk, and a shard is missing or cannot be opened.
        """


def make_batch_source(experiment: Experiment, mesh: Mesh) -> BatchSource:
    """Returns the batch source for `config.data.mode`: a ResidentBatchSource or a StreamedBatchSource.

    `auto` chooses resident data on accelerators if the clips fit in a third of their memory and all batches
    have one length. For resident data, the records of all training and validation clips are read.

    Raises:
      ValueError: if the mode is unknown, if resident data is combined with several buckets, if
        `config.data.on_corrupt`, `config.data.buckets`, `config.data.batch_size` or a field of the sampler
        (`seed`, `balanced`, `labelled_share`) is invalid, or if resident records, or those of several
        buckets, lack a field of the batch or do not match prep.json.
      DamagedRecordError: if a resident record is damaged and must not be skipped (a ValueError).
      OSError: if a shard is missing or cannot be opened, for resident data or several buckets.
    """
    mode = experiment.config.data.mode
    if mode not in DATA_MODES:
        raise ValueError(f"config.data.mode={mode!r}: expected one of {', '.join(DATA_MODES)}")
    has_several_buckets = len(experiment.buckets.specs) > 1
    if has_several_buckets and mode == "resident":
        raise ValueError(
            f"config.data.buckets={experiment.config.data.buckets}: expected 1, because resident clips must"
            " have one shape; or set config.data.mode=stream"
        )
    is_resident = mode == "resident" or (
        mode == "auto" and not has_several_buckets and fits_in_device_memory(experiment, mesh)
    )
    return ResidentBatchSource(experiment, mesh) if is_resident else StreamedBatchSource(experiment, mesh)


def fits_in_device_memory(experiment: Experiment, mesh: Mesh) -> bool:
    """Returns True if the training and validation clips fit in a third of the accelerators' usable memory.

    Usable are nine tenths of a device's memory. Returns False if they do not fit, and always on a CPU, where
    the operating system caches the files in the same memory anyway.
    """
    if jax.default_backend() == "cpu":
        return False
    bytes_per_device = resident_bytes(len(_resident_clips(experiment)), experiment.spec) / mesh.shape["data"]
    return bytes_per_device <= MAX_RESIDENT_MEMORY_FRACTION * usable_device_bytes()


class StreamedBatchSource:
    """Reads batches from disk while the devices work; dispatching a step does not wait for the previous
    step."""

    steps_per_call = 1

    def __init__(self, experiment: Experiment, mesh: Mesh) -> None:
        self._experiment, self._mesh, self.data_wait_seconds = experiment, mesh, 0.0
        self._batches: Iterator[Batch] | None = None
        self.skip_policy = make_skip_policy(experiment)
        self._compiled_steps: dict[tuple[int, int], jax.stages.Compiled] = {}

    def compile(self, step: TrainStep, state: TrainState) -> jax.stages.Compiled:
        """Compiles a training step for each batch length; `step` then executes these programs.

        Args:
          step: function `(state, batch) -> (state, metrics)` of `make_train_step`.
          state: training state; only its shapes and dtypes are used.

        Returns:
          The program `(state, batch) -> (state, metrics)` of the longest batches, for its FLOPs and memory.

        Raises:
          ValueError: if `step` raises it because its config does not fit the model or the clips, or if
            `config.data.batch_size` is not a multiple of the devices.
        """
        config, mesh = self._experiment.config, self._mesh
        jitted_step = jit_train_step(step, state, mesh, fsdp=config.mesh.fsdp)
        for spec in self._experiment.buckets.specs:
            batch = abstract_batch(spec, config.data.batch_size, mesh)
            self._compiled_steps[batch_lengths(batch)] = compiled_step = jitted_step.lower(
                state, batch
            ).compile()
        return compiled_step

    def step(self, state: TrainState, first_step: int, step_count: int) -> StepOutputs:
        """Reads the next batch, and executes one step; `step_count` must be 1, and is not read.

        The first call starts at batch `first_step`, later calls continue with the next batch. `compile` must
        be called before. `state` is donated: do not use it afterwards.

        Returns:
          A tuple of trees of arrays on the devices: the new state; the metrics of the step, a dict of `loss`,
          each term of the loss by name, `gradient_norm` (scalars) and `confusion` [c c] (c classes, rows true
          classes); and a dict with `loss` and `confusion` of this step.

        Raises:
          DamagedRecordError: if a record is damaged and must not be skipped (a ValueError).
          ValueError: if a record lacks a field of the batch, if the records do not match prep.json, if
            `config.data.batch_size` is not a multiple of the processes or above the number of training clips,
            or if `config.data.threads` or a field of the sampler (`seed`, `balanced`, `labelled_share`) is
            invalid.
          OSError: if a shard is missing or cannot be opened.
        """
        start_time = time.monotonic()
        if self._batches is None:
            self._batches = make_train_batches(self._experiment, self.skip_policy, first_batch=first_step)
        batch = next(self._batches)
        self.data_wait_seconds += time.monotonic() - start_time
        state, step_metrics = self._compiled_steps[batch_lengths(batch)](state, put_batch(batch, self._mesh))
        return state, step_metrics, select_epoch_sums(step_metrics)

    def validation_batches(self) -> Iterator[Batch]:
        """Returns an iterator over batches of all validation clips, read from disk, short clips first.

        Each Batch has the inputs `audio` [b t f], `faces` [b s h w 3], `audio_features` [b u d] and
        `face_features` [b s d] (None if the records have none), their masks `audio_mask` [b t], `face_mask`
        [b s] and `audio_features_mask` [b u] (True where valid), and `label`, `weight` (1, or 0 on a padded
        row) and `clip` (record index, -1 on a padded row), [b] each. The rows are sharded over the mesh axis
        `data`. The last batch is padded. With a single bucket, the clips keep their order.

        Raises:
          DamagedRecordError: while iterating, if a record is damaged (a ValueError).
          ValueError: while iterating, if a record lacks a field of the batch, if the records do not match
            prep.json, or if `config.train.eval_batch_size` is not a multiple of the devices.
          OSError: while iterating, if a shard is missing or cannot be opened.
        """
        experiment, batch_size = self._experiment, self._experiment.config.train.eval_batch_size
        clips, buckets = experiment.clips["validation"], experiment.buckets
        clips = buckets.sort_by_bucket(clips)
        return sharded_batches(experiment.dataset, clips, buckets.spec, self._mesh, batch_size=batch_size)


class ResidentBatchSource:
    """Stores training and validation clips in device memory, sharded over `data`; steps gather their rows."""

    def __init__(self, experiment: Experiment, mesh: Mesh) -> None:
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
        if experiment.labels is not None:  # only of training clips; no clip is in both splits
            resident_batch = hide_labels(resident_batch, experiment.clips["train"][experiment.labels < 0])
        self._data = put_batch(resident_batch, mesh)
        self._take_batch = jax.jit(
            lambda data, rows: take_sharded(data, rows, mesh), out_shardings=batch_sharding(mesh)
        )

    def compile(self, step: TrainStep, state: TrainState) -> jax.stages.Compiled:
        """Compiles `steps_per_call` steps as one program; `step` then executes it.

        Each step gathers its rows on the devices. Another number of steps is compiled on its first use.

        Args:
          step: function `(state, batch) -> (state, metrics)` of `make_train_step`.
          state: training state; only its shapes and dtypes are used.

        Returns:
          The program `(state, data, rows) -> (state, metrics, sums)`, for its FLOPs and memory.

        Raises:
          ValueError: if `step` raises it because its config does not fit the model or the clips, or if
            `config.data.batch_size` is not a multiple of the devices.
        """
        config, mesh = self._experiment.config, self._mesh

        def take_step(
            data: Batch, state: TrainState, rows: Int[Array, " b"]
        ) -> tuple[TrainState, tuple[StepMetrics, EpochSums]]:
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
        """Executes `step_count` steps in one call; the first one has the number `first_step`, counted from 0.

        `compile` must be called before. `state` is donated: do not use it afterwards.

        Returns:
          A tuple of trees of arrays on the devices: the new state; the metrics of the last step, a dict of
          `loss`, each term of the loss by name, `gradient_norm` (scalars) and `confusion` [c c] (c classes,
          rows true classes); and a dict with the sums of `loss` and `confusion` over all steps.
        """
        start_time = time.monotonic()
        clip_indices = np.stack([self._sampler.batch(first_step + i) for i in range(step_count)])
        rows = put_with_sharding(row_numbers(self._clips, clip_indices), replicated(self._mesh))
        self.data_wait_seconds += time.monotonic() - start_time
        return self._compiled_steps(state, self._data, rows)

    def validation_batches(self) -> Iterator[Batch]:
        """Yields batches of all validation clips in order, gathered on the devices; the last one is padded.

        Each Batch has the inputs `audio` [b t f], `faces` [b s h w 3], `audio_features` [b u d] and
        `face_features` [b s d] (None if the records have none), their masks `audio_mask` [b t], `face_mask`
        [b s] and `audio_features_mask` [b u] (True where valid), and `label`, `weight` (1, or 0 on a padded
        row) and `clip` (record index, -1 on a padded row), [b] each. The rows are sharded over the mesh axis
        `data`.

        Raises:
          ValueError: if `config.train.eval_batch_size` is not a multiple of the devices.
        """
        clips, batch_size = (
            self._experiment.clips["validation"],
            self._experiment.config.train.eval_batch_size,
        )
        for rows in to_padded_batches(row_numbers(self._clips, clips), batch_size):
            yield self._take_batch(self._data, put_with_sharding(rows, replicated(self._mesh)))


def make_skip_policy(experiment: Experiment) -> SkipPolicy:
    """Returns a SkipPolicy, which names the clips that may be skipped if their records are damaged.

    Its `skippable_clips` are the record indices of all training clips if `config.data.on_corrupt` is `skip`,
    and none if it is `stop`; clips that are scored are never skipped. Its `skipped_clips` is empty.

    Raises:
      ValueError: if `config.data.on_corrupt` is neither `stop` nor `skip`.
    """
    on_corrupt = experiment.config.data.on_corrupt
    if on_corrupt not in ON_CORRUPT_CHOICES:
        raise ValueError(
            f"config.data.on_corrupt={on_corrupt!r}: expected one of {', '.join(ON_CORRUPT_CHOICES)}"
        )
    return SkipPolicy(frozenset(experiment.clips["train"].tolist() if on_corrupt == "skip" else ()))


def make_train_batches(
    experiment: Experiment, skip_policy: SkipPolicy = SKIP_NOTHING, first_batch: int = 0
) -> Iterator[Batch]:
    """Returns an endless iterator over training batches of NumPy arrays, from batch `first_batch`.

    Each Batch has only the rows of this process: the inputs `audio` [b t f], `faces` [b s h w 3],
    `audio_features` [b u d] and `face_features` [b s d] (None if the records have none), their masks
    `audio_mask` [b t], `face_mask` [b s] and `audio_features_mask` [b u] (True where valid), and, [b] each,
    `label`, `label_mask` (False for labels that training hides), `weight` (1, or 0 on a padded row),
    `speaker` and `clip` (record index, -1 on a padded row).

    Args:
      experiment: experiment with the training clips.
      skip_policy: clips that become padded rows if their records are damaged.
      first_batch: number of the first batch, counted from 0 over the complete training.

    Raises:
      ValueError: if `config.data.buckets`, `config.data.threads` or a field of the sampler (`seed`,
        `balanced`, `labelled_share`) is invalid, if there are fewer training clips than one batch, or if the
        batch size is not a multiple of the number of processes. While iterating: if a record lacks a field of
        the batch, or the records do not match prep.json.
      DamagedRecordError: while iterating, if a record is damaged and `skip_policy` does not skip its clip.
      OSError: while iterating, or before if there are several buckets: if a shard is missing or cannot be
        opened.
    """
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
    """Returns a Batch of `batch_size` rows, whose fields are ShapeDtypeStructs: shape, dtype and sharding.

    There are no arrays. The rows are those of all processes, split over the mesh axis `data`; `spec` has the
    sizes of one clip. Fields that clips of these sizes do not have, such as audio features, are None. It is
    not checked that the devices can share `batch_size` rows.
    """
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype, sharding=sharding),
        empty_batch(1, spec),
    )


def batch_lengths(batch: Batch) -> tuple[int, int]:
    """Returns a tuple: the numbers of spectrogram steps and of audio feature steps of a batch.

    The second one is 0 if the batch has no audio features.
    """
    features = batch.audio_features
    return batch.audio.shape[1], 0 if features is None else features.shape[1]


def _resident_clips(experiment: Experiment) -> Int[np.ndarray, " n"]:
    """Returns the record indices of the training and validation clips, sorted."""
    return np.unique(np.concatenate([experiment.clips[split] for split in ("train", "validation")]))
