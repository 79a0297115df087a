import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from emofuse_jax.ops.joint_attention import joint_correlation, reweight

RNG = np.random.default_rng(6)


def arrays(dtype=jnp.float32, rows=2, n=3, d=4, e=6):
    shapes = [(rows, n, d), (rows, n, e), (d, e)]
    return [jnp.asarray(RNG.normal(size=shape), dtype) for shape in shapes]


def seen(own, joint, kernel, mask):
    return reweight(joint_correlation(own, joint, kernel), own, mask)


def test_equals_the_formula():
    own, joint, kernel = arrays()
    mask = jnp.array([[True, False, True], [False, True, False]])
    c, r = joint_correlation(own, joint, kernel), seen(own, joint, kernel, mask)
    own, joint, kernel = (np.asarray(a, np.float64) for a in (own, joint, kernel))
    for row in range(2):
        m, j = own[row].T, joint[row].T  # columns are positions, as in the paper
        correlation = np.tanh(m.T @ kernel @ j / np.sqrt(len(j)))
        np.testing.assert_allclose(c[row], correlation, atol=1e-5)
        valid = np.asarray(mask[row])
        for position in range(3):
            expected = np.mean([correlation[i, position] * m[:, i] for i in range(3) if valid[i]], axis=0)
            np.testing.assert_allclose(r[row, position], expected, atol=1e-5)


def test_masked_positions_do_not_matter_and_nothing_gives_nothing():
    own, joint, kernel = arrays()
    mask = jnp.array([[True, False, True], [False, False, False]])
    moved = own.at[0, 1].set(50.0)
    np.testing.assert_allclose(
        seen(own, joint, kernel, mask)[0], seen(moved, joint, kernel, mask)[0], atol=1e-6
    )
    assert np.all(np.asarray(seen(own, joint, kernel, mask)[1]) == 0)
    subset = seen(own[:1, ::2], joint[:1], kernel, mask[:1, ::2])
    np.testing.assert_allclose(seen(own, joint, kernel, mask)[0], subset[0], atol=1e-6)


def test_turning_the_joint_positions_turns_the_answer():
    own, joint, kernel = arrays()
    mask = jnp.ones((2, 3), bool)
    order = np.array([2, 0, 1])
    turned = seen(own, joint[:, order], kernel, mask)
    np.testing.assert_allclose(turned, seen(own, joint, kernel, mask)[:, order], atol=1e-6)
    np.testing.assert_allclose(
        seen(own[:, order], joint, kernel, mask), seen(own, joint, kernel, mask), atol=1e-6
    )


def test_leading_axes_pass_through():
    (own, joint, kernel), mask = arrays(rows=6), jnp.asarray(RNG.random((6, 3)) < 0.6)
    several = [x.reshape(3, 2, *x.shape[1:]) for x in (own, joint, mask)]
    found = seen(*several[:2], kernel, several[2])
    np.testing.assert_allclose(found.reshape(6, 3, 4), seen(own, joint, kernel, mask), rtol=1e-5, atol=1e-6)


def test_gradients_also_where_nothing_is_valid():
    mask = jnp.array([[True, False, True], [False, False, False]])
    with jax.enable_x64(True):
        given = arrays(jnp.float64)
        check_grads(jax.jit(lambda *a: seen(*a, mask)), given, order=1, modes=["rev"])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_finite_at_zeros(dtype):
    own, joint, kernel = arrays(dtype)
    own, joint = own.at[0].set(0), joint.at[0].set(0)

    def total(*given):
        z = seen(*given, jnp.zeros((2, 3), bool).at[0].set(True))
        return z.astype(jnp.float32).sum(), z

    gradients, z = jax.grad(total, (0, 1, 2), has_aux=True)(own, joint, kernel)
    assert z.dtype == dtype
    for leaf in jax.tree.leaves((gradients, z)):
        assert np.all(np.isfinite(np.asarray(leaf, np.float32)))
