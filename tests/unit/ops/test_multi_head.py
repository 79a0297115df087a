import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from emofuse_jax.ops.multi_head import multi_head_attention
from tests.golden.formulas import softmax

RNG = np.random.default_rng(4)


def formula(query, key, value, heads):
    """One set of tokens, head by head and row by row."""
    size = query.shape[1] // heads
    out = np.zeros((len(query), value.shape[1]))
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        for i, q in enumerate(query[:, part]):
            out[i, part] = softmax(key[:, part] @ q / np.sqrt(size)) @ value[:, part]
    return out


def make_inputs(batch=()):
    return [jnp.asarray(RNG.normal(size=(*batch, l, 6)), jnp.float32) for l in (3, 5, 5)]


@pytest.mark.parametrize("heads", [1, 3])
def test_equals_the_formula(heads):
    tokens = make_inputs()
    out, weights = multi_head_attention(*tokens, jnp.ones(5, bool), heads=heads)
    np.testing.assert_allclose(out, formula(*map(np.asarray, tokens), heads), atol=1e-5)
    np.testing.assert_allclose(weights.sum(-1), np.ones((heads, 3)), atol=1e-6)


def test_a_mask_equals_the_subset_and_permutations_pass_through():
    query, key, value = make_inputs((2,))
    mask = jnp.array([[True, False, True, True, False]] * 2)
    valid_indices = np.flatnonzero(mask[0])
    masked, _ = multi_head_attention(query, key, value, mask, heads=2)
    huge = jnp.where(mask[..., None], value, 1e6)
    for other in (
        (query, key[:, valid_indices], value[:, valid_indices]),
        (query, key[:, valid_indices[::-1]], value[:, valid_indices[::-1]]),
    ):
        subset, _ = multi_head_attention(*other, jnp.ones((2, 3), bool), heads=2)
        np.testing.assert_allclose(masked, subset, atol=1e-6)
    np.testing.assert_allclose(multi_head_attention(query, key, huge, mask, heads=2)[0], masked, atol=1e-6)


def test_gradients_and_tokens_that_see_nothing():
    tokens = make_inputs((2,))
    mask = jnp.array([[True, True, False, True, True], [False] * 5])

    def attend(*values):
        return multi_head_attention(*values, mask, heads=3)[0]

    assert np.all(np.asarray(attend(*tokens))[1] == 0)
    check_grads(jax.jit(attend), tokens, order=1, modes=["rev"], atol=2e-2, rtol=2e-2)
    gradients = jax.grad(lambda *values: attend(*values).sum(), (0, 1, 2))(*tokens)
    assert all(np.all(np.isfinite(g)) for g in gradients)


def test_bfloat16():
    tokens = [100 * x.astype(jnp.bfloat16) for x in make_inputs()]
    out, weights = multi_head_attention(*tokens, jnp.ones(5, bool), heads=2)
    assert (out.dtype, weights.dtype) == (jnp.bfloat16, jnp.float32)
    assert np.all(np.isfinite(np.asarray(out, np.float32)))


def test_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="4 heads do not divide a width of 6"):
        multi_head_attention(*make_inputs((2,)), jnp.ones((2, 5), bool), heads=4)
