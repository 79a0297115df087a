import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from ml_collections import ConfigDict

from emofuse_jax import losses
from emofuse_jax.losses.cross_entropy import cross_entropy
from emofuse_jax.types import Batch, Outputs
from tests.golden import formulas

RNG = np.random.default_rng(6)
LOGITS = RNG.normal(size=(4, 3)).astype(np.float32)
LABEL = np.array([0, 2, -1, 1], np.int32)
WEIGHT = np.array([1.0, 2.0, 1.0, 0.0], np.float32)


def make_example(**aux):
    rows = jnp.zeros((4, 1))
    batch = Batch(
        audio=rows[..., None],
        audio_mask=rows > 0,
        faces=jnp.zeros((4, 1, 1, 1, 3), jnp.uint8),
        face_mask=rows > 0,
        label=jnp.asarray(LABEL),
        label_mask=jnp.ones(4, bool),
        weight=jnp.asarray(WEIGHT),
        speaker=jnp.zeros(4, jnp.int32),
        clip=jnp.zeros(4, jnp.int32),
    )
    return Outputs(jnp.asarray(LOGITS), rows, None, None, aux), batch


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_a_sum_and_its_weight(smoothing):
    arrays = jnp.asarray(LOGITS), jnp.asarray(LABEL), jnp.asarray(WEIGHT)
    total, weight = cross_entropy(*arrays, smoothing=smoothing)
    first, second = (formulas.cross_entropy(LOGITS[i], LABEL[i], smoothing) for i in (0, 1))
    assert float(weight) == 3.0
    assert float(total) == pytest.approx(first + 2 * second, rel=1e-5)


@pytest.mark.parametrize("smoothing", [{}, {"smoothing": 0.1}])
def test_a_mixed_label_is_its_share_of_another(smoothing):
    """As cross-entropy is linear in the target; smoothed or, by default, not."""
    other, share = np.array([2, 0, 1, 1], np.int32), np.array([0.3, 0.0, 0.5, 0.2], np.float32)
    rows = jnp.asarray(LOGITS), jnp.asarray(LABEL), jnp.asarray(WEIGHT)
    total, weight = cross_entropy(*rows, mixup=(jnp.asarray(other), jnp.asarray(share)), **smoothing)
    expected = 0.0
    for i in (0, 1):
        label_loss, other_loss = (
            formulas.cross_entropy(LOGITS[i], label[i], smoothing.get("smoothing", 0.0))
            for label in (LABEL, other)
        )
        expected += WEIGHT[i] * ((1 - share[i]) * label_loss + share[i] * other_loss)
    assert float(weight) == 3.0
    assert float(total) == pytest.approx(expected, rel=1e-5)


def test_uncounted_rows_have_no_gradient_even_when_not_finite():
    logits = jnp.asarray(LOGITS).at[2:].set(jnp.nan)

    def total(x):
        return cross_entropy(x, jnp.asarray(LABEL), jnp.asarray(WEIGHT))[0]

    value, gradient = jax.value_and_grad(total)(logits)
    assert np.isfinite(value)
    assert np.all(gradient[2:] == 0)
    assert np.all(gradient[:2] != 0)


def test_gradients_and_half_precision():
    with jax.enable_x64(True):

        def total(x):
            return cross_entropy(x, jnp.asarray(LABEL), jnp.asarray(WEIGHT), smoothing=0.1)[0]

        check_grads(jax.jit(total), (jnp.asarray(LOGITS, jnp.float64),), order=1, modes=["rev"])
    half = jnp.asarray(LOGITS, jnp.bfloat16)
    total, _ = cross_entropy(half, jnp.asarray(LABEL), jnp.asarray(WEIGHT))
    assert total.dtype == jnp.float32


def test_total_loss_weighs_the_means():
    levels = jnp.stack([jnp.asarray(LOGITS), 2 * jnp.asarray(LOGITS)], axis=1)  # b l c
    mask = jnp.array([[True, True], [True, False], [True, True], [True, True]])
    outputs, batch = make_example(level_logits=levels, level_mask=mask)
    config = ConfigDict({"smoothing": 0.0, "objectives": {"cross_entropy": 1.0, "levels": 0.5}})
    loss, parts = losses.total_loss(outputs, batch, config)
    ce = [formulas.cross_entropy(LOGITS[i], LABEL[i]) for i in (0, 1)]
    double = formulas.cross_entropy(2 * LOGITS[0], LABEL[0])
    assert float(parts["cross_entropy"]) == pytest.approx((ce[0] + 2 * ce[1]) / 3, rel=1e-5)
    assert float(parts["levels"]) == pytest.approx((ce[0] + 2 * ce[1] + double) / 4, rel=1e-5)
    assert float(loss) == pytest.approx(float(parts["cross_entropy"] + 0.5 * parts["levels"]), rel=1e-6)


def test_hidden_labels_count_nowhere():
    outputs, batch = make_example()
    config = losses.loss_defaults()
    hidden = dataclasses.replace(batch, label_mask=jnp.array([True, False, True, True]))
    expected = formulas.cross_entropy(LOGITS[0], LABEL[0])
    assert float(losses.total_loss(outputs, hidden, config)[0]) == pytest.approx(expected, rel=1e-5)
    nothing = dataclasses.replace(batch, weight=jnp.zeros(4))

    def loss(logits):
        return losses.total_loss(dataclasses.replace(outputs, logits=logits), nothing, config)[0]

    value, gradient = jax.value_and_grad(loss)(outputs.logits)
    assert float(value) == 0
    assert np.all(gradient == 0)


def test_bad_objectives_are_named():
    outputs, batch = make_example()
    for name, message in (("hinge", "'hinge', expected one of cross_entropy"), ("levels", "auxiliary=True")):
        config = ConfigDict({"smoothing": 0.0, "objectives": {name: 1.0}})
        with pytest.raises(ValueError, match=message):
            losses.total_loss(outputs, batch, config)


def test_a_ratio_over_nothing_is_zero_and_has_no_gradient():
    three, nothing, half = jnp.asarray(3.0), jnp.asarray(0.0), jnp.asarray(0.5)
    value, gradient = jax.value_and_grad(losses.safe_mean, argnums=(0, 1))(three, nothing)
    assert (value, *gradient) == (0.0, 0.0, 0.0)
    assert losses.safe_mean(three, half) == 6.0
