import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from emofuse_jax.ops.attention import (
    attention_pool,
    relation_frame_attention,
    self_frame_attention,
    statistics_pool,
    transformer_frame_attention,
)
from tests.golden import formulas, tables

RNG = np.random.default_rng(1)
FRAMES = RNG.normal(size=(5, 3))
Q0, Q1 = RNG.normal(size=3), RNG.normal(size=6)
KINDS = {
    "additive": (
        lambda f, m: attention_pool(f, f @ Q0.astype(f.dtype), m),
        lambda f: formulas.softmax(0.3 * f @ Q0) @ f,
    ),
    "statistics": (
        lambda f, m: statistics_pool(f, f @ Q0.astype(f.dtype), m, temperature=0.5),
        lambda f: formulas.weighted_statistics(f, formulas.softmax(0.5 * f @ Q0), 1e-5),
    ),
    "self": (
        lambda f, m: self_frame_attention(f, jnp.asarray(Q0, f.dtype), m),
        lambda f: formulas.self_attention(f, Q0),
    ),
    "relation": (
        lambda f, m: relation_frame_attention(f, jnp.asarray(Q0, f.dtype), jnp.asarray(Q1, f.dtype), m),
        lambda f: formulas.relation_attention(f, Q0, Q1),
    ),
    "transformer": (
        lambda f, m: transformer_frame_attention(f, f[..., :2], f[..., 1:], m),
        lambda f: formulas.transformer_attention(f, f[:, :2], f[:, 1:]),
    ),
}
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.parametrize("temperature", tables.ATTENTION)
def test_lambda_table(temperature):
    scores = jnp.arange(4.0)
    pooled, weights = attention_pool(jnp.eye(4), scores, jnp.ones(4, bool), temperature=temperature)
    np.testing.assert_allclose(weights, tables.ATTENTION[temperature], atol=5e-5)
    np.testing.assert_allclose(pooled, weights)


@kinds
def test_equals_the_formula(kind):
    ours, formula = KINDS[kind]
    pooled, weights = ours(jnp.asarray(FRAMES, jnp.float32), jnp.ones(5, bool))
    np.testing.assert_allclose(pooled, formula(FRAMES), atol=1e-5)
    assert weights.sum() == pytest.approx(1, abs=1e-6)


@kinds
def test_mask_equals_subset_and_order_does_not_matter(kind):
    ours, formula = KINDS[kind]
    mask = np.array([True, True, False, True, False])
    pooled, weights = ours(jnp.asarray(FRAMES, jnp.float32), jnp.asarray(mask))
    np.testing.assert_allclose(pooled, formula(FRAMES[mask]), atol=1e-5)
    assert np.all(np.asarray(weights)[~mask] == 0)
    order = RNG.permutation(5)
    permuted, _ = ours(jnp.asarray(FRAMES[order], jnp.float32), jnp.asarray(mask[order]))
    np.testing.assert_allclose(permuted, pooled, atol=1e-6)


@kinds
def test_several_masks_at_once(kind):
    ours, _ = KINDS[kind]
    frames = jnp.asarray(np.stack([FRAMES, FRAMES[::-1]]), jnp.float32)  # b l d
    masks = jnp.asarray(RNG.random((2, 3, 5)) < 0.6)  # b n l
    pooled, weights = ours(frames[:, None], masks)
    assert weights.shape == (2, 3, 5)
    for b in range(2):
        for n in range(3):
            np.testing.assert_allclose(pooled[b, n], ours(frames[b], masks[b, n])[0], atol=1e-6)


@kinds
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("valid", [0, 1])
def test_finite_with_no_frame_or_one(kind, dtype, valid):
    ours, _ = KINDS[kind]
    mask = jnp.arange(5) < valid
    frames = jnp.asarray(FRAMES, dtype)
    pooled, weights = ours(frames, mask)
    gradient = jax.grad(lambda f: ours(f, mask)[0].astype(jnp.float32).sum())(frames)
    assert pooled.dtype == dtype
    assert weights.dtype == jnp.float32
    assert np.all(np.isfinite(np.asarray(gradient, np.float32)))
    assert weights.sum() == valid
    expected = np.asarray(frames[0] * valid, np.float32)
    np.testing.assert_allclose(np.asarray(pooled, np.float32)[:3], expected)


@kinds
def test_gradients(kind):
    ours, _ = KINDS[kind]
    with jax.enable_x64(True):
        mask = jnp.array([True, True, False, True, True])
        check_grads(jax.jit(lambda f: ours(f, mask)[0]), (jnp.asarray(FRAMES),), order=1, modes=["rev"])


def test_statistics_of_nothing_are_zero_and_their_temperature_is_one():
    frames, nothing, some = jnp.asarray(FRAMES), jnp.zeros(5, bool), jnp.arange(5) < 4
    scores = frames @ jnp.asarray(Q0)
    np.testing.assert_array_equal(statistics_pool(frames, scores, nothing)[0], np.zeros(6))
    expected = formulas.weighted_statistics(FRAMES[:4], formulas.softmax(FRAMES[:4] @ Q0), 1e-5)
    np.testing.assert_allclose(statistics_pool(frames, scores, some)[0], expected, rtol=1e-4, atol=1e-6)
