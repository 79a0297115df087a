"""The split as one batch on the devices."""

import jax
import numpy as np
import pytest

from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.data.pipeline import load_batch
from emofuse_jax.data.resident import (
    load_resident,
    resident_bytes,
    row_numbers,
    take_rows,
    take_sharded,
)
from emofuse_jax.parallel.mesh import make_mesh, put_batch
from emofuse_jax.types import InputSpec

SPEC = InputSpec(t=100, f=70, s=4, h=16, w=16, classes=3)
CLIPS = np.array([2, 3, 5, 7, 11, 13, 17, 19, 23, 29])


@pytest.fixture
def dataset(fake_dataset):
    return open_dataset(fake_dataset)


def assert_same_leaves(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_rows_are_those_that_would_be_read(dataset):
    chosen = np.array([29, 2, -1, 11, 11, 3, -1, 23])
    expected = load_batch(dataset, chosen, SPEC)
    resident = load_resident(dataset, CLIPS, SPEC)
    assert_same_leaves(take_rows(resident, row_numbers(CLIPS, chosen)), expected)
    assert sum(x.nbytes for x in jax.tree.leaves(resident)) == resident_bytes(len(CLIPS), SPEC)


def test_gathered_from_all_devices_too(dataset):
    from emofuse_jax import settings

    mesh = make_mesh(settings.base().mesh)
    chosen = np.array([29, 2, -1, 11, 11, 3, -1, 23])
    resident = put_batch(load_resident(dataset, CLIPS, SPEC, row_multiple=8), mesh)
    assert resident.audio.addressable_shards[0].data.shape[0] == 2  # of 16 rows
    taken_rows = jax.jit(lambda data, rows: take_sharded(data, rows, mesh))(
        resident, row_numbers(CLIPS, chosen)
    )
    assert_same_leaves(taken_rows, load_batch(dataset, chosen, SPEC))
    assert taken_rows.audio.addressable_shards[0].data.shape[0] == 1


def test_processes_hold_a_part_each(dataset):
    full_batch = load_resident(dataset, CLIPS, SPEC, row_multiple=8)
    parts = [load_resident(dataset, CLIPS, SPEC, row_multiple=8, process=(i, 4)) for i in range(4)]
    assert_same_leaves(jax.tree.map(lambda *x: np.concatenate(x), *parts), full_batch)
