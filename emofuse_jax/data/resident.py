"""Loads a complete split as one batch into the devices' memory, from which steps gather their batches."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec as P
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
    """Returns a batch of NumPy arrays with all clips in order, then at least one padded row of weight 0.

    The padded rows are at the end of the rows of all processes together. With b rows and the sizes of `spec`,
    it has the spectrogram `audio` [b t f], `faces` [b s h w 3], the masks `audio_mask` [b t] and `face_mask`
    [b s], True at valid positions, the features of frozen encoders with their mask (None if there are none),
    and `label`, `label_mask`, `weight`, `speaker` and `clip` [b].

    Args:
      dataset: The records.
      clips: Sorted record indices.
      spec: Shape of a clip in the batch; longer audio is cropped to its middle `spec.t` steps.
      row_multiple: The number of rows, all processes together, is a multiple of this number, at least 1. A
        multiple of the number of processes gives each process as many rows.
      process: (index, count) of this process, from 0; the batch has only the rows of this process.
      skip_policy: Its `skippable_clips`, a frozenset of record indices, names the clips that become padded
        rows, with a warning, if their records are damaged.

    Raises:
      DamagedRecordError: A record is damaged and not in `skip_policy.skippable_clips`.
      OSError: A shard is missing or cannot be opened.
      IndexError: An index is too large.
      ZeroDivisionError: `row_multiple` is 0.
      ValueError: A record lacks a field that `spec` needs, has another number of frames, bins, pixels or
        features than `spec`, or its speaker is not in prep.json; or the shards do not match prep.json and
        manifest.csv (their number, their names or the number of records).
    """
    row_count = -(-(len(clips) + 1) // row_multiple) * row_multiple
    padded_clips = np.full(row_count, -1, np.int64)
    padded_clips[: len(clips)] = clips
    return load_batch(dataset, padded_clips[process_rows(row_count, process)], spec, skip_policy)


def resident_bytes(clip_count: int, spec: InputSpec) -> int:
    """Returns the number of bytes of a batch that holds `clip_count` clips and one padded row."""
    return (clip_count + 1) * sum(field.nbytes for field in jax.tree.leaves(empty_batch(1, spec)))


def row_numbers(
    clips: Int[np.ndarray, " n"], chosen_clips: Int[np.ndarray, "*shape"]
) -> Int[np.ndarray, "*shape"]:
    """Returns the row of each chosen clip in the resident batch, as int32; -1 stays -1.

    Args:
      clips: Sorted record indices of the resident batch.
      chosen_clips: Record indices that are contained in `clips`, or -1.
    """
    return np.where(chosen_clips < 0, -1, np.searchsorted(clips, chosen_clips)).astype(np.int32)


def take_rows(data: Batch, rows: Int[Array, " b"]) -> Batch:
    """Returns the rows `rows` of the resident batch `data`; -1 selects its last row, which is padded."""
    return jax.tree.map(lambda field: field[rows], data)


def take_sharded(data: Batch, rows: Int[Array, " b"], mesh: Mesh) -> Batch:
    """Returns the rows `rows` of a resident batch that is sharded over the mesh axis `data`.

    `rows` are row numbers of the complete batch; -1 selects its last row, which is padded. The result is
    sharded over the mesh axis `data` too. Each device contributes its rows and zeros for all other rows; the
    sum is scattered to the devices that process the rows (psum_scatter), so that no device ever holds more
    than its part of the split.

    Raises:
      KeyError: The mesh has no axis `data`.
      ValueError: The devices of the axis `data` cannot share `data` or `rows` equally.
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

    take_all_rows = jax.shard_map(
        take_local_rows, mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"), check_vma=False
    )
    return take_all_rows(data, rows)


def _scatter_rows(field: Array, is_local: Array) -> Array:
    """Returns this device's rows of the sum of `field` over all devices; rows that are not local count as 0.

    `field` is [b ...] and `is_local` bool [b]; with n devices, the result is [b/n ...] in the dtype of
    `field`.
    """
    masked_field = jnp.where(is_local.reshape(-1, *(1,) * (field.ndim - 1)), field, jnp.zeros_like(field))
    summable_field = masked_field.astype(jnp.uint8) if field.dtype == bool else masked_field
    return jax.lax.psum_scatter(summable_field, "data", scatter_dimension=0, tiled=True).astype(field.dtype)
