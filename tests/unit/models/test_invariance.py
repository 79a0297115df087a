import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from emofuse_jax import losses
from emofuse_jax.models.layers.attention_pooling import ATTENTION_TYPES
from emofuse_jax.models.registry import FUSIONS
from tests.support.fusion_inputs import (
    load_experiment,
    make_batch,
    make_outputs,
    random_inputs,
    small_fusion,
    without_dropout,
)
from tests.support.small_models import SPEC, device_batch, small_model


@pytest.mark.parametrize(
    ("fusion", "axes"), [("g_fbp", "2d"), ("am_fbp", "2d"), ("am_fbp", "1d_concat"), ("concat", "1d_mean")]
)
def test_padding_a_clip_changes_nothing(fusion, axes):
    model, params, state, apply = small_model(fusion, audio__attn_axes=axes)
    state = model.with_statistics(state, np.full(SPEC.f, -4.0), np.full(SPEC.f, 2.0))
    batch = device_batch(model)
    batch = dataclasses.replace(
        batch, audio_mask=jnp.broadcast_to(jnp.arange(SPEC.t) < 131, batch.audio_mask.shape)
    )
    longer = dataclasses.replace(
        batch,
        audio=jnp.pad(batch.audio, ((0, 0), (0, 40), (0, 0)), constant_values=3.0),
        audio_mask=jnp.pad(batch.audio_mask, ((0, 0), (0, 40))),
    )
    shorter = dataclasses.replace(batch, audio=batch.audio[:, :131], audio_mask=batch.audio_mask[:, :131])
    expected, _ = apply(params, state, shorter)
    for padded_batch in (batch, longer):
        outputs, _ = apply(params, state, padded_batch)
        np.testing.assert_allclose(outputs.audio_vector, expected.audio_vector, atol=1e-5)
        np.testing.assert_allclose(outputs.logits, expected.logits, atol=1e-5)
    assert np.abs(expected.audio_vector).max() > 1e-2


@pytest.mark.parametrize("attention", ATTENTION_TYPES)
def test_lost_faces_equal_the_subset_of_frames(attention):
    model, params, state, apply = small_model("g_fbp", video__attention=attention)
    batch = device_batch(model)
    mask = jnp.broadcast_to(jnp.array([True, False, True, False]), batch.face_mask.shape)
    masked, _ = apply(params, state, dataclasses.replace(batch, face_mask=mask))
    subset_batch = dataclasses.replace(batch, faces=batch.faces[:, ::2], face_mask=mask[:, ::2])
    subset, _ = apply(params, state, subset_batch)
    reversed_batch = dataclasses.replace(subset_batch, faces=subset_batch.faces[:, ::-1])
    for other in (subset, apply(params, state, reversed_batch)[0]):
        np.testing.assert_allclose(masked.video_vector, other.video_vector, atol=1e-5)
        np.testing.assert_allclose(masked.logits, other.logits, atol=1e-5)


@pytest.mark.parametrize("fusion", ["late", "am_fbp"])
def test_the_order_of_clips_and_padded_rows_do_not_matter(fusion):
    no_dropout_fields = {"fusion__head_dropout": 0.0} | (
        {"fusion__dropout": 0.0} if fusion == "am_fbp" else {}
    )
    model, params, state, apply = small_model(fusion, **no_dropout_fields)
    batch = device_batch(model)
    config = ConfigDict({"smoothing": 0.1, "objectives": {"cross_entropy": 1.0}})

    def score(scored_batch):  # in training, where batch statistics would feel a row of padding
        outputs, new_state = apply(params, state, scored_batch, train=True, key=jax.random.key(0))
        return outputs, new_state, float(losses.total_loss(outputs, scored_batch, config)[0])

    outputs, moved_state, loss = score(batch)
    order = np.array([2, 0, 3, 1])
    permuted, *_ = score(jax.tree.map(lambda x: x[order], batch))
    np.testing.assert_allclose(permuted.logits, outputs.logits[order], atol=1e-5)
    empty = jax.tree.map(jnp.zeros_like, batch)
    _, padded_state, padded_loss = score(jax.tree.map(lambda a, b: jnp.concatenate([a, b]), batch, empty))
    assert loss == pytest.approx(padded_loss, abs=1e-5)
    for a, b in zip(jax.tree.leaves(moved_state), jax.tree.leaves(padded_state), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_one_device_and_eight_agree_from_end_to_end():
    model, params, state, _ = small_model("am_fbp")
    batch = device_batch(model, 16)
    batch = dataclasses.replace(batch, weight=batch.weight.at[:5].set(0.0))  # uneven over the devices
    config = losses.loss_defaults()

    @jax.jit
    def step(params, state, batch):
        def objective(params):
            outputs, new_state = model.apply(params, state, batch, train=True, key=jax.random.key(3))
            return losses.total_loss(outputs, batch, config)[0], new_state

        return jax.value_and_grad(objective, has_aux=True)(params)

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharded, replicated = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    eight = step(*jax.device_put((params, state), replicated), jax.device_put(batch, sharded))
    one = step(params, state, batch)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4)


SEQUENCE_FUSIONS = [name for name, fusion in FUSIONS.items() if fusion.takes == "sequences"]


@pytest.mark.parametrize("name", SEQUENCE_FUSIONS)
def test_positions_that_are_masked_change_no_fusion(name):
    """Fusions of vectors get no positions: for them the encoders' and the attention's tests above suffice."""
    params, state, apply = small_fusion(name)
    inputs = random_inputs(name)

    def padded(sequence):
        values, mask, order = (jnp.concatenate([x, x[:, :3]], axis=1) for x in sequence[:3])
        mask = mask & (jnp.arange(mask.shape[1]) < sequence.mask.shape[1])
        return type(sequence)(jnp.where(mask[..., None], values, 7.0), mask, order, sequence.length)

    longer_inputs = type(inputs)(*(s if s is None else padded(s) for s in inputs))
    apply = jax.jit(apply)
    plain, other = apply(params, state, inputs), apply(params, state, longer_inputs)
    np.testing.assert_allclose(plain.logits, other.logits, atol=1e-5)
    np.testing.assert_allclose(plain.embedding, other.embedding, atol=1e-5)


@pytest.mark.parametrize("name", FUSIONS)
def test_a_fusion_answers_each_clip_apart_and_on_any_number_of_devices(name):
    params, state, apply = small_fusion(name, **without_dropout(name))
    inputs, batch, config = random_inputs(name, 16), make_batch(16), load_experiment(name).loss

    @jax.jit
    def step(params, state, inputs, batch):
        def objective(params):
            fused = apply(params, state, inputs, train=True, key=jax.random.key(0))
            return losses.total_loss(make_outputs(inputs, fused), batch, config)[0], fused.logits

        return jax.value_and_grad(objective, has_aux=True)(params)

    (loss, logits), gradients = step(params, state, inputs, batch)
    order = np.random.default_rng(0).permutation(16)
    (permuted_loss, permuted_logits), _ = step(
        params, state, *jax.tree.map(lambda x: x[order], (inputs, batch))
    )
    np.testing.assert_allclose(permuted_logits, logits[order], atol=1e-5)
    np.testing.assert_allclose(permuted_loss, loss, rtol=1e-5)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharded, replicated = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    eight = step(*jax.device_put((params, state), replicated), *jax.device_put((inputs, batch), sharded))
    for a, b in zip(jax.tree.leaves(((loss, logits), gradients)), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4)
