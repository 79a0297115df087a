"""A whole split as one batch, to lie in the devices' memory; training batches are gathered from it there."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from emofuse_jax.data.collate import empty_batch
from emofuse_jax.data.dataset import Dataset
from emofuse_jax.data.pipeline import SKIP_NOTHING, SkipPolicy, load_batch, process_rows
from emofuse_jax.types import Batch, InputSpec


def load_resident(
    dataset: Dataset,
    clips: Int[np.ndarray, " n"],
    spec: InputSpec,
    *,
    row_multiple: int = 1,
    process: tuple[int, int] = (0, 1),
    skip_policy: SkipPolicy = SKIP_NOTHING,
) -> Batch:
    """The clips in order, then at least one padded row of weight 0, up to a multiple of `row_multiple` rows.

    Of several processes, `(index, count)`, each gets its part of the rows. Damaged clips that `skip_policy`
    leaves out are padded rows.
    """
    row_count = -(-(len(clips) + 1) // row_multiple) * row_multiple
    padded_clips = np.full(row_count, -1, np.int64)
    padded_clips[: len(clips)] = clips
    return load_batch(dataset, padded_clips[process_rows(row_count, process)], spec, skip_policy)


def resident_bytes(clip_count: int, spec: InputSpec) -> int:
    """What so many clips take."""
    return (clip_count + 1) * sum(field.nbytes for field in jax.tree.leaves(empty_batch(1, spec)))


def row_numbers(
    clips: Int[np.ndarray, " n"], chosen_clips: Int[np.ndarray, "*shape"]
) -> Int[np.ndarray, "*shape"]:
    """Rows of chosen clips among the resident ones, which are sorted; -1 stays -1."""
    return np.where(chosen_clips < 0, -1, np.searchsorted(clips, chosen_clips)).astype(np.int32)


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

    def take_local_rows(data: Batch, rows: Int[Array, " b"]) -> Batch:
        shard_rows = data.weight.shape[0]
        rows = jnp.where(rows < 0, rows + shard_rows * mesh.shape["data"], rows)
        local_rows = rows - shard_rows * jax.lax.axis_index("data")
        is_local = (local_rows >= 0) & (local_rows < shard_rows)
        taken_rows = take_rows(data, jnp.clip(local_rows, 0, shard_rows - 1))
        return jax.tree.map(lambda field: _scatter_rows(field, is_local), taken_rows)

    specs = {"in_specs": (P("data"), P()), "out_specs": P("data")}
    return jax.shard_map(take_local_rows, mesh=mesh, **specs, check_vma=False)(data, rows)


def _scatter_rows(field: Array, is_local: Array) -> Array:
    masked_field = jnp.where(is_local.reshape(-1, *(1,) * (field.ndim - 1)), field, jnp.zeros_like(field))
    summable_field = masked_field.astype(jnp.uint8) if field.dtype == bool else masked_field
    return jax.lax.psum_scatter(summable_field, "data", scatter_dimension=0, tiled=True).astype(field.dtype)
