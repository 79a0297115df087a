"""A whole split as one batch, to lie in the devices' memory; training batches are gathered from it there."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from emofuse_jax.data.collate import empty_batch
from emofuse_jax.data.dataset import Dataset
from emofuse_jax.data.pipeline import NONE_SPARE, Spare, load_batch, own_rows
from emofuse_jax.types import Batch, InputSpec


def load_resident(
    dataset: Dataset,
    clips: Int[np.ndarray, " n"],
    spec: InputSpec,
    *,
    multiple: int = 1,
    process: tuple[int, int] = (0, 1),
    spare: Spare = NONE_SPARE,
) -> Batch:
    """The clips in order, then at least one padded row of weight 0, up to a multiple of `multiple` rows.

    Of several processes, `(index, count)`, each gets its part of the rows. Damaged `spare` clips are padded.
    """
    rows = -(-(len(clips) + 1) // multiple) * multiple
    padded = np.full(rows, -1, np.int64)
    padded[: len(clips)] = clips
    return load_batch(dataset, padded[own_rows(rows, process)], spec, spare)


def resident_bytes(clips: int, spec: InputSpec) -> int:
    """What so many clips take."""
    return (clips + 1) * sum(field.nbytes for field in jax.tree.leaves(empty_batch(1, spec)))


def row_numbers(clips: Int[np.ndarray, " n"], chosen: Int[np.ndarray, "*shape"]) -> Int[np.ndarray, "*shape"]:
    """Rows of chosen clips among the resident ones, which are sorted; -1 stays -1."""
    return np.where(chosen < 0, -1, np.searchsorted(clips, chosen)).astype(np.int32)


def take_rows(data: Batch, rows: Int[Array, " b"]) -> Batch:
    """A batch of resident rows; -1 is the padded one."""
    return jax.tree.map(lambda field: field[rows], data)


def take_sharded(data: Batch, rows: Int[Array, " b"], mesh: Mesh) -> Batch:
    """`take_rows` of data that is sharded over `data`, as the batch then is.

    Each device gives the rows that it holds and zeros for others; their sum is scattered to the devices that
    work on the rows, so that no device ever holds more than its part of the split.
    """
    if mesh.shape["data"] == 1:
        return take_rows(data, rows)

    def local(data: Batch, rows: Int[Array, " b"]) -> Batch:
        held = data.weight.shape[0]
        rows = jnp.where(rows < 0, rows + held * mesh.shape["data"], rows)
        own = rows - held * jax.lax.axis_index("data")
        here = (own >= 0) & (own < held)
        taken = take_rows(data, jnp.clip(own, 0, held - 1))
        return jax.tree.map(lambda field: _scattered(field, here), taken)

    specs = {"in_specs": (P("data"), P()), "out_specs": P("data")}
    return jax.shard_map(local, mesh=mesh, **specs, check_vma=False)(data, rows)


def _scattered(field: Array, here: Array) -> Array:
    kept = jnp.where(here.reshape(-1, *(1,) * (field.ndim - 1)), field, jnp.zeros_like(field))
    wide = kept.astype(jnp.uint8) if field.dtype == bool else kept
    return jax.lax.psum_scatter(wide, "data", scatter_dimension=0, tiled=True).astype(field.dtype)
