import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emofuse_jax.ops.normalize import l2_normalize, masked_moments, signed_sqrt, standardize


def test_l2_has_unit_norm():
    x = np.random.default_rng(0).normal(size=(2, 5, 7)).astype(np.float32)
    expected = x / np.linalg.norm(x, axis=-1, keepdims=True)
    np.testing.assert_allclose(l2_normalize(jnp.asarray(x)), expected, atol=1e-6)


def test_signed_sqrt_is_exact_above_eps_and_linear_below():
    x = jnp.array([-4.0, -1e-6, -1e-8, 0.0, 1e-8, 2.25])
    expected = [-2.0, -1e-3, -1e-5, 0.0, 1e-5, 1.5]
    np.testing.assert_allclose(signed_sqrt(x), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("function", [l2_normalize, signed_sqrt, lambda x: l2_normalize(signed_sqrt(x))])
def test_finite_at_a_zero_row(function, dtype):
    x = jnp.zeros((2, 4), dtype)
    value, pull = jax.vjp(function, x)
    (gradient,) = pull(jnp.ones_like(value))
    assert value.dtype == dtype
    assert np.all(np.asarray(value, np.float32) == 0)
    assert np.all(np.isfinite(np.asarray(gradient, np.float32)))
    assert np.all(np.asarray(gradient, np.float32) > 0)


def test_norms_are_computed_in_float32():
    x = jnp.full((1, 4096), 0.1, jnp.bfloat16)  # in bfloat16 the sum of squares would stop growing at 2
    np.testing.assert_allclose(np.asarray(l2_normalize(x), np.float32), 1 / 64, rtol=4e-3)


def test_standardize_survives_a_constant_bin():
    x = jnp.array([[1.0, 5.0]], jnp.float16)
    y = standardize(x, jnp.array([3.0, 5.0]), jnp.array([2.0, 0.0]))
    np.testing.assert_allclose(y, [[-1.0, 0.0]])
    nearly = standardize(jnp.array([[3e-5, 3e-5]]), jnp.zeros(2), jnp.array([1e-6, 2e-5]))
    np.testing.assert_allclose(nearly, [[3.0, 1.5]], rtol=1e-5)


@pytest.mark.parametrize("shape", [(4, 1, 1, 1), (4, 5, 1, 1), (4, 1, 3, 1), (4, 5, 3, 1)])
@pytest.mark.parametrize("share", [0.5, 0.0])
def test_moments_are_those_of_the_valid_positions_or_of_all_where_there_is_none(shape, share):
    rng = np.random.default_rng(1)
    x, mask = rng.normal(1, 2, size=(4, 5, 3, 2)).astype(np.float32), rng.random(shape) < share
    counted = np.broadcast_to(mask if share else True, (4, 5, 3, 1))[..., 0]
    mean, variance = masked_moments(jnp.asarray(x), jnp.asarray(mask))
    np.testing.assert_allclose(mean, x[counted].mean(0), rtol=1e-5)
    np.testing.assert_allclose(variance, x[counted].var(0), rtol=1e-4)


def test_a_variance_is_never_below_zero_nor_in_half_precision():
    x = jnp.asarray(np.random.default_rng(2).normal(300, 1e-3, size=(64, 50)), jnp.float32)
    variance = np.asarray(masked_moments(x, jnp.ones((64, 1), bool))[1])
    assert (variance >= 0).all()
    assert (variance == 0).any()  # rounding gave less
    mean, _ = masked_moments(jnp.full((4096, 1), 0.1, jnp.bfloat16), jnp.ones((4096, 1), bool))
    np.testing.assert_allclose(mean, 0.1, rtol=4e-3)
