"""Programs over replicas, the folds and seeds of a protocol: each has its own parameters, all share the data.

Stacked arrays have the replicas in front and are sharded over the mesh's `replica` axis; the replicas of one
device are vmapped, a single one is not, since vmapped convolutions become grouped ones.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, PyTree

from emofuse_jax.data.resident import take_rows
from emofuse_jax.losses.cross_entropy import label_weight
from emofuse_jax.models.build import Model
from emofuse_jax.parallel.xla_options import step_options
from emofuse_jax.scoring import metrics
from emofuse_jax.training.optimizer import make_optimizer
from emofuse_jax.training.step import make_eval_step, make_train_step, select_epoch_sums
from emofuse_jax.types import Batch, Params, TrainState


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ReplicaInputs:
    """What a replica has of its own beside its state."""

    seed: Int[Array, ""]
    total_steps: Int[Array, ""]
    """Of its whole training, for the schedule."""
    labels: Int[Array, " n"]
    """What training sees of the label of each resident row; -1 hides it."""
    field_values: dict[str, Float[Array, ""]] = dataclasses.field(default_factory=dict)
    """Fields of the config that are the replica's own, by dotted name."""


def make_train_steps(model: Model, config) -> Callable:
    """Makes the pure `(data, state, replica, rows [k b], step_mask [k]) -> (state, sums)` of one replica.

    It takes k steps. A step whose mask is False changes nothing: replicas have epochs of different lengths,
    and stop early.
    """

    def train_step(
        data: Batch,
        state: TrainState,
        replica: ReplicaInputs,
        rows: Int[Array, " b"],
        is_active: Bool[Array, ""],
    ):
        label = replica.labels[rows]
        batch = dataclasses.replace(take_rows(data, rows), label=label, label_mask=label >= 0)
        replica_config = with_traced_fields(config, replica.field_values)
        tx = make_optimizer(replica_config.optimizer, replica.total_steps)
        new_state, step_metrics = make_train_step(model, tx, replica_config, replica.seed)(state, batch)
        sums = select_epoch_sums(step_metrics)
        zero_sums = jax.tree.map(jnp.zeros_like, sums)
        return jax.tree.map(
            lambda new, old: jnp.where(is_active, new, old), (new_state, sums), (state, zero_sums)
        )

    def train_steps(data, state, replica, rows, step_mask):
        def scan_step(state, x):
            return train_step(data, state, replica, *x)

        state, sums = _scan(scan_step, state, (rows, step_mask))
        return state, jax.tree.map(lambda x: x.sum(0), sums)

    return train_steps


def with_traced_fields(config, field_values: dict[str, Float[Array, ""]]):
    """A copy of a config with arrays, traced ones too, in place of numbers."""
    new_config = type(config)(config.to_dict())
    for name, value in field_values.items():
        *section_names, field = name.split(".")
        section = functools.reduce(getattr, section_names, new_config)
        with section.ignore_type():
            section[field] = value
    return new_config


def make_predict_batches(model: Model) -> Callable:
    """The pure `(data, params, model_state, rows [k b]) -> answers` of one replica, in k batches.

    `confusion` [c c], `loss` and `weight` are sums; `probabilities` [k b c] and `levels` (training/step.py)
    are of each row, also of padded ones.
    """
    eval_step = make_eval_step(model)

    def predict_batches(data: Batch, params: Params, model_state: Params, rows: Int[Array, "k b"]):
        def predict_batch(carry, batch_rows):
            batch = take_rows(data, batch_rows)
            outputs = eval_step(params, model_state, batch)
            probabilities = outputs["probabilities"]
            confusion = metrics.confusion_matrix(
                probabilities, batch.label, label_weight(batch), probabilities.shape[-1]
            )
            return carry, (
                {"confusion": confusion, "loss": outputs["loss"], "weight": outputs["weight"]},
                {"probabilities": probabilities, "levels": outputs["levels"]},
            )

        _, (sums, row_outputs) = _scan(predict_batch, (), rows)
        return jax.tree.map(lambda x: x.sum(0), sums) | row_outputs

    return predict_batches


def jit_over_replicas(function: Callable, mesh: Mesh, *, donate_argnums: tuple[int, ...] = ()) -> Callable:
    """Jits `function(data, *replica_arguments)`, whose arguments after `data` are stacked over replicas.

    Each device computes its own replicas alone.
    """

    def run_on_device(data, *replica_arguments):
        if jax.tree.leaves(replica_arguments)[0].shape[0] == 1:
            outputs = function(data, *jax.tree.map(lambda x: x[0], replica_arguments))
            return jax.tree.map(lambda x: x[None], outputs)
        return jax.vmap(function, in_axes=(None, *(0 for _ in replica_arguments)))(data, *replica_arguments)

    def program(data, *replica_arguments):
        specs = (P(), *(P("replica") for _ in replica_arguments))
        sharded_function = jax.shard_map(
            run_on_device, mesh=mesh, in_specs=specs, out_specs=P("replica"), check_vma=False
        )
        return sharded_function(data, *replica_arguments)

    return jax.jit(program, donate_argnums=donate_argnums, compiler_options=step_options(mesh))


def select_better(is_better: Bool[Array, " r"], new: PyTree, old: PyTree) -> PyTree:
    """Of each replica the new arrays where they are better."""

    def choose(a, b):
        return jnp.where(is_better.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)


def replica_sharding(mesh: Mesh) -> NamedSharding:
    """Replicas over their axis."""
    return NamedSharding(mesh, P("replica"))


def _scan(step: Callable, carry: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree]:
    """`lax.scan`; a single step is no loop, in which XLA's CPU backend runs convolutions slowly."""
    if jax.tree.leaves(inputs)[0].shape[0] > 1:
        return jax.lax.scan(step, carry, inputs)
    carry, output = step(carry, jax.tree.map(lambda x: x[0], inputs))
    return carry, jax.tree.map(lambda x: x[None], output)
