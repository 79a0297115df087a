import dataclasses
import gc
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from emofuse_jax import settings
from emofuse_jax.parallel.mesh import MESH_AXES, make_mesh, state_sharding
from emofuse_jax.training.checkpoint import store
from emofuse_jax.training.optimizer import evaluation_params, make_optimizer
from emofuse_jax.types import TrainState


def make_state(ema: float, step: int) -> TrainState:
    config = settings.experiment.optimizer_defaults()
    config.ema = ema
    tx = make_optimizer(config, 10)
    params = {"layer": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3)}}
    opt_state = tx.init(params)
    for _ in range(step):
        updates, opt_state = tx.update(jax.tree.map(jnp.ones_like, params), opt_state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return TrainState(jnp.array(step, jnp.int32), params, {"norm": {"mean": jnp.full(3, 2.0)}}, opt_state)


def make_abstract(state):
    mesh = make_mesh(ml_collections.ConfigDict({"data": -1}))
    return store.abstract_like(state, state_sharding(state, mesh, fsdp=False))


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_a_state_survives_bit_for_bit_and_serving_gets_what_was_scored(tmp_path, ema):
    state = make_state(ema, step=3)
    store.save(str(tmp_path), "last", state, {"config": {"name": "x"}, "data": {"position": 7}})
    restored = store.restore(str(tmp_path), make_abstract(state))
    metadata = store.read_metadata(str(tmp_path), "last")
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert metadata["config"] == {"name": "x"}
    assert metadata["data"] == {"position": 7}
    params, model_state = store.load_model(
        str(tmp_path), "last", (make_abstract(state.params), make_abstract(state.model_state))
    )
    jax.tree.map(np.testing.assert_array_equal, params, evaluation_params(state.params, state.opt_state))
    jax.tree.map(np.testing.assert_array_equal, model_state, state.model_state)
    averaged = np.asarray(params["layer"]["bias"]) != np.asarray(state.params["layer"]["bias"])
    assert averaged.all() == bool(ema)


@pytest.mark.long
def test_saving_keeps_nothing(tmp_path):
    """Of Python's objects, but for 96 a save of tensorstore's: 738 where its counters are read."""
    state, block_counts = make_state(0.5, step=1), []
    for step in range(30):
        store.save(str(tmp_path), "last", dataclasses.replace(state, step=jnp.array(step)), {})
        gc.collect()
        block_counts.append(sys.getallocatedblocks())
    print("objects more a save:", (block_counts[-1] - block_counts[9]) / 20)
    assert (block_counts[-1] - block_counts[9]) / 20 < 300


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_what_eight_devices_wrote_restores_on_fewer(tmp_path, devices):
    """Split by the FSDP rule on both sides."""

    def make_sharding(state, count):
        mesh = jax.make_mesh((1, count, 1), MESH_AXES, devices=jax.devices()[:count])
        return state_sharding(state, mesh, fsdp=True)

    tx = make_optimizer(settings.experiment.optimizer_defaults(), 10)
    params = {"kernel": jax.random.normal(jax.random.key(0), (64, 1024))}
    state = TrainState(jnp.array(5, jnp.int32), params, {"mean": jnp.ones(3)}, tx.init(params))
    eight = jax.device_put(state, make_sharding(state, 8))
    assert len(eight.params["kernel"].sharding.device_set) == 8
    assert not eight.params["kernel"].is_fully_replicated
    store.save(str(tmp_path), "last", eight, {})
    restored = store.restore(str(tmp_path), store.abstract_like(state, make_sharding(state, devices)))
    assert len(restored.params["kernel"].sharding.device_set) == devices
    assert restored.params["kernel"].is_fully_replicated == (devices == 1)
    jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_a_newer_checkpoint_replaces_the_older_of_its_kind_alone(tmp_path):
    for kind, step in (("best", 1), ("last", 1), ("last", 2)):
        store.save(str(tmp_path), kind, make_state(0.0, step), {})
    names = {kind: os.listdir(tmp_path / "checkpoints" / kind) for kind in store.CHECKPOINT_KINDS}
    assert names == {"best": ["1"], "last": ["2"]}


def test_nothing_to_load_is_an_error_and_leaves_nothing(tmp_path):
    assert store.read_metadata(str(tmp_path), "last", missing_ok=True) is None
    with pytest.raises(FileNotFoundError, match="holds no best checkpoint; run emofuse train first"):
        store.read_metadata(str(tmp_path), "best")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", store.CHECKPOINT_KINDS)
@pytest.mark.parametrize(
    ("schema", "metadata", "message"),
    [
        (
            1,
            {"versions": {"emofuse": "0.1.0"}},
            "schema 1, written by emofuse 0.1.0; {} schema 2: train again",
        ),
        (1, {}, "schema 1; {} schema 2: train again"),
        (
            99,
            {"versions": {"emofuse": "9.0"}},
            "schema 99, written by emofuse 9.0; {} schema 2: update emofuse",
        ),
    ],
)
def test_another_schema_is_rejected(tmp_path, monkeypatch, kind, schema, metadata, message):
    monkeypatch.setattr(store, "SCHEMA_VERSION", schema)
    store.save(str(tmp_path), kind, make_state(0.0, 1), metadata)
    monkeypatch.undo()
    directory = tmp_path / "checkpoints" / kind
    with pytest.raises(ValueError, match=re.escape(str(directory))) as error:
        store.read_metadata(str(tmp_path), kind)
    assert str(error.value) == f"{directory}: checkpoint {message.format('this emofuse reads')}"


def test_a_missing_metadata_field_is_named(tmp_path):
    metadata = dict.fromkeys(store.MODEL_METADATA_FIELDS[1:])
    with pytest.raises(ValueError, match=r"checkpoints/best: field config: this field is missing"):
        store.require_metadata_fields(str(tmp_path), "best", metadata, store.MODEL_METADATA_FIELDS)


def test_errors_about_metadata_name_the_checkpoint(tmp_path):
    with (
        pytest.raises(ValueError, match=r"checkpoints/best: metadata: config\.seed: .* or train again"),
        store.name_checkpoint_in_errors(str(tmp_path), "best"),
    ):
        raise ValueError("config.seed: this field is missing")


def test_reading_leaves_a_save_that_is_under_way(tmp_path):
    state = make_state(0.0, 1)
    store.save(str(tmp_path), "last", state, {})
    under_way = tmp_path / "checkpoints" / "last" / "2.orbax-checkpoint-tmp"
    under_way.mkdir()
    store.read_metadata(str(tmp_path), "last")
    assert under_way.exists()


def test_a_removal_that_is_killed_leaves_nothing_to_read(tmp_path, monkeypatch):
    store.save(str(tmp_path), "last", make_state(0.0, 1), {})

    def killed_rmtree(directory, ignore_errors=False):
        for path in os.scandir(directory) if os.path.isdir(directory) else ():
            os.remove(os.path.join(path, "_CHECKPOINT_METADATA"))
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.shutil, "rmtree", killed_rmtree)
        with pytest.raises(KeyboardInterrupt):
            store.remove(str(tmp_path), "last")
    assert store.read_metadata(str(tmp_path), "last", missing_ok=True) is None
    store.save(str(tmp_path), "last", make_state(0.0, 2), {})
    store.remove(str(tmp_path), "last")
    assert os.listdir(tmp_path / "checkpoints") == []


def test_a_checkpoint_with_other_parameters_is_rejected(tmp_path):
    tx = make_optimizer(settings.experiment.optimizer_defaults(), 10)

    def state(**more):
        params = {"fusion": {"u": jnp.ones((2, 3)), **more}}
        return TrainState(jnp.zeros((), jnp.int32), params, {"input": jnp.ones(2)}, tx.init(params))

    store.save(str(tmp_path), "last", state(), {})
    other = state(absent=jnp.ones(5))
    one_line = r"\A[^\n]*checkpoints/last: damaged, or from another network: [^\n]*\Z"
    with pytest.raises(ValueError, match=one_line):
        store.restore(str(tmp_path), make_abstract(other))
    with pytest.raises(ValueError, match=one_line):
        store.load_model(
            str(tmp_path), "last", (make_abstract(other.params), make_abstract(other.model_state))
        )


FAILED_SAVE = """
import asyncio, sys, time
import numpy as np, tensorstore
if sys.argv[2] == "ours":
    from emofuse_jax.utils import process_setup
    process_setup.set_up_process()

async def array(i):
    spec = {"driver": "zarr", "kvstore": f"file://{sys.argv[1]}/{i}"}
    store = await tensorstore.open(spec, create=True, dtype=tensorstore.float32, shape=[1000, 1000])
    await store.write(np.random.default_rng(i).normal(size=(1000, 1000)).astype(np.float32))

async def fails():
    await asyncio.sleep(0.02)
    raise OSError("no room")

async def save():
    await asyncio.gather(fails(), *map(array, range(30)))

class Other:
    def __del__(self):
        raise RuntimeError("another")

loop = asyncio.new_event_loop()
try:
    loop.run_until_complete(save())
except OSError:
    loop.close()
time.sleep(2)
Other()
"""


@pytest.mark.parametrize("whose", ["ours", "bare"])
def test_a_failed_save_has_no_late_tracebacks(tmp_path, whose):
    """What orbax does: the first array's error ends its loop, the others' writes end after that."""
    command = [sys.executable, "-c", FAILED_SAVE, str(tmp_path), whose]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ("Event loop is closed" in done.stderr) == (whose == "bare")
    assert "another" in done.stderr
