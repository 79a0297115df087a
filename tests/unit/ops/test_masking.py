import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emofuse_jax.ops.masking import equal_weights, masked_mean, masked_softmax, sigmoid_weights, weighted_sum
from tests.golden import formulas

RNG = np.random.default_rng(0)
MASK = jnp.array([True, False, True, True, False])
VALID_INDICES = np.flatnonzero(MASK)


def test_mask_equals_subset():
    values = RNG.normal(size=(5, 3)).astype(np.float32)
    scores = RNG.normal(size=5).astype(np.float32)
    np.testing.assert_allclose(
        masked_mean(jnp.asarray(values), MASK), values[VALID_INDICES].mean(0), atol=1e-6
    )
    np.testing.assert_allclose(masked_mean(jnp.asarray(values), jnp.arange(5) == 3), values[3], atol=1e-6)
    weights = masked_softmax(jnp.asarray(scores), MASK)
    np.testing.assert_allclose(weights[VALID_INDICES], formulas.softmax(scores[VALID_INDICES]), atol=1e-6)
    assert np.all(weights[np.array([1, 4])] == 0)
    rows, masks = RNG.normal(size=(2, 2, 5)).astype(np.float32), jnp.stack([MASK, ~MASK])
    row_weights = masked_softmax(jnp.asarray(rows), jnp.broadcast_to(masks, rows.shape))
    for i in np.ndindex(2, 2):
        valid_indices = np.flatnonzero(masks[i[1]])
        np.testing.assert_allclose(
            row_weights[i][valid_indices], formulas.softmax(rows[i][valid_indices]), atol=1e-6
        )
    sigmoids = formulas.sigmoid(scores[VALID_INDICES])
    weights = sigmoid_weights(jnp.asarray(scores), mask=MASK)
    np.testing.assert_allclose(weights[VALID_INDICES], sigmoids / sigmoids.sum(), atol=1e-6)


def test_values_are_pooled_by_their_weights_and_modalities_that_are_present_weigh_alike():
    values, weights = RNG.normal(size=(2, 5, 3)).astype(np.float32), RNG.normal(size=(4, 2, 5))
    pooled = weighted_sum(jnp.asarray(values), jnp.asarray(weights, jnp.float32))
    np.testing.assert_allclose(pooled, np.einsum("abl,bld->abd", weights, values), rtol=1e-4, atol=1e-6)
    modality_weights = equal_weights(
        jnp.array([[True, False, True], [False, False, False], [False, True, False]])
    )
    np.testing.assert_allclose(modality_weights, [[1 / 2, 0, 1 / 2], [1 / 3, 1 / 3, 1 / 3], [0, 1, 0]])


def test_large_scores_do_not_overflow_or_vanish():
    scores = jnp.array([1e4, -1e4, 1e4])
    np.testing.assert_allclose(masked_softmax(scores, jnp.ones(3, bool)), [0.5, 0, 0.5])
    np.testing.assert_allclose(sigmoid_weights(jnp.full(2, -1e4), mask=jnp.ones(2, bool)), [0.5, 0.5])


def test_a_masked_score_never_matters():
    scores = jnp.array([0.1, 5.0, 0.3, -0.2, 7.0])
    other = jnp.where(MASK, scores, 1e9)
    assert np.array_equal(masked_softmax(scores, MASK), masked_softmax(other, MASK))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("mask", [jnp.zeros((2, 4), bool), jnp.zeros((2, 4), bool).at[:, 1].set(True)])
def test_finite_when_all_or_all_but_one_is_masked(dtype, mask):
    values, scores = jnp.ones((2, 4, 3), dtype), jnp.zeros((2, 4), dtype)

    def both(values, scores):
        weights = masked_softmax(scores, mask) + sigmoid_weights(scores, mask=mask)
        return masked_mean(values, mask).astype(jnp.float32).sum() + (weights**2).sum()

    value, gradients = jax.value_and_grad(both, (0, 1))(values, scores)
    assert np.isfinite(value)
    for gradient in gradients:
        assert np.all(np.isfinite(np.asarray(gradient, np.float32)))
    if not mask.any():
        assert value == 0
