import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from emofuse_jax import losses
from emofuse_jax.ops.metric_learning import adaptive_margin_triplet, batch_hard_triplet
from tests.support.small_models import device_batch, float_leaves, small_model

FIELDS = {"margins__kind": "hierarchical", "polarity": (0, 1, 1, -1, -1)}
LABEL = jnp.array([0, 1, 0, 1, 3, 3])


def make_config(**factors):
    return ConfigDict({"smoothing": 0.0, "objectives": {"cross_entropy": 0.0} | factors})


def make_example(**fields):
    model, params, state, apply = small_model("concat", **FIELDS)
    batch = dataclasses.replace(device_batch(model, 6), label=LABEL, **fields)
    return model, params, state, batch, apply(params, state, batch)[0]


def test_they_are_off_by_default():
    factors = losses.loss_defaults().objectives.to_dict()
    assert [factors[name] for name in ("emotional_metric", "adaptive_triplet", "polarity")] == [0.0] * 3
    assert factors["cross_entropy"] == 1.0


def test_they_score_the_embedding_of_the_rows_that_count():
    weight, known = jnp.array([1, 1, 1, 1, 0.5, 1]), jnp.array([1, 1, 1, 1, 1, 0], bool)
    _, _, _, batch, outputs = make_example(weight=weight, label_mask=known)
    rows = outputs.embedding, LABEL, weight * known
    total, weights = batch_hard_triplet(*rows, outputs.aux["margins"])
    expected = {"emotional_metric": total / weights}
    total, weights = adaptive_margin_triplet(*rows)
    expected["adaptive_triplet"] = total / weights
    assert float(weights) == 4.0  # the fifth lacks a positive, for the sixth is hidden
    for name, value in expected.items():
        loss, parts = losses.total_loss(outputs, batch, make_config(**{name: 0.3}))
        np.testing.assert_allclose(parts[name], value, rtol=1e-6)
        np.testing.assert_allclose(loss, 0.3 * value, rtol=1e-6)


def test_polarity_contains_the_cross_entropy():
    _, _, _, batch, outputs = make_example()
    plain = losses.total_loss(outputs, batch, make_config(cross_entropy=1.0))[0]
    with_polarity = losses.total_loss(outputs, batch, make_config(polarity=1.0))[0]
    assert plain < with_polarity <= 1.5 * plain
    alike = dataclasses.replace(outputs, aux=outputs.aux | {"polarity": jnp.zeros(5, int)})
    np.testing.assert_allclose(
        losses.total_loss(alike, batch, make_config(polarity=1.0))[0], plain, rtol=1e-6
    )


def test_they_train_the_network():
    model, params, state, batch, _ = make_example()
    names = ("emotional_metric", "adaptive_triplet", "polarity")

    @jax.jit
    def gradients(params, batch):
        def objective(params):
            outputs, _ = model.apply(params, state, batch, train=True, key=jax.random.key(0))
            return jnp.stack(
                [losses.total_loss(outputs, batch, make_config(**{name: 1.0}))[0] for name in names]
            )

        _, pull = jax.vjp(objective, params)
        return [pull(one)[0] for one in jnp.eye(len(names))]

    for name, gradient in zip(names, gradients(params, batch), strict=True):
        assert np.abs(gradient["audio"]["fcn"]["conv5"]["kernel"]).max() > 0
        assert (np.abs(gradient["relations"]["margins"]["theta"]).max() > 0) == (name == "emotional_metric")
    masked_batch = dataclasses.replace(
        batch,
        audio_mask=jnp.zeros_like(batch.audio_mask),
        face_mask=jnp.zeros_like(batch.face_mask),
        label_mask=batch.label_mask.at[1].set(False),
    )
    for leaf in float_leaves(gradients(params, masked_batch)):
        assert np.all(np.isfinite(leaf))


@pytest.mark.parametrize(
    ("name", "message"),
    [("emotional_metric", "set config.model.margins.kind"), ("polarity", "set config.model.polarity")],
)
def test_what_they_need(name, message):
    _, _, _, batch, outputs = make_example()
    with pytest.raises(ValueError, match=message):
        losses.total_loss(dataclasses.replace(outputs, aux={}), batch, make_config(**{name: 1.0}))
