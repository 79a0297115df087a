import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from emofuse_jax.ops.bilinear import factorized_bilinear_pooling
from emofuse_jax.ops.mfb import mfb, mfh
from tests.golden import tables

RNG = np.random.default_rng(4)


def mfh_formula(x, y, us, vs, k):
    """One output of one block at a time."""
    blocks, before = [], np.ones(us[0].shape[1])
    for u, v in zip(us, vs, strict=True):
        before = np.array([(u[:, j] @ x) * (v[:, j] @ y) * before[j] for j in range(u.shape[1])])
        sums = np.array([before[i : i + k].sum() for i in range(0, len(before), k)])
        z = np.sign(sums) * np.sqrt(np.abs(sums))
        blocks.append(z / np.linalg.norm(z))
    return np.concatenate(blocks)


def make_arrays(dtype=jnp.float32, blocks=2, m=5, n=4, o=3, k=2, rows=2):
    x, y = (jnp.asarray(RNG.normal(size=(rows, d)), dtype) for d in (m, n))
    us, vs = ([jnp.asarray(RNG.normal(size=(d, o * k)), dtype) for _ in range(blocks)] for d in (m, n))
    return x, y, us, vs


def test_mfb_worked_example_and_one_place_of_truth():
    a, b, u, v = (jnp.array(x) for x in (tables.FBP_A, tables.FBP_B, tables.FBP_U, tables.FBP_V))
    z = mfb(a, b, u, v, factors=2)
    np.testing.assert_allclose(z, tables.FBP_POWER_L2, atol=1e-6)
    assert np.array_equal(z, factorized_bilinear_pooling(a, b, u, v, factors=2, power_norm=True))


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_mfh_equals_the_formula(blocks):
    x, y, us, vs = make_arrays(blocks=blocks)
    z = mfh(x, y, us, vs, factors=2)
    assert z.shape == (2, 3 * blocks)
    for row in range(2):
        row_arrays = jax.tree.map(lambda a: np.asarray(a, np.float64), (x[row], y[row], us, vs))
        np.testing.assert_allclose(z[row], mfh_formula(*row_arrays, 2), rtol=1e-4, atol=1e-5)


def test_one_block_is_mfb_also_with_dropout():
    x, y, us, vs = make_arrays(blocks=1)
    key = jax.random.key(0)
    np.testing.assert_allclose(mfh(x, y, us, vs, factors=2), mfb(x, y, us[0], vs[0], factors=2), atol=1e-6)
    rate = {"dropout_rate": 0.4, "factors": 2}
    cascaded = mfh(x, y, us, vs, key=key, **rate)
    single = mfb(x, y, us[0], vs[0], key=jax.random.split(key, 1)[0], **rate)
    np.testing.assert_allclose(cascaded, single, atol=1e-6)


def test_a_later_block_stands_on_the_products_of_the_one_before():
    x, y, us, vs = make_arrays()
    changed = mfh(x, y, [2 * us[0] + 0.3, us[1]], vs, factors=2)
    assert np.abs(changed - mfh(x, y, us, vs, factors=2))[:, 3:].max() > 1e-2


@pytest.mark.parametrize("function", ["mfb", "mfh"])
def test_gradients(function):
    with jax.enable_x64(True):
        x, y, us, vs = make_arrays(jnp.float64)

        def fused(x, y, us, vs):
            return mfh(x, y, us, vs, factors=2) if function == "mfh" else mfb(x, y, us[0], vs[0], factors=2)

        check_grads(jax.jit(fused), (x, y, us, vs), order=1, modes=["rev"], eps=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("dropout_rate", [0.0, 0.9])
def test_finite_at_zero_rows_and_with_nearly_everything_dropped(dtype, dropout_rate):
    x, y, us, vs = make_arrays(dtype)
    x = x.at[0].set(0)

    def total(*arguments):
        z = mfh(*arguments, factors=2, dropout_rate=dropout_rate, key=jax.random.key(1))
        return z.astype(jnp.float32).sum(), z

    gradients, z = jax.grad(total, (0, 1, 2, 3), has_aux=True)(x, y, us, vs)
    assert z.dtype == dtype
    assert np.all(np.asarray(z[0], np.float32) == 0)
    for gradient in jax.tree.leaves(gradients):
        assert np.all(np.isfinite(np.asarray(gradient, np.float32)))


def test_rows_are_answered_apart():
    x, y, us, vs = make_arrays(rows=3)
    z = mfh(x, y, us, vs, factors=2)
    order = np.array([2, 0, 1])
    np.testing.assert_allclose(mfh(x[order], y[order], us, vs, factors=2), z[order], atol=1e-6)
    np.testing.assert_allclose(mfh(x[1], y[1], us, vs, factors=2), z[1], atol=1e-6)


def test_what_raises():
    x, y, us, vs = make_arrays()
    with pytest.raises(ValueError, match="6 columns, expected a multiple of factors=4"):
        mfh(x, y, us, vs, factors=4)
    with pytest.raises(ValueError, match="us, vs: 2 and 1 matrices, expected one of each"):
        mfh(x, y, us, vs[:1], factors=2)
    with pytest.raises(ValueError, match="us, vs: 0 and 0 matrices"):
        mfh(x, y, [], [], factors=2)
