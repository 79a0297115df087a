import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from emofuse_jax.ops.bilinear import factorized_bilinear_pooling
from tests.golden import formulas, tables

RNG = np.random.default_rng(2)


def worked_example(**options):
    arrays = [jnp.array(x) for x in (tables.FBP_A, tables.FBP_B, tables.FBP_U, tables.FBP_V)]
    return factorized_bilinear_pooling(*arrays, factors=2, **options)


def make_arrays(dtype, m=5, n=4, o=3, k=2, rows=2):
    shapes = [(rows, m), (rows, n), (m, o * k), (n, o * k)]
    return [jnp.asarray(RNG.normal(size=shape), dtype) for shape in shapes]


def test_worked_example():
    np.testing.assert_allclose(worked_example(normalize=False), tables.FBP_SUM, atol=1e-5)
    np.testing.assert_allclose(worked_example(), tables.FBP_L2, atol=1e-6)
    np.testing.assert_allclose(worked_example(power_norm=True), tables.FBP_POWER_L2, atol=1e-6)


@pytest.mark.parametrize("bias", [0.0, 1.0])
@pytest.mark.parametrize("power_norm", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_equals_the_formula(bias, power_norm, normalize):
    x, y, u, v = make_arrays(jnp.float32)
    options = {"power_norm": power_norm, "normalize": normalize}
    biases = {} if not bias else {"bias_u": jnp.full(6, bias), "bias_v": jnp.full(6, bias)}
    z = factorized_bilinear_pooling(x, y, u, v, factors=2, **options, **biases)
    x, y, u, v = (np.asarray(a, np.float64) for a in (x, y, u, v))
    for row in range(2):
        expected = formulas.fbp(x[row], y[row], u, v, 2, bias=bias, **options)
        np.testing.assert_allclose(z[row], expected, rtol=2e-5, atol=1e-6)


def test_is_the_explicit_bilinear_form():
    x, y, u, v = make_arrays(jnp.float32)
    z = factorized_bilinear_pooling(x, y, u, v, factors=2, normalize=False)
    for i in range(3):
        w = np.asarray(u[:, 2 * i : 2 * i + 2] @ v[:, 2 * i : 2 * i + 2].T, np.float64)
        expected = [np.asarray(a) @ w @ np.asarray(b) for a, b in zip(x, y, strict=True)]
        np.testing.assert_allclose(z[:, i], expected, rtol=1e-5, atol=1e-5)


def test_scalar_weights_are_cancelled_by_the_norm_but_not_with_biases():
    with jax.enable_x64(True):
        x, y, u, v = make_arrays(jnp.float64)

        def plain(a, b):
            return factorized_bilinear_pooling(a * x, b * y, u, v, factors=2, eps=1e-300)

        assert np.max(np.abs(plain(1.0, 1.0) - plain(0.7, 0.3))) < 1e-15
        ones = jnp.ones(6)

        def biased(a, b):
            return factorized_bilinear_pooling(
                a * x, b * y, u, v, factors=2, bias_u=ones, bias_v=ones, eps=1e-300
            )

        assert np.max(np.abs(biased(1.0, 1.0) - biased(0.7, 0.3))) > 1e-2


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("power_norm", [False, True])
def test_finite_at_zero_rows(dtype, power_norm):
    x, y, u, v = make_arrays(dtype)
    x = x.at[0].set(0)

    def total(*arguments):
        z = factorized_bilinear_pooling(*arguments, factors=2, power_norm=power_norm)
        return z.astype(jnp.float32).sum(), z

    gradients, z = jax.grad(total, (0, 1, 2, 3), has_aux=True)(x, y, u, v)
    assert z.dtype == dtype
    assert np.all(np.asarray(z[0], np.float32) == 0)
    for gradient in gradients:
        assert np.all(np.isfinite(np.asarray(gradient, np.float32)))


def test_finite_with_everything_dropped_and_with_zero_weights():
    x, y, u, v = make_arrays(jnp.float32)
    u = jnp.zeros_like(u)
    rate = {"dropout_rate": 0.9, "key": jax.random.key(0)}

    def total(*arguments):
        return factorized_bilinear_pooling(*arguments, factors=2, power_norm=True, **rate).sum()

    for gradient in jax.grad(total, (0, 1, 2, 3))(x, y, u, v):
        assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("power_norm", [False, True])
def test_gradients(power_norm):
    with jax.enable_x64(True):
        arguments = make_arrays(jnp.float64)

        def fused(*a):
            return factorized_bilinear_pooling(*a, factors=2, power_norm=power_norm)

        check_grads(jax.jit(fused), arguments, order=1, modes=["rev"])


def test_dropout_needs_a_key_and_keeps_the_mean():
    x, y, u, v = make_arrays(jnp.float32, rows=1)

    def fuse(key):
        return factorized_bilinear_pooling(x, y, u, v, factors=2, dropout_rate=0.3, key=key, normalize=False)

    exact = factorized_bilinear_pooling(x, y, u, v, factors=2, normalize=False)
    assert np.array_equal(fuse(None), exact)
    draws = jax.vmap(fuse)(jax.random.split(jax.random.key(0), 20_000))
    assert not np.array_equal(draws[0], draws[1])
    spread = np.asarray(draws).std(0) / np.sqrt(len(draws))
    assert np.all(np.abs(np.asarray(draws).mean(0) - exact) < 5 * spread)


def test_dropout_of_what_is_pooled_takes_whole_outputs():
    x, y, u, v = make_arrays(jnp.float32, o=200)
    options = {"factors": 2, "normalize": False}
    exact = np.asarray(factorized_bilinear_pooling(x, y, u, v, **options))
    rate = {"dropout_rate": 0.5, "key": jax.random.key(0)}
    dropped = np.asarray(factorized_bilinear_pooling(x, y, u, v, dropout_place="pooled", **rate, **options))
    is_kept = dropped != 0
    np.testing.assert_allclose(dropped[is_kept], 2 * exact[is_kept], rtol=1e-5)
    assert 0.3 < is_kept.mean() < 0.7
    spread = np.asarray(factorized_bilinear_pooling(x, y, u, v, **rate, **options)) / exact
    assert (np.abs(spread - np.round(spread)) > 0.01).mean() > 0.3  # one of two products


def test_width_must_be_a_multiple_of_the_rank():
    x, y, u, v = make_arrays(jnp.float32)
    with pytest.raises(ValueError, match="6 columns, expected a multiple of factors=4"):
        factorized_bilinear_pooling(x, y, u, v, factors=4)
