import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from emofuse_jax.ops.dropout import dropout, random_bytes
from emofuse_jax.ops.lrn import local_response_norm
from emofuse_jax.ops.maxpool import max_pool
from tests.golden import formulas

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("options", [{}, {"size": 3, "kappa": 1.0, "alpha": 0.5, "beta": 0.5}])
def test_lrn_equals_the_formula(options):
    a = RNG.normal(0, 40, size=(2, 3, 8)).astype(np.float32)
    b = jax.jit(lambda x: local_response_norm(x, **options))(a)
    full = {"size": 5, "kappa": 2.0, "alpha": 1e-4, "beta": 0.75} | options
    expected = [[formulas.lrn(row, **full) for row in block] for block in a]
    np.testing.assert_allclose(b, expected, rtol=1e-5)


def test_lrn_alpha_is_not_divided_by_the_window():
    b = local_response_norm(jnp.full((1, 5), 100.0))
    np.testing.assert_allclose(b[0, 2], 100 / (2 + 1e-4 * 5 * 100**2) ** 0.75, rtol=1e-5)


def test_lrn_gradients_also_at_zero():
    with jax.enable_x64(True):
        function = jax.jit(lambda x: local_response_norm(x, alpha=0.3))
        check_grads(function, (RNG.normal(size=(2, 6)),), 1, modes=["rev"])
    gradient = jax.jit(jax.grad(lambda x: local_response_norm(x).sum()))(jnp.zeros((2, 6)))
    np.testing.assert_allclose(gradient, 2**-0.75, rtol=1e-6)


def test_lrn_refuses_an_even_window():
    with pytest.raises(ValueError, match="size: 4, expected an odd number"):
        local_response_norm(jnp.ones((1, 4)), size=4)


@pytest.mark.parametrize("options", [{}, {"size": 2, "stride": 1}, {"size": 2, "stride": 3}])
def test_max_pool_equals_reduce_window(options):
    x = jnp.asarray(RNG.normal(size=(2, 14, 11, 3)), jnp.float32)
    size, stride = ((1, n, n, 1) for n in ({"size": 3, "stride": 2} | options).values())

    def ours(x):
        return max_pool(x, **options)

    def reference(x):
        return lax.reduce_window(x, -np.inf, lax.max, size, stride, "VALID")

    assert np.array_equal(ours(x), reference(x))
    gradient, expected_gradient = (jax.grad(lambda x, f=f: (f(x) ** 2).sum())(x) for f in (ours, reference))
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6)


@pytest.mark.parametrize("rate", [1.0, -0.1])
def test_dropout_rate_is_checked(rate):
    with pytest.raises(ValueError, match=f"dropout rate: {rate}"):
        dropout(jnp.ones(3), rate, jax.random.key(0))


def test_dropout_keeps_its_share_and_the_mean():
    x = jnp.ones((300, 1001))
    for rate in (0.1, 0.3, 0.5, 0.7, 0.999):
        share = min(round(256 * rate), 255) / 256
        y = np.asarray(dropout(x, rate, jax.random.key(3)))
        spread = np.sqrt(share * (1 - share) / x.size)
        assert abs(np.mean(y == 0) - share) < 5 * spread
        assert abs(y.mean() - 1) < 5 * spread / (1 - share)
        np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - share)], rtol=1e-6)
        rows, columns = (np.mean(y == 0, axis) for axis in (1, 0))  # no pattern from bytes of one word
        assert np.std(rows) < 1.3 * np.sqrt(share * (1 - share) / 1001)
        assert np.std(columns) < 1.3 * np.sqrt(share * (1 - share) / 300)
    y = np.asarray(dropout(x, 0.5, jax.random.key(3))) > 0
    np.testing.assert_allclose(np.mean(y[:, 1:] & y[:, :-1]), 0.25, atol=0.005)
    assert dropout(x[0, 0], 0.5, jax.random.key(0)).shape == ()


def test_four_bytes_are_taken_of_each_random_number():
    key = jax.random.key(4)
    words = np.asarray(jax.random.bits(key, (3, 6), jnp.uint32))
    np.testing.assert_array_equal(random_bytes(key, (3, 23)), words.view(np.uint8)[:, :23])
