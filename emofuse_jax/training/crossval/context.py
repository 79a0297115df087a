"""What the replicas of a cross-validation share: the corpus on the devices, and the compiled programs."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int, PyTree

from emofuse_jax.data.resident import row_numbers
from emofuse_jax.parallel.mesh import put_with_sharding
from emofuse_jax.parallel.xla_options import single_use_options
from emofuse_jax.training.crossval.replicas import ReplicaInputs, replica_sharding
from emofuse_jax.training.experiment import Experiment, count_epoch_steps, flatten_fields
from emofuse_jax.training.optimizer import make_optimizer
from emofuse_jax.training.step import init_state
from emofuse_jax.training.warm_start import load_warm_start
from emofuse_jax.types import Batch, TrainState

ReplicaId = tuple[int, ...]
"""Fold and seed; in a sweep also the number of the trial."""


@dataclasses.dataclass(frozen=True)
class CrossvalContext:
    """One cross-validation; its replicas are named by fold and seed."""

    experiments: dict[ReplicaId, Experiment]
    mesh: Mesh
    clips: Int[np.ndarray, " n"]
    """Records of all folds, sorted; row i of `data` holds the i-th."""
    data: Batch
    """On every device."""
    labels: Int[np.ndarray, " n"]
    """Of each row of `data`."""
    is_vmapped: bool
    """True: an epoch of all replicas is one call. False: each step is."""
    train_steps: Callable
    """`make_train_steps` over replicas (training/crossval/replicas.py)."""
    predict_batches: Callable
    """`make_predict_batches` over replicas."""
    varying_fields: tuple[str, ...] = ()
    """Fields of the config in which the replicas differ."""

    @property
    def config(self):
        """What all replicas share: the first one's."""
        return next(iter(self.experiments.values())).config

    def count_epoch_steps(self, replica_id: ReplicaId) -> int:
        """Of one replica."""
        return count_epoch_steps(self.experiments[replica_id])

    @functools.cached_property
    def steps(self) -> int:
        """Of the longest epoch."""
        return max(map(self.count_epoch_steps, self.experiments))

    def max_batch_count(self, split: str) -> int:
        """That the longest part of a fold fills."""
        batch_size = self.config.train.eval_batch_size
        return max(-(-len(experiment.clips[split]) // batch_size) for experiment in self.experiments.values())

    def make_replica_inputs(self, replica_ids: list[ReplicaId]) -> ReplicaInputs:
        """What each replica has of its own, stacked, on the host."""
        return stack_trees([self._make_replica_input(replica_id) for replica_id in replica_ids])

    def _make_replica_input(self, replica_id: ReplicaId) -> ReplicaInputs:
        experiment, labels = self.experiments[replica_id], self.labels.copy()
        if experiment.labels is not None:
            labels[row_numbers(self.clips, experiment.clips["train"])] = experiment.labels
        total_steps = self.config.train.epochs * self.count_epoch_steps(replica_id)
        fields = flatten_fields(experiment.config.to_dict())
        field_values = {name: np.float32(fields[name]) for name in self.varying_fields}
        return ReplicaInputs(
            np.int32(experiment.config.seed), np.int32(total_steps), labels.astype(np.int32), field_values
        )

    def make_initial_states(self, replica_ids: list[ReplicaId]) -> TrainState:
        """The states before the first step, stacked, on the host: those of `emofuse train`."""
        return stack_trees(
            [self._make_initial_state(self.experiments[replica_id]) for replica_id in replica_ids]
        )

    def _make_initial_state(self, experiment: Experiment) -> TrainState:
        state = self._compiled_init(jax.random.key(experiment.config.seed), load_warm_start(experiment))
        model_state = experiment.model.with_statistics(state.model_state, *experiment.statistics)
        return jax.tree.map(np.asarray, dataclasses.replace(state, model_state=model_state))

    @functools.cached_property
    def _compiled_init(self) -> Callable:
        """`init_state` with the statistics of any fold, compiled once."""
        first_experiment, tx = next(iter(self.experiments.values())), make_optimizer(self.config.optimizer, 1)
        return jax.jit(
            lambda key, warm_start: init_state(
                first_experiment.model, tx, key, first_experiment.statistics, warm_start
            ),
            compiler_options=single_use_options(self.mesh),
        )


def stack_trees(trees: list[PyTree]) -> PyTree:
    """Trees of arrays as one, a new axis in front."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def put_replicas(context: CrossvalContext, tree: PyTree) -> PyTree:
    """Stacked arrays onto the devices of their replicas."""
    return put_with_sharding(tree, replica_sharding(context.mesh))
