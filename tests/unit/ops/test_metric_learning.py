import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from emofuse_jax.ops.metric_learning import (
    adaptive_margin_triplet,
    batch_hard_triplet,
    polarity_cross_entropy,
)
from tests.golden import formulas

RNG = np.random.default_rng(6)
LABEL = np.array([0, 0, 1, 1, 2, 0, 2, 1, -1, 0])
WEIGHT = np.array([1, 1, 1, 0.5, 1, 1, 1, 1, 1, 0], np.float32)
EMBEDDING = RNG.normal(size=(10, 4)).astype(np.float32)
MARGINS = np.array([[0, 0.1, 0.4], [0.1, 0, 0.3], [0.4, 0.3, 0]], np.float32)


def triplets(embedding, label, weight):
    """(weight of the anchor, D_ap, D_an, D_pn, classes of a and n), for every triplet of each anchor."""
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    rows = [i for i in range(len(label)) if weight[i] > 0 and label[i] >= 0]
    for a in rows:
        for p in rows:
            for n in rows:
                if p != a and label[p] == label[a] and label[n] != label[a]:
                    d = [np.linalg.norm(unit[i] - unit[j]) for i, j in ((a, p), (a, n), (p, n))]
                    yield a, *d, label[n]


def batch_hard_formula(embedding, label, weight, margins):
    """The largest term over all triplets of an anchor: mining is a maximum."""
    worst = {}
    for a, d_ap, d_an, _, y in triplets(embedding, label, weight):
        worst[a] = max(worst.get(a, -9), d_ap - d_an + margins[label[a], y])
    return sum(weight[a] * max(0, term) for a, term in worst.items()), sum(weight[a] for a in worst)


def adaptive_formula(embedding, label, weight, eps=1e-6):
    """Of the farthest positive and the nearest negative."""
    hardest = {}
    for a, *distances, _ in triplets(embedding, label, weight):
        if a not in hardest or distances[0] - distances[1] > hardest[a][0] - hardest[a][1]:
            hardest[a] = distances
    total = 0
    for a, (d_ap, d_an, d_pn) in hardest.items():
        m_sim = 1 + 2 / (np.exp(4 * d_ap) + eps)
        m_dis = 1 + 2 / (np.exp(-4 * d_an + 4) + eps)
        total += weight[a] * max(0, d_ap - (d_an + d_pn) / 2 + m_sim + m_dis)
    return total, sum(weight[a] for a in hardest)


LOSSES = {
    "batch_hard": (
        jax.jit(lambda *x: batch_hard_triplet(*x, jnp.asarray(MARGINS))),
        batch_hard_formula,
        (MARGINS,),
    ),
    "adaptive": (jax.jit(adaptive_margin_triplet), adaptive_formula, ()),
}


@pytest.mark.parametrize("name", LOSSES)
def test_triplets_equal_the_formula(name):
    ours, formula, more = LOSSES[name]
    for seed in range(3):
        embedding = np.random.default_rng(seed).normal(size=(10, 4)).astype(np.float32)
        actual = ours(jnp.asarray(embedding), jnp.asarray(LABEL), jnp.asarray(WEIGHT))
        np.testing.assert_allclose(actual, formula(embedding, LABEL, WEIGHT, *more), rtol=1e-4)


def test_adaptive_margins_have_an_eps():
    embedding = EMBEDDING[np.maximum(LABEL, 0)] + 0.1 * EMBEDDING  # near positives: the smallest powers
    actual = adaptive_margin_triplet(*map(jnp.asarray, (embedding, LABEL, WEIGHT)), eps=0.5)
    np.testing.assert_allclose(actual, adaptive_formula(embedding, LABEL, WEIGHT, eps=0.5), rtol=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_clips_that_all_but_agree_are_not_the_farthest(name):
    """Their squared distance, rounded, may come out below 0."""
    ours, formula, more = LOSSES[name]
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(16, 4))
    embedding = np.concatenate([rows, rows + 1e-5 * rng.normal(size=rows.shape)]).astype(np.float32)
    arrays = embedding, np.tile(np.arange(16) % 3, 2), np.ones(32, np.float32)
    np.testing.assert_allclose(ours(*map(jnp.asarray, arrays)), formula(*arrays, *more), rtol=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_of_triplets(name):
    ours = LOSSES[name][0]

    def total(embedding):
        return ours(embedding, jnp.asarray(LABEL), jnp.asarray(WEIGHT))[0]

    check_grads(
        jax.jit(total), (jnp.asarray(EMBEDDING),), order=1, modes=["rev"], atol=2e-2, rtol=2e-2, eps=1e-3
    )
    gradient = jax.jit(jax.grad(total))
    same = jnp.ones((10, 4))  # every distance is 0
    for hard in (same, jnp.zeros((10, 4)), same.at[5:].set(-1.0)):
        assert np.all(np.isfinite(gradient(hard)))
    assert np.array_equal(np.asarray(gradient(jnp.asarray(EMBEDDING)))[8:], np.zeros((2, 4)))


def test_margins_are_learned_from_the_pairs_that_are_mined():
    arrays = [jnp.asarray(x) for x in (EMBEDDING, LABEL, WEIGHT)]
    gradient = jax.jit(jax.grad(lambda m: batch_hard_triplet(*arrays, m)[0]))(
        jnp.asarray(MARGINS) + 3.0  # every hinge is open: each anchor pulls at one entry with its weight
    )
    np.testing.assert_allclose(gradient.sum(1), [3, 2.5, 2], atol=1e-6)
    assert np.all(np.diagonal(gradient) == 0)


def test_the_hinge_closes_where_classes_lie_apart():
    embedding = jnp.eye(3)[jnp.maximum(LABEL, 0)]
    total, weight = batch_hard_triplet(
        embedding, jnp.asarray(LABEL), jnp.asarray(WEIGHT), jnp.asarray(MARGINS)
    )
    assert (float(total), float(weight)) == (0.0, 7.5)


@pytest.mark.parametrize("name", LOSSES)
def test_anchors_without_a_pair_do_not_count(name):
    ours = LOSSES[name][0]
    ones = jnp.ones(4)
    for label in ([0, 0, 0, 0], [0, 1, 2, -1], [-1, -1, -1, -1]):
        total, weight = ours(jnp.asarray(EMBEDDING[:4]), jnp.array(label), ones)
        assert (float(total), float(weight)) == (0.0, 0.0)
    counted = jnp.array([1.0, 1.0, 0.0, 0.0])  # both of the other class do not count
    assert float(ours(jnp.asarray(EMBEDDING[:4]), jnp.array([0, 0, 1, 1]), counted)[1]) == 0.0
    assert float(ours(jnp.asarray(EMBEDDING[:4]), jnp.array([0, 0, 1, 2]), ones)[1]) == 2.0


@pytest.mark.parametrize("name", LOSSES)
def test_neither_order_nor_padding_nor_size_matters(name):
    ours = LOSSES[name][0]
    order = RNG.permutation(10)
    expected = ours(*map(jnp.asarray, (EMBEDDING, LABEL, WEIGHT)))
    permuted = ours(*map(jnp.asarray, (EMBEDDING[order], LABEL[order], WEIGHT[order])))
    padded = ours(
        jnp.concatenate([EMBEDDING, 1e3 * EMBEDDING]),
        jnp.concatenate([LABEL, LABEL]),
        jnp.concatenate([WEIGHT, np.zeros(10, np.float32)]),
    )
    scaled = ours(*map(jnp.asarray, (50 * EMBEDDING, LABEL, WEIGHT)))
    for other, tolerance in ((permuted, 1e-6), (padded, 1e-6), (scaled, 1e-5)):
        np.testing.assert_allclose(other, expected, rtol=tolerance)


@pytest.mark.parametrize("name", LOSSES)
def test_one_device_and_eight_mine_the_same_batch(name):
    rows = [np.concatenate([x, x[:6]]) for x in (EMBEDDING + RNG.normal(size=(10, 4)), LABEL, WEIGHT)]
    rows[0] = rows[0].astype(np.float32)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put(rows, NamedSharding(mesh, PartitionSpec("data")))
    gradient = jax.jit(jax.value_and_grad(lambda *x: LOSSES[name][0](*x)[0]))
    for one, eight in zip(gradient(*map(jnp.asarray, rows)), gradient(*sharded), strict=True):
        np.testing.assert_allclose(one, eight, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_bfloat16(name):
    embedding = jnp.asarray(1e3 * EMBEDDING, jnp.bfloat16)
    total, _ = LOSSES[name][0](embedding, jnp.asarray(LABEL), jnp.asarray(WEIGHT))
    assert total.dtype == jnp.float32
    assert np.isfinite(total)


def test_polarity_cross_entropy():
    logits = RNG.normal(size=(10, 3)).astype(np.float32)
    polarity = np.array([1, -1, -1])
    expected = weights = 0.0
    for z, y, w in zip(logits, LABEL, WEIGHT, strict=True):
        if y >= 0:
            penalty = 1.5 if polarity[z.argmax()] != polarity[y] else 1.0
            expected, weights = expected + w * penalty * formulas.cross_entropy(z, y), weights + w
    arrays = [jnp.asarray(x) for x in (logits, LABEL, WEIGHT, polarity)]
    np.testing.assert_allclose(polarity_cross_entropy(*arrays), (expected, weights), rtol=1e-5)
    one_side = polarity_cross_entropy(*arrays[:3], jnp.zeros(3))
    assert one_side[0] < polarity_cross_entropy(*arrays)[0]
    np.testing.assert_allclose(polarity_cross_entropy(*arrays, penalty=0.0), one_side, rtol=1e-6)
    check_grads(
        jax.jit(lambda z: polarity_cross_entropy(z, *arrays[1:])[0]),
        (arrays[0],),
        order=1,
        modes=["rev"],
        rtol=2e-2,
    )


def test_polarity_cross_entropy_where_nothing_counts():
    logits = jnp.full((2, 3), jnp.nan)

    def total(logits):
        return polarity_cross_entropy(logits, jnp.array([-1, 0]), jnp.array([1.0, 0.0]), jnp.arange(3))[0]

    value, gradient = jax.jit(jax.value_and_grad(total))(logits)
    assert value == 0
    assert np.all(np.asarray(gradient) == 0)
    half = polarity_cross_entropy(
        jnp.array([[80.0, -80.0, 0.0]], jnp.bfloat16), jnp.array([1]), jnp.ones(1), jnp.arange(3)
    )
    np.testing.assert_allclose(half[0], 1.5 * 160, rtol=1e-2)
