import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from emofuse_jax.ops.bilinear import factorized_bilinear_pooling
from emofuse_jax.ops.lmf import low_rank_fusion

RNG = np.random.default_rng(5)


def formula(vectors, factors, weights, bias):
    """The tensor fusion written out: the outer product of [x; 1] against a weight tensor of rank k."""
    extended = [np.append(x, 1.0) for x in vectors]
    outer = extended[0]
    for x in extended[1:]:
        outer = np.multiply.outer(outer, x)
    z = np.array(bias, np.float64)
    for o in range(len(bias)):
        for k, w in enumerate(weights):
            tensor = factors[0][k, :, o]
            for f in factors[1:]:
                tensor = np.multiply.outer(tensor, f[k, :, o])
            z[o] += w * (tensor * outer).sum()
    return z


def make_arrays(dtype=jnp.float32, widths=(4, 3), k=2, o=5, rows=2):
    vectors = tuple(jnp.asarray(RNG.normal(size=(rows, d)), dtype) for d in widths)
    factors = tuple(jnp.asarray(RNG.normal(size=(k, d + 1, o)), dtype) for d in widths)
    return vectors, factors, jnp.asarray(RNG.normal(size=k), dtype), jnp.asarray(RNG.normal(size=o), dtype)


@pytest.mark.parametrize("widths", [(4,), (4, 3), (4, 3, 2)])
def test_equals_the_tensor_fusion_written_out(widths):
    arguments = make_arrays(widths=widths)
    z = low_rank_fusion(*arguments)
    vectors, *rest = jax.tree.map(lambda a: np.asarray(a, np.float64), arguments)
    for row in range(2):
        np.testing.assert_allclose(z[row], formula([v[row] for v in vectors], *rest), rtol=1e-4, atol=1e-5)


def test_without_the_one_and_with_unit_weights_it_is_fbp_before_dropout_and_norm():
    (x, y), *_ = make_arrays()
    u, v = (jnp.asarray(RNG.normal(size=(d, 5 * 2)), jnp.float32) for d in (4, 3))
    expected = factorized_bilinear_pooling(x, y, u, v, factors=2, normalize=False)
    factors = tuple(m.reshape(-1, 5, 2).transpose(2, 0, 1) for m in (u, v))  # d o*k -> k d o
    z = low_rank_fusion((x, y), factors, jnp.ones(2), None, append_one=False)
    np.testing.assert_allclose(z, expected, rtol=1e-5, atol=1e-5)


def test_a_zero_vector_leaves_the_other_s_answer():
    (x, y), factors, weights, bias = make_arrays()
    z = low_rank_fusion((x, jnp.zeros_like(y)), factors, weights, bias)
    ones = factors[1][:, -1]  # k o
    rows = np.einsum("bd,kdo->bko", x, factors[0][:, :-1]) + factors[0][:, -1]
    np.testing.assert_allclose(z, np.einsum("bko,ko,k->bo", rows, ones, weights) + bias, rtol=1e-4, atol=1e-5)


def test_gradients():
    with jax.enable_x64(True):
        check_grads(jax.jit(low_rank_fusion), make_arrays(jnp.float64), order=1, modes=["rev"])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_finite_at_zeros(dtype):
    vectors, factors, weights, bias = make_arrays(dtype)
    vectors = tuple(jnp.zeros_like(v) for v in vectors)

    def total(*arguments):
        z = low_rank_fusion(*arguments)
        return z.astype(jnp.float32).sum(), z

    gradients, z = jax.grad(total, (0, 1, 2, 3), has_aux=True)(vectors, factors, weights, bias)
    assert z.dtype == dtype
    for leaf in jax.tree.leaves((gradients, z)):
        assert np.all(np.isfinite(np.asarray(leaf, np.float32)))


def test_rows_are_answered_apart():
    vectors, *rest = make_arrays(rows=3)
    order = np.array([2, 0, 1])
    permuted = low_rank_fusion(tuple(v[order] for v in vectors), *rest)
    np.testing.assert_allclose(permuted, low_rank_fusion(vectors, *rest)[order], atol=1e-6)


def test_leading_axes_pass_through_and_the_first_vector_gives_the_dtype():
    vectors, *rest = make_arrays(rows=6)
    z = low_rank_fusion(tuple(v.reshape(2, 3, -1) for v in vectors), *rest)
    np.testing.assert_allclose(z.reshape(6, -1), low_rank_fusion(vectors, *rest), rtol=1e-5)
    assert low_rank_fusion((vectors[0].astype(jnp.bfloat16), vectors[1]), *rest).dtype == jnp.bfloat16


def test_what_raises():
    vectors, factors, weights, bias = make_arrays()
    with pytest.raises(ValueError, match=r"factors: one has 5 rows \(axis 1\), expected 4"):
        low_rank_fusion(vectors, factors, weights, bias, append_one=False)
    with pytest.raises(ValueError, match="factors: 1 passed, expected one for each of the 2 vectors"):
        low_rank_fusion(vectors, factors[:1], weights, bias)
