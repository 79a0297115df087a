"""Ours against PyTorch peers (tests/peers): their stored answers, and the peers where torch is."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emofuse_jax.ops.bilinear import factorized_bilinear_pooling
from emofuse_jax.ops.dropout import dropout
from tests.contract.parity import layers, networks, ops
from tests.contract.parity.compare import MIN_SCALE, assert_close, compare
from tests.peers import golden

OURS = ops.OURS | layers.OURS | networks.OURS
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed: pip install '.[bench]'"
)
GROUPS = ("in", "out", "cotangent", "grad")


def test_every_stored_answer_has_an_implementation_of_ours():
    assert golden.list_cases() == sorted(OURS)


@pytest.mark.parametrize("name", sorted(OURS))
def test_ours_equals_the_stored_answer(name):
    compare(OURS[name], golden.load(name))


@pytest.mark.parametrize("name", sorted(OURS))
def test_the_stored_answer_says_something(name):
    stored = golden.load(name)
    assert stored["grad"]
    for key, value in (stored["out"] | stored["grad"]).items():
        assert np.isfinite(value).all(), key
        assert np.abs(value).max() > MIN_SCALE, f"{key}: so small that nothing is compared"


def test_a_small_difference_is_seen():
    stored = golden.load("fbp")
    wrong = stored | {"out": {"z": stored["out"]["z"] * 1.001}}
    with pytest.raises(AssertionError, match="output z"):
        compare(OURS["fbp"], wrong)
    grad = stored["grad"] | {"u": stored["grad"]["u"] * 1.001}
    with pytest.raises(AssertionError, match="gradient of u"):
        compare(OURS["fbp"], stored | {"grad": grad})


def test_a_small_difference_of_the_smallest_array_is_seen():
    stored = [
        (name, group, golden.load(name)[group]) for name in golden.list_cases() for group in ("out", "grad")
    ]
    arrays = {f"{name}/{group}/{k}": v for name, group, values in stored for k, v in values.items()}
    name = min(arrays, key=lambda k: np.abs(arrays[k]).max())
    with pytest.raises(AssertionError, match="of the largest entry apart"):
        assert_close(arrays[name] * 1.001, arrays[name], 1e-4, name)


@needs_torch
def test_every_peer_is_stored():
    from tests.peers.catalogue import CASES

    assert sorted(CASES) == golden.list_cases()


@needs_torch
@pytest.mark.parametrize("name", sorted(OURS))
def test_the_peer_still_gives_the_stored_answer(name):
    from benchmarks.peers.case import solve
    from tests.peers.catalogue import CASES

    fresh, stored = solve(name, CASES[name]), golden.load(name)
    for group in GROUPS:
        assert sorted(fresh[group]) == sorted(stored[group])
        for key, value in fresh[group].items():
            assert_close(stored[group][key], value, 1e-5, f"{group}/{key}: stale, run make peers")


@needs_torch
@pytest.mark.parametrize("name", sorted(OURS))
def test_ours_equals_the_peer_at_other_sizes(name):
    from benchmarks.peers.case import OTHER_SIZE, solve
    from tests.peers.catalogue import CASES

    compare(OURS[name], solve(name, CASES[name], OTHER_SIZE))


@needs_torch
@pytest.mark.parametrize("power_norm", [False, True])
def test_dropout_acts_on_the_products_before_they_are_summed(power_norm):
    import torch

    from benchmarks.peers.bilinear import CASES, fbp
    from benchmarks.peers.case import Case, solve

    key, rate = jax.random.key(7), 0.4
    keep = np.array(dropout(jnp.ones((6, 15)), rate, key))  # the other size: 6 rows, o=3, k=5
    assert 0 < (keep == 0).mean() < 1

    def peer(a):
        return {"z": fbp(**a, factors=5, power_norm=power_norm, keep=torch.from_numpy(keep))}

    def ours(a):
        options = {"factors": 5, "power_norm": power_norm, "dropout_rate": rate, "key": key}
        return {"z": factorized_bilinear_pooling(**a, **options)}

    compare(ours, solve("fbp", Case(CASES["fbp"].inputs, peer), 2))
