"""Programs over replicas (folds and seeds of a protocol): each has separate parameters, all share the data.

Stacked arrays have the replica axis first, sharded over the mesh axis `replica`. The replicas of one device
are vmapped; a single one is not, because vmapped convolutions become grouped convolutions.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, PyTree
from ml_collections import ConfigDict

from emofuse_jax.data.resident import take_rows
from emofuse_jax.models.build import Model
from emofuse_jax.parallel.xla_options import step_options
from emofuse_jax.training.optimizer import make_optimizer
from emofuse_jax.training.step import EpochSums, make_eval_step, make_train_step, select_epoch_sums
from emofuse_jax.types import Batch, Params, TrainState


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ReplicaInputs:
    """Inputs of a replica besides its state, which differ between replicas."""

    seed: Int[Array, ""]
    """Seed of augmentation and dropout."""
    total_steps: Int[Array, ""]
    """Number of steps of the complete training, for the learning-rate schedule."""
    labels: Int[Array, " n"]
    """Label of each resident row as seen in training; -1 if hidden."""
    field_values: dict[str, Float[Array, ""]] = dataclasses.field(default_factory=dict)
    """Values of the config fields that differ between replicas, by dotted name."""


TrainSteps = Callable[
    [Batch, TrainState, ReplicaInputs, Int[Array, "k b"], Bool[Array, " k"]], tuple[TrainState, EpochSums]
]
"""Function `(data, state, replica, rows, step_mask) -> (state, sums)`."""
PredictBatches = Callable[[Batch, Params, Params, Int[Array, "k b"]], dict[str, Array]]
"""Function `(data, params, model_state, rows) -> outputs`."""


def make_train_steps(model: Model, config: ConfigDict) -> TrainSteps:
    """Returns the pure training function of one replica.

    `(data, state, replica, rows [k b], step_mask [k]) -> (state, sums)` runs k steps on the rows of `data`
    (a Batch of all clips), and returns the new state and the sums over the steps, a dict of `loss` and
    `confusion` [c c]. `replica` is a ReplicaInputs: seed, number of steps, labels, and values of config
    fields. A step whose mask is False changes nothing, because replicas have epochs of different lengths and
    can stop early.

    The function raises ValueError, when it is first called, if a field of the config is invalid.
    """

    def train_step(
        data: Batch,
        state: TrainState,
        replica: ReplicaInputs,
        rows: Int[Array, " b"],
        is_active: Bool[Array, ""],
    ) -> tuple[TrainState, EpochSums]:
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

    def train_steps(
        data: Batch,
        state: TrainState,
        replica: ReplicaInputs,
        rows: Int[Array, "k b"],
        step_mask: Bool[Array, " k"],
    ) -> tuple[TrainState, EpochSums]:
        def scan_step(
            state: TrainState, x: tuple[Int[Array, " b"], Bool[Array, ""]]
        ) -> tuple[TrainState, EpochSums]:
            return train_step(data, state, replica, *x)

        state, sums = _scan(scan_step, state, (rows, step_mask))
        return state, jax.tree.map(lambda x: x.sum(0), sums)

    return train_steps


def with_traced_fields(config: ConfigDict, field_values: dict[str, Float[Array, ""]]) -> ConfigDict:
    """Returns a copy of a config with the arrays of `field_values`, also traced ones, in place of numbers.

    `field_values` has the arrays by the dotted names of the fields, such as `optimizer.learning_rate`. A
    field that its section does not have is added.

    Raises:
      AttributeError: if the config has no section of this name.
    """
    new_config = type(config)(config.to_dict())
    for name, value in field_values.items():
        *section_names, field = name.split(".")
        section = functools.reduce(getattr, section_names, new_config)
        with section.ignore_type():
            section[field] = value
    return new_config


def make_predict_batches(model: Model) -> PredictBatches:
    """Returns the pure prediction function of one replica.

    `(data, params, model_state, rows [k b]) -> outputs` predicts k batches of rows of `data` (a Batch of
    all clips); row -1 is padded. The outputs are a dict: the sums over the batches of `loss` (cross-entropies
    times weights of the labelled clips) and `weight` (so the mean is loss / weight); and for each row,
    also for padded ones, `probabilities` [k b c] and `levels` [k b n c], the probabilities of the n levels of
    the fusion (streams or parts of the clip that have a separate classifier), or None if it has none.
    """
    eval_step = make_eval_step(model)

    def predict_batches(
        data: Batch, params: Params, model_state: Params, rows: Int[Array, "k b"]
    ) -> dict[str, Array]:
        def predict_batch(
            carry: tuple[()], batch_rows: Int[Array, " b"]
        ) -> tuple[tuple[()], tuple[dict[str, Array], dict[str, Array | None]]]:
            batch = take_rows(data, batch_rows)
            outputs = eval_step(params, model_state, batch)
            return carry, (
                {"loss": outputs["loss"], "weight": outputs["weight"]},
                {"probabilities": outputs["probabilities"], "levels": outputs["levels"]},
            )

        _, (sums, row_outputs) = _scan(predict_batch, (), rows)
        return jax.tree.map(lambda x: x.sum(0), sums) | row_outputs

    return predict_batches


def jit_over_replicas(
    function: Callable[..., PyTree], mesh: Mesh, *, donate_argnums: tuple[int, ...] = ()
) -> jax.stages.Wrapped:
    """Returns the jitted `function(data, *replica_arguments)`, with stacked arguments for all replicas.

    Only `data` is not stacked; it is the same on every device. Each device computes only its part of the
    replicas. The outputs are stacked too. The number of replicas must be a multiple of the number of devices;
    otherwise the jitted function raises ValueError. `donate_argnums` has the positions of the arguments
    (`data` is 0) whose memory the outputs take over; do not use these arguments after a call.
    """

    def run_on_device(data: Batch, *replica_arguments: PyTree) -> PyTree:
        if jax.tree.leaves(replica_arguments)[0].shape[0] == 1:
            outputs = function(data, *jax.tree.map(lambda x: x[0], replica_arguments))
            return jax.tree.map(lambda x: x[None], outputs)
        return jax.vmap(function, in_axes=(None, *(0 for _ in replica_arguments)))(data, *replica_arguments)

    def program(data: Batch, *replica_arguments: PyTree) -> PyTree:
        specs = (P(), *(P("replica") for _ in replica_arguments))
        sharded_function = jax.shard_map(
            run_on_device, mesh=mesh, in_specs=specs, out_specs=P("replica"), check_vma=False
        )
        return sharded_function(data, *replica_arguments)

    return jax.jit(program, donate_argnums=donate_argnums, compiler_options=step_options(mesh))


def select_better(is_better: Bool[Array, " r"], new: PyTree, old: PyTree) -> PyTree:
    """Returns a tree of arrays: the entries of `new` for replicas with `is_better` True, else those of `old`.

    The first axis of all arrays has the r replicas.
    """

    def choose(a: Float[Array, "r ..."], b: Float[Array, "r ..."]) -> Float[Array, "r ..."]:
        return jnp.where(is_better.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)


def replica_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits the first axis over the mesh axis `replica`."""
    return NamedSharding(mesh, P("replica"))


def _scan(
    step: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]], carry: PyTree, inputs: PyTree
) -> tuple[PyTree, PyTree]:
    """Returns a tuple: the last carry and the stacked outputs of `lax.scan(step, carry, inputs)`.

    `step` is a function `(carry, input) -> (carry, output)`; `inputs` is a tree of arrays with one entry per
    step on the first axis, and so are the outputs. A single step is run without a loop, because XLA's CPU
    backend runs convolutions slowly in a loop.
    """
    if jax.tree.leaves(inputs)[0].shape[0] > 1:
        return jax.lax.scan(step, carry, inputs)
    carry, output = step(carry, jax.tree.map(lambda x: x[0], inputs))
    return carry, jax.tree.map(lambda x: x[None], output)
