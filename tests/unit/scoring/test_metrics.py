import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from emofuse_jax.scoring import metrics

RNG = np.random.default_rng(7)
LABEL = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, -1], np.int32)
PRED = np.array([0, 1, 0, 1, 2, 2, 2, 0, 2, 1], np.int32)
# by hand: recalls 2/3, 1/2, 3/4; precisions 2/3, 1/2, 3/4; so F1 is the same
RECALL = np.array([2 / 3, 1 / 2, 3 / 4])


def make_confusion(pred, label, classes=3):
    return metrics.confusion_matrix(jnp.asarray(pred), jnp.asarray(label), jnp.ones(len(label)), classes)


def test_confusion_of_indices_and_of_probabilities():
    expected = [[2, 1, 0], [0, 1, 1], [1, 0, 3]]
    assert np.array_equal(make_confusion(PRED, LABEL), expected)
    probabilities = np.eye(3, dtype=np.float32)[PRED] * 0.6 + 0.1
    assert np.array_equal(make_confusion(probabilities, LABEL), expected)


def test_confusions_add_up_and_weights_count():
    weight = jnp.asarray(RNG.random(10), jnp.float32)
    full_matrix = metrics.confusion_matrix(jnp.asarray(PRED), jnp.asarray(LABEL), weight, 3)
    halves = [
        metrics.confusion_matrix(jnp.asarray(PRED[i]), jnp.asarray(LABEL[i]), weight[i], 3)
        for i in (slice(5), slice(5, 10))
    ]
    np.testing.assert_allclose(sum(halves), full_matrix, rtol=1e-6)
    assert float(full_matrix.sum()) == pytest.approx(float(weight[:9].sum()), rel=1e-6)


def test_confusion_is_jittable():
    jitted = jax.jit(metrics.confusion_matrix, static_argnums=3)
    assert np.array_equal(
        jitted(jnp.asarray(PRED), jnp.asarray(LABEL), jnp.ones(10), 3), make_confusion(PRED, LABEL)
    )


def test_scores_by_hand():
    scores = metrics.compute_scores(make_confusion(PRED, LABEL))
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
    two_class_scores = metrics.compute_scores(np.array([[3.0, 1], [0, 0]]))
    assert two_class_scores["ua"] == 0.75
    assert two_class_scores["mf1"] == pytest.approx((6 / 7 + 0) / 2)
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


def make_speakers(n=12, clips=40, spread=0.3):
    """Answers whose accuracy differs between speakers."""
    speaker = np.repeat(np.arange(n), clips)
    label = RNG.integers(0, 3, n * clips)
    skill = np.clip(0.6 + spread * RNG.normal(size=n), 0, 1)[speaker]
    pred = np.where(RNG.random(n * clips) < skill, label, (label + 1) % 3)
    return pred, label, speaker


def test_intervals_hold_the_score_and_are_wider_than_by_clip():
    pred, label, speaker = make_speakers()
    by_speaker = metrics.speaker_intervals(pred, label, speaker, 3, seed=0)
    by_clip = metrics.speaker_intervals(pred, label, np.arange(len(label)), 3, seed=0, resamples=500)
    scores = metrics.compute_scores(make_confusion(pred, label))
    for name in metrics.METRIC_NAMES:
        low, high = by_speaker[name]
        assert 0 <= low < scores[name] < high <= 1
        assert high - low > 1.5 * (by_clip[name][1] - by_clip[name][0])
    assert by_speaker == metrics.speaker_intervals(pred, label, speaker, 3, seed=0)
    assert by_speaker != metrics.speaker_intervals(pred, label, speaker, 3, seed=1)


def test_intervals_equal_a_plain_bootstrap():
    pred, label, speaker = make_speakers()
    ours = metrics.speaker_intervals(pred, label, speaker, 3, seed=0, resamples=4000)["wa"]
    correct = np.array([(pred == label)[speaker == i].mean() for i in range(12)])  # as many clips for each
    means = correct[RNG.integers(0, 12, (4000, 12))].mean(1)
    np.testing.assert_allclose(ours, np.percentile(means, [2.5, 97.5]), atol=0.012)


def test_intervals_at_the_edges():
    pred, label, speaker = make_speakers()
    perfect = metrics.speaker_intervals(label, label, speaker, 3, seed=0, resamples=100)
    assert perfect == dict.fromkeys(metrics.METRIC_NAMES, (1.0, 1.0))
    one_speaker = metrics.speaker_intervals(pred, label, np.zeros_like(speaker), 3, seed=0)
    assert one_speaker == dict.fromkeys(metrics.METRIC_NAMES, (0.0, 1.0))
    partly_hidden_labels = np.where(speaker == 3, -1, label)
    is_labelled = speaker != 3
    assert metrics.speaker_intervals(
        pred, partly_hidden_labels, speaker, 3, seed=0
    ) == metrics.speaker_intervals(pred[is_labelled], label[is_labelled], speaker[is_labelled], 3, seed=0)
    with pytest.raises(ValueError, match="no clip has a label"):
        metrics.speaker_intervals(pred, np.full_like(label, -1), speaker, 3, seed=0)


def test_intervals_cover_what_they_should():
    """20 speakers of different ability: of 200 intervals of 95 % some 186 hold the expected UA (percentile
    intervals of few speakers are a little narrow); as many as the binomial of .93 gives in all but few tests.
    """
    generator, covered_count = np.random.default_rng(0), 0
    speaker, label = np.repeat(np.arange(20), 24), np.tile(np.arange(3), 160)
    for _ in range(200):
        ability = generator.beta(4, 3, 20)  # 4/7 expected
        is_correct = generator.random(480) < ability[speaker]
        predicted = np.where(is_correct, label, (label + generator.integers(1, 3, 480)) % 3)
        low, high = metrics.speaker_intervals(predicted, label, speaker, 3, resamples=400, seed=1)["ua"]
        covered_count += low <= 4 / 7 <= high
    assert 175 <= covered_count <= 197
