import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emofuse_jax.scoring import metrics

RNG = np.random.default_rng(7)
LABEL = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, -1], np.int32)
PRED = np.array([0, 1, 0, 1, 2, 2, 2, 0, 2, 1], np.int32)
# by hand: recalls 2/3, 1/2, 3/4; precisions 2/3, 1/2, 3/4; so F1 is the same
RECALL = np.array([2 / 3, 1 / 2, 3 / 4])


def matrix_of(pred, label, classes=3):
    return metrics.confusion_matrix(jnp.asarray(pred), jnp.asarray(label), jnp.ones(len(label)), classes)


def test_confusion_of_indices_and_of_probabilities():
    expected = [[2, 1, 0], [0, 1, 1], [1, 0, 3]]
    assert np.array_equal(matrix_of(PRED, LABEL), expected)
    probabilities = np.eye(3, dtype=np.float32)[PRED] * 0.6 + 0.1
    assert np.array_equal(matrix_of(probabilities, LABEL), expected)


def test_confusions_add_up_and_weights_count():
    weight = jnp.asarray(RNG.random(10), jnp.float32)
    whole = metrics.confusion_matrix(jnp.asarray(PRED), jnp.asarray(LABEL), weight, 3)
    halves = [
        metrics.confusion_matrix(jnp.asarray(PRED[i]), jnp.asarray(LABEL[i]), weight[i], 3)
        for i in (slice(5), slice(5, 10))
    ]
    np.testing.assert_allclose(sum(halves), whole, rtol=1e-6)
    assert float(whole.sum()) == pytest.approx(float(weight[:9].sum()), rel=1e-6)


def test_confusion_is_jittable():
    jitted = jax.jit(metrics.confusion_matrix, static_argnums=3)
    assert np.array_equal(
        jitted(jnp.asarray(PRED), jnp.asarray(LABEL), jnp.ones(10), 3), matrix_of(PRED, LABEL)
    )


def test_scores_by_hand():
    scores = metrics.compute_scores(matrix_of(PRED, LABEL))
    assert scores["wa"] == pytest.approx(6 / 9)
    assert scores["ua"] == pytest.approx(RECALL.mean())
    assert scores["wf1"] == pytest.approx((3 * 2 / 3 + 2 * 1 / 2 + 4 * 3 / 4) / 9)
    assert scores["mf1"] == pytest.approx(RECALL.mean())
    np.testing.assert_allclose(scores["recall"], RECALL)


def test_a_class_without_clips_is_left_out():
    scores = metrics.compute_scores(np.array([[3.0, 0, 1], [0, 0, 0], [1, 0, 1]]))
    assert scores["recall"] == [0.75, None, 0.5]
    assert scores["ua"] == pytest.approx(0.625)
    assert scores["mf1"] == pytest.approx((0.75 + 0.5) / 2)
    answered = metrics.compute_scores(np.array([[3.0, 1], [0, 0]]))
    assert answered["ua"] == 0.75
    assert answered["mf1"] == pytest.approx((6 / 7 + 0) / 2)
    with pytest.raises(ValueError, match="expected at least one labelled clip"):
        metrics.compute_scores(np.zeros((3, 3)))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_scores_equal_scikit_learn(pairs):
    sklearn = pytest.importorskip("sklearn.metrics")
    label, pred = np.array(pairs).T
    matrix = np.zeros((4, 4))
    np.add.at(matrix, (label, pred), 1)
    scores = metrics.compute_scores(matrix)
    assert scores["wa"] == pytest.approx(sklearn.accuracy_score(label, pred))
    assert scores["ua"] == pytest.approx(
        sklearn.recall_score(label, pred, labels=np.unique(label), average="macro")
    )
    for name, average in (("wf1", "weighted"), ("mf1", "macro")):
        assert scores[name] == pytest.approx(sklearn.f1_score(label, pred, average=average, zero_division=0))


def speakers(n=12, clips=40, spread=0.3):
    """Answers whose accuracy differs between speakers."""
    speaker = np.repeat(np.arange(n), clips)
    label = RNG.integers(0, 3, n * clips)
    skill = np.clip(0.6 + spread * RNG.normal(size=n), 0, 1)[speaker]
    pred = np.where(RNG.random(n * clips) < skill, label, (label + 1) % 3)
    return pred, label, speaker


def test_intervals_hold_the_score_and_are_wider_than_by_clip():
    pred, label, speaker = speakers()
    by_speaker = metrics.speaker_intervals(pred, label, speaker, 3, seed=0)
    by_clip = metrics.speaker_intervals(pred, label, np.arange(len(label)), 3, seed=0, resamples=500)
    scores = metrics.compute_scores(matrix_of(pred, label))
    for name in metrics.METRIC_NAMES:
        low, high = by_speaker[name]
        assert 0 <= low < scores[name] < high <= 1
        assert high - low > 1.5 * (by_clip[name][1] - by_clip[name][0])
    assert by_speaker == metrics.speaker_intervals(pred, label, speaker, 3, seed=0)
    assert by_speaker != metrics.speaker_intervals(pred, label, speaker, 3, seed=1)


def test_intervals_equal_a_plain_bootstrap():
    pred, label, speaker = speakers()
    ours = metrics.speaker_intervals(pred, label, speaker, 3, seed=0, resamples=4000)["wa"]
    correct = np.array([(pred == label)[speaker == i].mean() for i in range(12)])  # as many clips for each
    means = correct[RNG.integers(0, 12, (4000, 12))].mean(1)
    np.testing.assert_allclose(ours, np.percentile(means, [2.5, 97.5]), atol=0.012)


def test_intervals_at_the_edges():
    pred, label, speaker = speakers()
    perfect = metrics.speaker_intervals(label, label, speaker, 3, seed=0, resamples=100)
    assert perfect == dict.fromkeys(metrics.METRIC_NAMES, (1.0, 1.0))
    alone = metrics.speaker_intervals(pred, label, np.zeros_like(speaker), 3, seed=0)
    assert alone == dict.fromkeys(metrics.METRIC_NAMES, (0.0, 1.0))
    hidden = np.where(speaker == 3, -1, label)
    shown = speaker != 3
    assert metrics.speaker_intervals(pred, hidden, speaker, 3, seed=0) == metrics.speaker_intervals(
        pred[shown], label[shown], speaker[shown], 3, seed=0
    )
    with pytest.raises(ValueError, match="no labelled clip"):
        metrics.speaker_intervals(pred, np.full_like(label, -1), speaker, 3, seed=0)


def test_intervals_cover_what_they_should():
    """20 speakers of different ability: of 200 intervals of 95 % some 186 hold the expected UA (percentile
    intervals of few speakers are a little narrow); as many as the binomial of .93 gives in all but few tests.
    """
    generator, held = np.random.default_rng(0), 0
    speaker, label = np.repeat(np.arange(20), 24), np.tile(np.arange(3), 160)
    for _ in range(200):
        ability = generator.beta(4, 3, 20)  # 4/7 expected
        right = generator.random(480) < ability[speaker]
        guess = np.where(right, label, (label + generator.integers(1, 3, 480)) % 3)
        low, high = metrics.speaker_intervals(guess, label, speaker, 3, resamples=400, seed=1)["ua"]
        held += low <= 4 / 7 <= high
    assert 175 <= held <= 197
