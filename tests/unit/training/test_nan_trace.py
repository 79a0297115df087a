"""The first value that was not finite is found, whatever hides it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emofuse_jax.training import nan_trace
from emofuse_jax.training.nan_trace import classify_values, find_first_nonfinite


def overflow(x):
    return jnp.sum(jnp.log1p(jnp.exp(x)) - jnp.exp(x))  # inf - inf


def masked(x):
    """NaN that a mask takes away before the quotient makes another."""
    masked_roots = jnp.where(x > 0, jnp.sqrt(x), 0.0)
    return jnp.sum(masked_roots / (masked_roots - masked_roots))


@jax.custom_vjp
def identity(x):
    return x


identity.defvjp(lambda x: (x, x), lambda x, g: (g / (x - x),))


def scanned(x):
    return jax.lax.scan(lambda carry, y: (carry / (y - y), carry), x[0], x)[0]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (
            overflow,
            r"result is NaN: NaN from sub\(.*\(overflow\), with input infinite from exp\(float32\[3\]\)",
        ),
        (jax.jit(overflow), r"NaN from sub\(.*\(overflow\), with input infinite from exp\("),
        (masked, r"result is infinite: infinite from div\(float32\[3\], float32\[3\]\) at .*\(masked\)"),
        (jax.checkpoint(overflow), r"NaN from sub\(.*\(overflow\), with input infinite from exp\("),
        (jax.grad(lambda x: identity(x).sum()), r"infinite from div\(float32\[3\], float32\[3\]\)"),
        (scanned, r"infinite from scan\("),
        (lambda x: jnp.log(x - 1000).mean(), r"NaN from log\("),
    ],
)
def test_the_operation_is_named(function, expected):
    assert re.search(expected, find_first_nonfinite(function, jnp.array([1.0, 2.0, 200.0])))


def test_an_argument_is_named():
    batch = {"audio": jnp.array([1.0, jnp.nan]), "faces": jnp.ones(2)}
    message = find_first_nonfinite(lambda p, b: (p * b["audio"].sum(), b["faces"]), jnp.ones(()), batch)
    assert message == "result [0] is NaN: NaN from argument [1]['audio']"


def test_finite_results_are_not_blamed():
    assert find_first_nonfinite(lambda x: jnp.where(x > 0, jnp.log(x), 0.0), jnp.array([-1.0, 1.0])) == ""


def test_random_numbers_are_those_of_the_program():
    key = jax.random.key(3)
    value = float(jax.random.normal(key))
    message = find_first_nonfinite(lambda key: jnp.log(jax.random.normal(key) - value) * 1.0, key)
    assert "infinite from log" in message
    assert np.isfinite(value)


def test_values_are_forgotten_after_their_last_use(monkeypatch):
    live_counts = []

    def chain(x):
        for _ in range(30):
            x = jnp.sin(x) + 1
        return x

    monkeypatch.setattr(
        nan_trace, "classify_values", lambda x: live_counts.append(count_large_arrays()) or classify_values(x)
    )
    before = count_large_arrays()
    assert find_first_nonfinite(jax.jit(chain), jnp.ones(1 << 20)) == ""
    assert len(live_counts) > 60
    assert max(live_counts) - before <= 5  # of some sixty


def count_large_arrays() -> int:
    return sum(array.size >= 1 << 20 for array in jax.live_arrays())
