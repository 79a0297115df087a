"""Data and compiled programs that the replicas of a cross-validation share."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int, PyTree
from ml_collections import ConfigDict

from emofuse_jax.data.resident import row_numbers
from emofuse_jax.parallel.mesh import put_with_sharding
from emofuse_jax.parallel.xla_options import single_use_options
from emofuse_jax.training.crossval.replicas import ReplicaInputs, replica_sharding
from emofuse_jax.training.experiment import Experiment, count_epoch_steps, flatten_fields
from emofuse_jax.training.optimizer import make_optimizer
from emofuse_jax.training.replica_set import ReplicaId
from emofuse_jax.training.step import init_state
from emofuse_jax.training.warm_start import WarmStart, load_warm_start
from emofuse_jax.types import Batch, PRNGKey, TrainState


@dataclasses.dataclass(frozen=True)
class CrossvalContext:
    """Data and programs of one cross-validation or of one program of a sweep."""

    experiments: dict[ReplicaId, Experiment]
    """Experiment of each replica."""
    mesh: Mesh
    """Mesh with the replicas on its `replica` axis."""
    clips: Int[np.ndarray, " n"]
    """Record indices of all folds, sorted; row i of `data` is record `clips[i]`."""
    data: Batch
    """All clips, replicated on every device."""
    labels: Int[np.ndarray, " n"]
    """Label of each row of `data`."""
    speakers: Int[np.ndarray, " n"]
    """Index of the speaker of each row of `data`."""
    is_vmapped: bool
    """True: one call runs an epoch of all replicas. False: one call runs one step."""
    train_steps: jax.stages.Wrapped
    """`make_train_steps` over replicas (training/crossval/replicas.py)."""
    predict_batches: jax.stages.Wrapped
    """`make_predict_batches` over replicas."""
    varying_fields: tuple[str, ...] = ()
    """Config fields in which the replicas differ."""

    @property
    def config(self) -> ConfigDict:
        """Config of the first replica; use only fields that all replicas share."""
        return next(iter(self.experiments.values())).config

    def count_epoch_steps(self, replica_id: ReplicaId) -> int:
        """Returns the number of steps in an epoch of a replica, its complete training batches.

        Raises:
          ValueError: if the replica has fewer training clips than one batch, or `config.data.batch_size` is
            below 1.
        """
        return count_epoch_steps(self.experiments[replica_id])

    @functools.cached_property
    def max_epoch_steps(self) -> int:
        """Number of steps in the longest epoch of the replicas.

        Raises:
          ValueError: if a replica has fewer training clips than one batch, or `config.data.batch_size` is
            below 1.
        """
        return max(map(self.count_epoch_steps, self.experiments))

    def max_batch_count(self, split: str) -> int:
        """Returns the number of batches in the largest split of this name over all replicas.

        `split` is `train`, `validation` or `test`; batches have `config.train.eval_batch_size` clips, the
        last one may have fewer.
        """
        batch_size = self.config.train.eval_batch_size
        return max(-(-len(experiment.clips[split]) // batch_size) for experiment in self.experiments.values())

    def make_replica_inputs(self, replica_ids: list[ReplicaId]) -> ReplicaInputs:
        """Returns the inputs that differ between replicas, stacked along the first axis, as NumPy arrays.

        They are `seed` [r] and `total_steps` [r] (int32), `labels` [r n] (int32, for each of the n rows of
        `data` the label as seen in training, -1 if hidden), and `field_values`, a dict from dotted names of
        config fields to values [r] (float32).

        Raises:
          ValueError: if a replica has fewer training clips than one batch, or `config.data.batch_size` is
            below 1.
          TypeError: if there are no replicas.
        """
        return stack_trees([self._make_replica_input(replica_id) for replica_id in replica_ids])

    def _make_replica_input(self, replica_id: ReplicaId) -> ReplicaInputs:
        experiment, labels = self.experiments[replica_id], self.labels.copy()
        if experiment.labels is not None:
            labels[row_numbers(self.clips, experiment.clips["train"])] = experiment.labels
        total_steps = self.config.train.epochs * self.count_epoch_steps(replica_id)
        fields = flatten_fields(experiment.config.to_dict())
        field_values = {name: np.float32(fields[name]) for name in self.varying_fields}
        # NumPy values in the fields that are annotated as JAX arrays
        inputs: dict[str, Any] = {
            "seed": np.int32(experiment.config.seed),
            "total_steps": np.int32(total_steps),
            "labels": labels.astype(np.int32),
            "field_values": field_values,
        }
        return ReplicaInputs(**inputs)

    def make_initial_states(self, replica_ids: list[ReplicaId]) -> TrainState:
        """Returns the initial training states of replicas, stacked along the first axis, as NumPy arrays.

        A state has the step, the parameters, the model state and the optimizer state, the same as in `emofuse
        train`.

        Raises:
          ValueError: if a warm start (`config.init`), the file of a fold, the input statistics or a field of
            `config.optimizer` is invalid.
          FileNotFoundError: if the workdir of a warm start has no checkpoint, or the file of a fold no longer
            exists.
          OSError: if a file of a warm start or of a fold cannot be read.
          TypeError: if there are no replicas.
        """
        return stack_trees(
            [self._make_initial_state(self.experiments[replica_id]) for replica_id in replica_ids]
        )

    def _make_initial_state(self, experiment: Experiment) -> TrainState:
        state = self._compiled_init(jax.random.key(experiment.config.seed), load_warm_start(experiment))
        model_state = experiment.model.with_statistics(state.model_state, *experiment.statistics)
        return jax.tree.map(np.asarray, dataclasses.replace(state, model_state=model_state))

    @functools.cached_property
    def _compiled_init(self) -> Callable[[PRNGKey, WarmStart], TrainState]:
        """Jitted function `(key, warm_start) -> state` that initialises the training state of a replica.

        `key` is the random key of the initial parameters, and `warm_start` a tuple of nested dicts with some
        of the parameters and of the model state, which replace the initial ones. It is compiled once for all
        replicas, with the input statistics of the first one; `_make_initial_state` replaces them afterwards.

        Raises:
          ValueError: if a field of `config.optimizer` is invalid.
        """
        first_experiment, tx = next(iter(self.experiments.values())), make_optimizer(self.config.optimizer, 1)
        return jax.jit(
            lambda key, warm_start: init_state(
                first_experiment.model, tx, key, first_experiment.statistics, warm_start
            ),
            compiler_options=single_use_options(self.mesh),
        )


def stack_trees(trees: Sequence[PyTree]) -> PyTree:
    """Returns one tree of NumPy arrays: those of `trees`, stacked along a new first axis.

    Raises:
      ValueError: if the trees differ in structure, or their arrays in shape.
      TypeError: if there are no trees.
    """
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def take_replica(stacked: PyTree, i: int) -> PyTree:
    """Returns the tree of replica `i`: the entry `i` of the first axis of each stacked array."""
    return jax.tree.map(lambda x: x[i], stacked)


def put_replicas(context: CrossvalContext, tree: PyTree) -> PyTree:
    """Returns a tree of arrays on the devices, from a tree of arrays that are stacked along the first axis.

    The first axis is split over the mesh axis `replica` of the context, so that each replica is on one
    device. Every process must pass the complete arrays.

    Raises:
      ValueError: if the devices cannot share the replicas equally.
    """
    return put_with_sharding(tree, replica_sharding(context.mesh))
