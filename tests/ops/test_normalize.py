import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emofuse_jax.ops.normalize import l2_normalize, signed_sqrt, standardize


def test_l2_has_unit_norm():
    x = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
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
