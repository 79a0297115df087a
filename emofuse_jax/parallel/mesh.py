"""Builds the mesh with the axes (replica, data, model), and places arrays on it."""

import math

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
from jaxtyping import PyTree
from ml_collections import ConfigDict

MESH_AXES = ("replica", "data", "model")
MIN_SHARDED_SIZE = 2**16
"""Minimum number of elements of a parameter for fsdp; gathering smaller ones costs more than it saves."""


def make_mesh(config: ConfigDict) -> Mesh:
    """Returns a mesh with all devices of all processes on its axis `data`; `replica` and `model` have size 1.

    The order of the axes is `replica`, `data`, `model`.

    Args:
      config: `config.mesh` of an experiment, of which only the field `data` is read: -1 for all devices, or
        their number.

    Raises:
      ValueError: if `config.data` is neither -1 nor the number of devices.
    """
    device_count = jax.device_count()
    if config.data not in (-1, device_count):
        raise ValueError(
            f"config.mesh.data={config.data}: expected -1 (all devices) or their number, {device_count}"
        )
    return jax.make_mesh((1, device_count, 1), MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def replica_mesh(device_count: int) -> Mesh:
    """Returns a mesh with the first `device_count` devices on its axis `replica`; the other axes have size 1.

    The axes are `replica`, `data` and `model`; the devices of all processes count.

    Raises:
      ValueError: if there are fewer than `device_count` devices.
      IndexError: if `device_count` is below 1.
    """
    devices = jax.devices()[:device_count]
    return jax.make_mesh((device_count, 1, 1), MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def check_batch_size(batch_size: int, field: str, mesh: Mesh) -> None:
    """Checks that a batch size is a positive multiple of the number of devices on the mesh axis `data`.

    Raises:
      ValueError: if it is not; the message names `field`, the config field without `config.`.
    """
    if batch_size < 1 or batch_size % mesh.shape["data"]:
        raise ValueError(
            f"config.{field}={batch_size}: expected a positive multiple of the {mesh.shape['data']} devices"
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits the first axis of an array, the rows, over the mesh axis `data`."""
    return NamedSharding(mesh, P("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that stores the complete array on every device."""
    return NamedSharding(mesh, P())


def put_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """Returns a batch with the rows of all processes as JAX arrays, sharded over the mesh axis `data`.

    `batch` is a tree of NumPy arrays, whose first axis has the rows of this process. Every process must call
    this function with equally many rows, which are then in the order of the mesh's devices.

    Raises:
      ValueError: if the devices cannot share the rows equally.
    """
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def put_with_sharding(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Returns the tree as JAX arrays with this sharding; every process must pass the complete arrays.

    Raises:
      ValueError: if an axis cannot be split equally over the devices.
    """
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(np.shape(x), sharding, lambda index: np.asarray(x)[index]),
        tree,
    )


def state_sharding(state: PyTree, mesh: Mesh, *, fsdp: bool) -> PyTree:
    """Returns a tree like `state` with the sharding (NamedSharding) of each array.

    Every device stores the complete arrays. With `fsdp`, an array of at least 65,536 elements is split over
    the mesh axis `data` instead, along its largest axis (the first one of equal length) that the number of
    devices divides, if there is one.
    """
    return jax.tree.map(lambda x: NamedSharding(mesh, fsdp_spec(x.shape, mesh) if fsdp else P()), state)


def fsdp_spec(shape: tuple[int, ...], mesh: Mesh) -> P:
    """Returns a partition spec that splits an array over the mesh axis `data`, or an empty one.

    The array is split along its largest axis (the first one of equal length) that the number of `data`
    devices divides. The spec is empty, so that the array is not split, if there is no such axis, if the array
    has fewer than MIN_SHARDED_SIZE (65,536) elements, or if there is one device.
    """
    device_count = mesh.shape["data"]
    candidates = [axis for axis, n in enumerate(shape) if n % device_count == 0]
    if device_count == 1 or not candidates or math.prod(shape) < MIN_SHARDED_SIZE:
        return P()
    axis = max(candidates, key=lambda a: shape[a])
    return P(*[None] * axis, "data")


def to_host(tree: PyTree) -> PyTree:
    """Returns the tree as complete NumPy arrays on every process; gathers the rows of other processes.

    With several processes, all of them must call this function.
    """
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, tree)
    from jax.experimental import multihost_utils

    return jax.tree.map(lambda x: np.asarray(multihost_utils.process_allgather(x, tiled=True)), tree)


def broadcast_decision(decision: bool) -> bool:
    """Returns the decision of the first process on every process; all of them must call it.

    This makes sure that all processes start the same collective operation, such as a save.
    """
    if jax.process_count() == 1:
        return decision
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.asarray(decision)))
