import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from emofuse_jax.ops.joint_attention import joint_correlation, reweight

RNG = np.random.default_rng(6)


def make_arrays(dtype=jnp.float32, rows=2, n=3, d=4, e=6):
    shapes = [(rows, n, d), (rows, n, e), (d, e)]
    return [jnp.asarray(RNG.normal(size=shape), dtype) for shape in shapes]


def attend(features, joint, kernel, mask):
    return reweight(joint_correlation(features, joint, kernel), features, mask)


def test_equals_the_formula():
    features, joint, kernel = make_arrays()
    mask = jnp.array([[True, False, True], [False, True, False]])
    c, r = joint_correlation(features, joint, kernel), attend(features, joint, kernel, mask)
    features, joint, kernel = (np.asarray(a, np.float64) for a in (features, joint, kernel))
    for row in range(2):
        m, j = features[row].T, joint[row].T  # columns are positions, as in the paper
        correlation = np.tanh(m.T @ kernel @ j / np.sqrt(len(j)))
        np.testing.assert_allclose(c[row], correlation, atol=1e-5)
        valid = np.asarray(mask[row])
        for position in range(3):
            expected = np.mean([correlation[i, position] * m[:, i] for i in range(3) if valid[i]], axis=0)
            np.testing.assert_allclose(r[row, position], expected, atol=1e-5)


def test_masked_positions_do_not_matter_and_nothing_gives_nothing():
    features, joint, kernel = make_arrays()
    mask = jnp.array([[True, False, True], [False, False, False]])
    moved = features.at[0, 1].set(50.0)
    np.testing.assert_allclose(
        attend(features, joint, kernel, mask)[0], attend(moved, joint, kernel, mask)[0], atol=1e-6
    )
    assert np.all(np.asarray(attend(features, joint, kernel, mask)[1]) == 0)
    subset = attend(features[:1, ::2], joint[:1], kernel, mask[:1, ::2])
    np.testing.assert_allclose(attend(features, joint, kernel, mask)[0], subset[0], atol=1e-6)


def test_turning_the_joint_positions_turns_the_answer():
    features, joint, kernel = make_arrays()
    mask = jnp.ones((2, 3), bool)
    order = np.array([2, 0, 1])
    turned = attend(features, joint[:, order], kernel, mask)
    np.testing.assert_allclose(turned, attend(features, joint, kernel, mask)[:, order], atol=1e-6)
    np.testing.assert_allclose(
        attend(features[:, order], joint, kernel, mask), attend(features, joint, kernel, mask), atol=1e-6
    )


def test_leading_axes_pass_through():
    (features, joint, kernel), mask = make_arrays(rows=6), jnp.asarray(RNG.random((6, 3)) < 0.6)
    several = [x.reshape(3, 2, *x.shape[1:]) for x in (features, joint, mask)]
    output = attend(*several[:2], kernel, several[2])
    np.testing.assert_allclose(
        output.reshape(6, 3, 4), attend(features, joint, kernel, mask), rtol=1e-5, atol=1e-6
    )


def test_gradients_also_where_nothing_is_valid():
    mask = jnp.array([[True, False, True], [False, False, False]])
    with jax.enable_x64(True):
        arguments = make_arrays(jnp.float64)
        check_grads(jax.jit(lambda *a: attend(*a, mask)), arguments, order=1, modes=["rev"])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_finite_at_zeros(dtype):
    features, joint, kernel = make_arrays(dtype)
    features, joint = features.at[0].set(0), joint.at[0].set(0)

    def total(*arguments):
        z = attend(*arguments, jnp.zeros((2, 3), bool).at[0].set(True))
        return z.astype(jnp.float32).sum(), z

    gradients, z = jax.grad(total, (0, 1, 2), has_aux=True)(features, joint, kernel)
    assert z.dtype == dtype
    for leaf in jax.tree.leaves((gradients, z)):
        assert np.all(np.isfinite(np.asarray(leaf, np.float32)))
