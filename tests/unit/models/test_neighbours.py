import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from emofuse_jax.models.fusions.f_score import FScore, compute_f_scores
from emofuse_jax.models.fusions.mfh import MFH
from emofuse_jax.models.interfaces import PooledVectors
from emofuse_jax.models.layers.missing_modality import MissingModalityVectors
from tests.support.fusion_inputs import (
    CLASSES,
    WIDTHS,
    build_fusion,
    random_inputs,
    small_fusion,
    without_dropout,
)

RNG = np.random.default_rng(7)


# Stand-ins for an absent modality


def test_a_stand_in_is_seen_only_where_the_modality_is_absent():
    module = MissingModalityVectors(3, 2)
    module.audio[...] = jnp.array([5.0, 6.0, 7.0])
    audio, video = jnp.ones((2, 1, 3)) * 0.5, jnp.ones((2, 1, 2))
    ok_a, ok_v = jnp.array([[True], [False]]), jnp.array([[False], [True]])
    a, v = module(PooledVectors(audio, ok_a, video, ok_v))
    np.testing.assert_array_equal(a, [[0.5] * 3, [5, 6, 7]])
    np.testing.assert_array_equal(v, np.ones((2, 2)))

    def total(module):
        return sum(x.sum() for x in module(PooledVectors(audio, ok_a, video, ok_v)))

    gradient = nnx.grad(total)(module)
    np.testing.assert_array_equal(gradient.audio[...], 1)
    np.testing.assert_array_equal(gradient.video[...], 1)


def separable_streams(n, seed):
    """Each stream alone tells the class; a third of the clips lacks the sound, a third the faces."""
    rng = np.random.default_rng(seed)
    label, missing_modality = rng.integers(0, CLASSES, n), rng.integers(0, 3, n)
    fields = []
    for i, d in enumerate(WIDTHS.values()):
        ok, centres = missing_modality != i + 1, np.random.default_rng(i).normal(size=(CLASSES, d))
        vectors = (centres[label] + 0.3 * rng.normal(size=(n, d))) * ok[:, None]
        fields += [jnp.asarray(vectors, jnp.float32)[:, None], jnp.asarray(ok)[:, None]]
    return PooledVectors(*fields), jnp.asarray(label)


@pytest.mark.parametrize("name", ["g_fbp", "mfb", "mfh", "lmf"])
def test_with_modality_dropout_one_stream_alone_still_decides(name):
    params, state, apply = small_fusion(name, **without_dropout(name))
    streams, label = separable_streams(256, 0)
    tx = optax.adam(1e-2)

    @jax.jit
    def step(params, opt_state):
        def loss(params):
            logits = apply(params, state, streams).logits
            return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()

        updates, opt_state = tx.update(jax.grad(loss)(params), opt_state)
        return optax.apply_updates(params, updates), opt_state

    opt_state = tx.init(params)
    for _ in range(100):
        params, opt_state = step(params, opt_state)
    streams, label = separable_streams(300, 1)
    is_correct = apply(params, state, streams).logits.argmax(-1) == label
    only_audio = streams.audio_mask[:, 0] & ~streams.video_mask[:, 0]
    only_video = streams.video_mask[:, 0] & ~streams.audio_mask[:, 0]
    for rows in (only_audio, only_video):
        assert is_correct[rows].mean() > 0.8  # chance is 0.2


def test_mfh_checks_its_blocks():
    with pytest.raises(ValueError, match=r"fusion.blocks: 0, expected at least 1"):
        build_fusion(MFH, "mfh", blocks=0)


# Decision fusion by F scores


def f_score_fusion(weights):
    fusion = build_fusion(FScore, "f_score")
    fusion.class_weights[...] = jnp.asarray(weights, jnp.float32)
    return fusion


def test_f_scores_equal_the_formula():
    probabilities = RNG.dirichlet(np.ones(4), 50)
    labels = RNG.integers(0, 3, 50)  # nobody is of class 3
    scores = compute_f_scores(probabilities, labels)
    for c in range(4):
        is_predicted = probabilities.argmax(1) == c
        hits = (is_predicted & (labels == c)).sum()
        precision = hits / max(is_predicted.sum(), 1)
        recall = hits / max((labels == c).sum(), 1)
        expected = 2 * precision * recall / (precision + recall) if hits else 0.0
        assert scores[c] == pytest.approx(expected)
    assert np.array_equal(compute_f_scores(np.zeros((0, 4)), np.zeros(0, int)), np.zeros(4))


def test_posteriors_are_weighed_by_the_f_of_the_streams_that_are_there():
    weights = RNG.uniform(0.1, 1, (2, CLASSES))
    fusion, streams = f_score_fusion(weights), random_inputs("f_score")  # 1 lacks sound, 2 faces
    fused = fusion(streams, train=False, key=None)
    p = np.stack(
        [
            jax.nn.softmax(fusion.audio_head(streams.audio[:, 0], train=False, key=None)),
            jax.nn.softmax(fusion.video_head(streams.video[:, 0], train=False, key=None)),
        ],
        axis=1,
    )
    ok = np.stack([streams.audio_mask[:, 0], streams.video_mask[:, 0]], axis=1)
    mass = p * weights * ok[..., None]
    expected = mass.sum(1) / mass.sum((1, 2), keepdims=True)[:, 0]
    np.testing.assert_allclose(jax.nn.softmax(fused.logits), expected, atol=1e-5)
    shares = mass.sum(2) / mass.sum((1, 2))[:, None]
    np.testing.assert_allclose(fused.aux["modality_weights"], shares, atol=1e-5)
    np.testing.assert_allclose(fused.aux["class_weights"][0], weights, atol=1e-6)


def test_a_class_that_nobody_knows_keeps_a_finite_answer():
    fusion, streams = f_score_fusion(np.zeros((2, CLASSES))), random_inputs("f_score")
    late = jax.nn.softmax(f_score_fusion(np.ones((2, CLASSES)))(streams, train=False, key=None).logits)
    np.testing.assert_allclose(jax.nn.softmax(fusion(streams, train=False, key=None).logits), late, atol=1e-5)
