import jax
import ml_collections
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from emofuse_jax.parallel import mesh as sharding


def small_mesh(data=-1):
    return sharding.make_mesh(ml_collections.ConfigDict({"data": data}))


@pytest.mark.parametrize("data", [-1, 8])
def test_the_data_axis_takes_all_devices(data):
    assert dict(small_mesh(data).shape) == {"replica": 1, "data": 8, "model": 1}


def test_a_mesh_that_does_not_fit_is_named():
    with pytest.raises(
        ValueError, match=r"config.mesh.data=3: expected -1 \(all devices\) or their number, 8"
    ):
        small_mesh(data=3)


def test_a_batch_that_the_devices_do_not_divide_is_named():
    sharding.check_batch_size(16, "data.batch_size", small_mesh())
    with pytest.raises(
        ValueError, match=r"config.data.batch_size=12: expected a positive multiple of the 8 devices"
    ):
        sharding.check_batch_size(12, "data.batch_size", small_mesh())


def test_rows_are_split_over_data():
    sharded = sharding.put_batch({"x": np.arange(16.0).reshape(16, 1)}, small_mesh())
    assert sharded["x"].addressable_shards[3].data.tolist() == [[6.0], [7.0]]


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((512, 512), P("data")),
        ((3, 3, 256, 512), P(None, None, None, "data")),
        ((512,), P()),
        ((7, 100_003), P()),
    ],
)
def test_fsdp_splits_the_largest_axis_of_large_arrays(shape, spec):
    assert sharding.fsdp_spec(shape, small_mesh()) == spec


def test_fsdp_really_splits_the_bytes():
    state = {"w": np.ones((512, 512), np.float32), "b": np.ones(512, np.float32)}
    placed = jax.device_put(state, sharding.state_sharding(state, small_mesh(), fsdp=True))
    assert placed["w"].addressable_shards[0].data.shape == (64, 512)
    assert placed["b"].addressable_shards[0].data.shape == (512,)
