"""Plans: collectives read from compiled text, and real compilations for TPU slices that are not here."""

import importlib
import importlib.util
import json
import subprocess
import sys

import pytest

from emofuse_jax import settings
from emofuse_jax.cli.plan_tables import make_planned_input_spec
from emofuse_jax.parallel.mesh import make_mesh
from emofuse_jax.planning.chips import CHIPS, parse_topology
from emofuse_jax.planning.collectives import Collective, find_gradient_reductions, read_collectives
from emofuse_jax.planning.plan import Plan, make_plan, make_tpu_mesh, roofline_seconds
from tests.contract.test_configs import EXPERIMENTS

pytestmark = pytest.mark.usefixtures("users_environment")
NEEDS_LIBTPU = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install '.[plan]'"
)
COMPILED_TEXT = """
  %a = (f32[16]{0:T(128)}, f32[3,3,4,8]{3,2,1,0}, /*index=5*/bf16[10]{0}) all-reduce(%x, %y, %z), channel_id=1
  %b = (f32[8,4]{1,0}, f32[64,4]{1,0}) all-gather-start(%w), dimensions={0}
  %b2 = f32[64,4]{1,0} all-gather-done(%b)
  %c = pred[7]{0} all-reduce(%p), to_apply=%or
  ROOT %d = f32[4]{0} add(%all-reduce.1, %e)
"""


def test_collectives_are_read_with_their_bytes():
    collectives = read_collectives(COMPILED_TEXT)
    assert collectives == [
        Collective("all-reduce", ((16,), (3, 3, 4, 8), (10,)), 64 + 4 * 288 + 20, False),
        Collective("all-gather", ((64, 4),), 1024, True),
        Collective("all-reduce", ((7,),), 7, False),
    ]
    assert find_gradient_reductions(collectives, {(3, 3, 4, 8)}) == collectives[:1]
    assert find_gradient_reductions(collectives, {(64, 4)}) == []


def test_the_roofline_by_hand():
    chip = CHIPS["v5e"]
    other_fields = {"memory_bytes": 0, "embedding_bytes": 0, "gradient_reductions": []}
    overlapped_gather = Collective("all-gather", ((1,),), 4 * 10**9, True)
    blocking_reduce = Collective("all-reduce", ((1,),), 2 * 10**9, False)
    plan = Plan(
        devices=4,
        batch_size=8,
        flops=197e10,
        bytes_accessed=819e7,
        collectives=[overlapped_gather, blocking_reduce],
        **other_fields,
    )
    seconds = roofline_seconds(plan, chip)
    assert seconds["compute"] == pytest.approx(0.01)
    assert seconds["memory"] == pytest.approx(0.01)
    assert seconds["links"] == pytest.approx((3e9 + 3e9) / 200e9)
    assert seconds["step"] == pytest.approx(0.015 + 0.015)  # the gather is longer than the work


def test_a_bad_topology_is_a_line():
    assert parse_topology("v5e:4x4") == (CHIPS["v5e"], "4x4")
    assert parse_topology("v6e")[1] == ""
    with pytest.raises(ValueError, match=r"--topology=v9:2x2: expected one of the chips v5e, v5p, v6e"):
        parse_topology("v9:2x2")


def check_plan(config):
    """What a training over a slice of chips that are not here must hold, whatever the model."""
    plan = make_plan(config, make_planned_input_spec(config, None, 8), make_tpu_mesh("v5e", "4x4"), 16 * 4)
    assert plan.devices == 16
    assert 0 < plan.memory_bytes < CHIPS["v5e"].memory_bytes
    check_collectives(plan)


def check_collectives(plan):
    """Gradients are reduced together, and no device sees another one's rows."""
    assert plan.flops > 0
    assert 1 <= len(plan.gradient_reductions) <= 8
    gathers = [c for c in plan.collectives if c.kind == "all-gather"]
    assert all(c.bytes <= plan.embedding_bytes for c in gathers)
    assert not [c for c in plan.collectives if c.kind == "all-to-all"]


@pytest.mark.parametrize(("name", "others"), [("features", 1), ("hgr", 45)])
def test_eight_devices_that_are_here(name, others):
    """The rest are sums over the global batch: of the loss, and of hgr's batch norms and covariances."""
    config = settings.small(name)
    plan = make_plan(config, make_planned_input_spec(config, None, 8), make_mesh(config.mesh), 32)
    assert plan.devices == 8
    check_collectives(plan)
    assert {c.kind for c in plan.collectives} == {"all-reduce"}
    assert len(plan.collectives) - len(plan.gradient_reductions) <= others


@NEEDS_LIBTPU
def test_a_network_of_products():
    check_plan(settings.small("features"))


@NEEDS_LIBTPU
def test_an_audio_network():
    check_plan(settings.small("audio_only"))


@NEEDS_LIBTPU
def test_a_network_with_covariances_over_the_global_batch():
    check_plan(settings.small("hgr"))


@NEEDS_LIBTPU
@pytest.mark.long
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_shipped_config(name):
    check_plan(settings.load_shipped(name))


@NEEDS_LIBTPU
def test_the_command(tmp_path):
    output = str(tmp_path / "plan.json")
    command = [sys.executable, "launch/plan.py", "--config=configs/demo.py:features", f"--output={output}"]
    done = subprocess.run([*command, "--topology=v5e:2x2"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "gradient reductions" in done.stdout
    assert "not a forecast" in done.stdout
    with open(output) as file:
        (row,) = json.load(file)["rows"]
    assert row["devices"] == 4
    assert row["gradient_reductions"] >= 1
    assert row["roofline_seconds"]["step"] > 0
