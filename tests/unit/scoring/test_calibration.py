"""Temperature and calibration error, on answers whose calibration is known."""

import jax
import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from emofuse_jax.scoring.calibration import (
    apply_temperature,
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability_bins,
)

RNG = np.random.default_rng(0)


def make_predictions(n=20_000, temperature=1.0):
    """Labels drawn from probabilities, which are then told `temperature` times too surely."""
    logits = RNG.normal(size=(n, 4)) * 1.5
    true_probabilities = np.asarray(jax.nn.softmax(logits))
    labels = (true_probabilities.cumsum(1) < RNG.random((n, 1))).sum(1).clip(max=3)
    return np.asarray(jax.nn.softmax(logits * temperature)), labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_planted_is_found(temperature):
    probabilities, labels = make_predictions(temperature=temperature)
    fitted = fit_temperature(probabilities, labels)
    assert fitted == pytest.approx(temperature, rel=0.05)
    calibrated = apply_temperature(probabilities, fitted)
    assert (
        negative_log_likelihood(calibrated, labels) <= negative_log_likelihood(probabilities, labels) + 1e-9
    )
    assert calibration_error(calibrated, labels) < 0.015
    np.testing.assert_array_equal(calibrated.argmax(1), probabilities.argmax(1))
    if temperature != 1.0:
        assert calibration_error(probabilities, labels) > 0.05


def test_unlabelled_clips_count_nowhere():
    probabilities, labels = make_predictions(2000, 2.0)
    half_labels = np.where(np.arange(2000) % 2, labels, -1)
    assert fit_temperature(probabilities, half_labels) == fit_temperature(probabilities[1::2], labels[1::2])
    assert calibration_error(probabilities, half_labels) == calibration_error(
        probabilities[1::2], labels[1::2]
    )
    assert fit_temperature(probabilities, np.full(2000, -1)) == 1.0


def test_answers_that_are_always_right_ask_for_no_more_than_the_bound():
    probabilities = np.full((30, 3), 0.2) + 0.4 * np.eye(3)[np.arange(30) % 3]
    assert fit_temperature(probabilities, np.arange(30) % 3) == pytest.approx(0.2, rel=1e-2)


def test_the_curve_is_that_of_scikit_learn():
    p = RNG.random(500) * 0.5 + 0.5
    labels = (RNG.random(500) > p).astype(int)
    rows = reliability_bins(np.stack([p, 1 - p], 1), labels, bins=10)
    accuracy, confidence = calibration_curve(labels == 0, p, n_bins=10)
    np.testing.assert_allclose([row["accuracy"] for row in rows], accuracy)
    np.testing.assert_allclose([row["confidence"] for row in rows], confidence)
    assert sum(row["clips"] for row in rows) == 500


def test_the_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])
    assert calibration_error(probabilities, labels, bins=5) == pytest.approx((2 * 0.4 + 0.3 + 0.4) / 4)


def test_certain_answers_stay_finite():
    probabilities, labels = np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 1])
    assert np.isfinite(apply_temperature(probabilities, 0.2)).all()
    assert np.isfinite(negative_log_likelihood(probabilities, labels))
    assert fit_temperature(probabilities, labels) > 1
