"""One mesh, (replica, data, model), and where arrays lie on it."""

import math

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

MESH_AXES = ("replica", "data", "model")
MIN_SHARDED_SIZE = 2**16
"""Smaller parameters are replicated: gathering them costs more than they take."""


def make_mesh(config) -> Mesh:
    """Makes a mesh over all devices of all processes, on its `data` axis.

    Raises:
      ValueError: `config.data` is neither -1 nor the number of devices.
    """
    device_count = jax.device_count()
    if config.data not in (-1, device_count):
        raise ValueError(
            f"config.mesh.data={config.data}: expected -1, all devices, or their number, {device_count}"
        )
    return jax.make_mesh((1, device_count, 1), MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def replica_mesh(device_count: int) -> Mesh:
    """A mesh over the first devices, replicas on each."""
    mesh_options = {"axis_types": (AxisType.Auto,) * 3, "devices": jax.devices()[:device_count]}
    return jax.make_mesh((device_count, 1, 1), MESH_AXES, **mesh_options)


def check_batch_size(batch_size: int, field: str, mesh: Mesh) -> None:
    """ValueError where the devices of the `data` axis do not divide a batch."""
    if batch_size < 1 or batch_size % mesh.shape["data"]:
        raise ValueError(f"config.{field}={batch_size} is not divisible by {mesh.shape['data']} devices")


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over the `data` axis."""
    return NamedSharding(mesh, P("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, P())


def put_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """This process's rows, as part of a global array sharded over `data`."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def put_with_sharding(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Arrays that every process holds whole, laid out over the devices of all."""
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(np.shape(x), sharding, lambda index: np.asarray(x)[index]),
        tree,
    )


def state_sharding(state: PyTree, mesh: Mesh, *, fsdp: bool) -> PyTree:
    """Replicated, or with `fsdp` each large array split over `data` along its largest divisible axis."""
    return jax.tree.map(lambda x: NamedSharding(mesh, fsdp_spec(x.shape, mesh) if fsdp else P()), state)


def fsdp_spec(shape: tuple[int, ...], mesh: Mesh) -> P:
    """Splits the largest axis that the `data` devices divide; small arrays stay whole."""
    device_count = mesh.shape["data"]
    candidates = [axis for axis, n in enumerate(shape) if n % device_count == 0]
    if device_count == 1 or not candidates or math.prod(shape) < MIN_SHARDED_SIZE:
        return P()
    axis = max(candidates, key=lambda a: shape[a])
    return P(*[None] * axis, "data")


def to_host(tree: PyTree) -> PyTree:
    """NumPy arrays on every process, gathered where the rows lie on several."""
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, tree)
    from jax.experimental import multihost_utils

    return jax.tree.map(lambda x: np.asarray(multihost_utils.process_allgather(x, tiled=True)), tree)


def broadcast_decision(decision: bool) -> bool:
    """The first process's wish, in all of them: what is saved together must be begun together."""
    if jax.process_count() == 1:
        return decision
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.asarray(decision)))
