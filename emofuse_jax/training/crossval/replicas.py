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
from emofuse_jax.training.step import epoch_sums, make_score_step, make_train_step
from emofuse_jax.types import Batch, Params, TrainState


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Replica:
    """What a replica has of its own beside its state."""

    seed: Int[Array, ""]
    steps: Int[Array, ""]
    """Of its whole training, for the schedule."""
    labels: Int[Array, " n"]
    """What training sees of the label of each resident row; -1 hides it."""
    numbers: dict[str, Float[Array, ""]] = dataclasses.field(default_factory=dict)
    """Fields of the config that are the replica's own, by dotted name."""


def make_epoch(model: Model, config) -> Callable:
    """The pure `(data, state, replica, rows [k b], live [k]) -> (state, sums)`: k steps of one replica.

    A step that is not live changes nothing: replicas have epochs of different lengths, and stop early.
    """

    def step(data: Batch, state: TrainState, replica: Replica, rows: Int[Array, " b"], live: Bool[Array, ""]):
        label = replica.labels[rows]
        batch = dataclasses.replace(take_rows(data, rows), label=label, label_mask=label >= 0)
        own = with_numbers(config, replica.numbers)
        tx = make_optimizer(own.optimizer, replica.steps)
        after, measured = make_train_step(model, tx, own, replica.seed)(state, batch)
        sums = epoch_sums(measured)
        nothing = jax.tree.map(jnp.zeros_like, sums)
        return jax.tree.map(lambda new, old: jnp.where(live, new, old), (after, sums), (state, nothing))

    def epoch(data, state, replica, rows, live):
        def one(state, x):
            return step(data, state, replica, *x)

        state, sums = _stack(one, state, (rows, live))
        return state, jax.tree.map(lambda x: x.sum(0), sums)

    return epoch


def with_numbers(config, numbers: dict[str, Float[Array, ""]]):
    """A copy of a config with arrays, traced ones too, in place of numbers."""
    changed = type(config)(config.to_dict())
    for name, value in numbers.items():
        *owners, last = name.split(".")
        part = functools.reduce(getattr, owners, changed)
        with part.ignore_type():
            part[last] = value
    return changed


def make_answers(model: Model) -> Callable:
    """The pure `(data, params, model_state, rows [k b]) -> answers` of one replica, in k batches.

    `confusion` [c c], `loss` and `weight` are sums; `probabilities` [k b c] and `levels` (training/step.py)
    are of each row, also of padded ones.
    """
    score = make_score_step(model)

    def answers(data: Batch, params: Params, model_state: Params, rows: Int[Array, "k b"]):
        def one(sums, chosen):
            batch = take_rows(data, chosen)
            answer = score(params, model_state, batch)
            probabilities = answer["probabilities"]
            matrix = metrics.confusion_matrix(
                probabilities, batch.label, label_weight(batch), probabilities.shape[-1]
            )
            return sums, (
                {"confusion": matrix, "loss": answer["loss"], "weight": answer["weight"]},
                {"probabilities": probabilities, "levels": answer["levels"]},
            )

        _, (sums, rows_) = _stack(one, (), rows)
        return jax.tree.map(lambda x: x.sum(0), sums) | rows_

    return answers


def over_replicas(function: Callable, mesh: Mesh, *, donate: tuple[int, ...] = ()) -> Callable:
    """Jits `function(data, *own)` for `own` stacked over replicas; a device's replicas meet no other's."""

    def local(data, *own):
        if jax.tree.leaves(own)[0].shape[0] == 1:
            alone = function(data, *jax.tree.map(lambda x: x[0], own))
            return jax.tree.map(lambda x: x[None], alone)
        return jax.vmap(function, in_axes=(None, *(0 for _ in own)))(data, *own)

    def program(data, *own):
        specs = (P(), *(P("replica") for _ in own))
        mapped = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P("replica"), check_vma=False)
        return mapped(data, *own)

    return jax.jit(program, donate_argnums=donate, compiler_options=step_options(mesh))


def keep_better(better: Bool[Array, " r"], new: PyTree, old: PyTree) -> PyTree:
    """Of each replica the new arrays where they are better."""

    def choose(a, b):
        return jnp.where(better.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)


def stacked(mesh: Mesh) -> NamedSharding:
    """Replicas over their axis."""
    return NamedSharding(mesh, P("replica"))


def _stack(one: Callable, state: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
    """`lax.scan`; a single step is no loop, in which XLA's CPU backend runs convolutions slowly."""
    if jax.tree.leaves(xs)[0].shape[0] > 1:
        return jax.lax.scan(one, state, xs)
    state, y = one(state, jax.tree.map(lambda x: x[0], xs))
    return state, jax.tree.map(lambda x: x[None], y)
