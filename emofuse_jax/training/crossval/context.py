"""What the replicas of a cross-validation share: the corpus on the devices, and the compiled programs."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int, PyTree

from emofuse_jax.data.resident import row_numbers
from emofuse_jax.parallel.mesh import put_as
from emofuse_jax.parallel.xla_options import once_options
from emofuse_jax.training.crossval.replicas import Replica, stacked
from emofuse_jax.training.experiment import Experiment, epoch_steps, flatten
from emofuse_jax.training.optimizer import make_optimizer
from emofuse_jax.training.step import init_state
from emofuse_jax.training.warm_start import read_start
from emofuse_jax.types import Batch, TrainState

Run = tuple[int, ...]
"""Fold and seed; in a sweep also the number of the trial."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One cross-validation; its replicas are named by fold and seed."""

    experiments: dict[Run, Experiment]
    mesh: Mesh
    clips: Int[np.ndarray, " n"]
    """Records of all folds, sorted; row i of `data` holds the i-th."""
    data: Batch
    """On every device."""
    labels: Int[np.ndarray, " n"]
    """Of each row of `data`."""
    side_by_side: bool
    """True: an epoch of all replicas is one call. False: each step is."""
    epoch: Callable
    """`make_epoch` over replicas (training/crossval/replicas.py)."""
    answers: Callable
    """`make_answers` over replicas."""
    numbers: tuple[str, ...] = ()
    """Fields of the config in which the replicas differ."""

    @property
    def config(self):
        """What all replicas share: the first one's."""
        return next(iter(self.experiments.values())).config

    def epoch_steps(self, run: Run) -> int:
        """Of one replica."""
        return epoch_steps(self.experiments[run])

    @functools.cached_property
    def steps(self) -> int:
        """Of the longest epoch."""
        return max(map(self.epoch_steps, self.experiments))

    def batches(self, part: str) -> int:
        """That the longest part of a fold fills."""
        size = self.config.train.eval_batch_size
        return max(-(-len(e.clips[part]) // size) for e in self.experiments.values())

    def replicas(self, runs: list[Run]) -> Replica:
        """What each replica has of its own, stacked, on the host."""
        return stack([self._replica(run) for run in runs])

    def _replica(self, run: Run) -> Replica:
        experiment, labels = self.experiments[run], self.labels.copy()
        if experiment.labels is not None:
            labels[row_numbers(self.clips, experiment.clips["train"])] = experiment.labels
        steps = self.config.train.epochs * self.epoch_steps(run)
        fields = flatten(experiment.config.to_dict())
        numbers = {name: np.float32(fields[name]) for name in self.numbers}
        return Replica(np.int32(experiment.config.seed), np.int32(steps), labels.astype(np.int32), numbers)

    def first_states(self, runs: list[Run]) -> TrainState:
        """The states before the first step, stacked, on the host: those of `emofuse train`."""
        return stack([self._first_state(self.experiments[run]) for run in runs])

    def _first_state(self, experiment: Experiment) -> TrainState:
        state = self._init(jax.random.key(experiment.config.seed), read_start(experiment))
        model_state = experiment.model.with_statistics(state.model_state, *experiment.statistics)
        return jax.tree.map(np.asarray, dataclasses.replace(state, model_state=model_state))

    @functools.cached_property
    def _init(self) -> Callable:
        """`init_state` with the statistics of any fold, compiled once."""
        first, tx = next(iter(self.experiments.values())), make_optimizer(self.config.optimizer, 1)
        return jax.jit(
            lambda key, start: init_state(first.model, tx, key, first.statistics, start),
            compiler_options=once_options(self.mesh),
        )


def stack(trees: list[PyTree]) -> PyTree:
    """Trees of arrays as one, a new axis in front."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def put(job: Job, tree: PyTree) -> PyTree:
    """Stacked arrays onto the devices of their replicas."""
    return put_as(tree, stacked(job.mesh))
