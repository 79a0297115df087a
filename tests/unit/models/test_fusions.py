import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from emofuse_jax import losses
from emofuse_jax.data.augment.apply import modality_dropout
from emofuse_jax.models.fusions.am_fbp import complete_trunks
from emofuse_jax.models.fusions.late import Late
from emofuse_jax.models.interfaces import EncodedSequence, PooledVectors, trunk_masks
from emofuse_jax.models.layers.fbp import AdaptiveFBP
from emofuse_jax.models.registry import FUSIONS
from emofuse_jax.ops.masking import equal_weights
from tests.support.fusion_inputs import load_experiment
from tests.support.small_models import device_batch, float_leaves, small_config, small_model

CASES = [(fusion, "float32") for fusion in FUSIONS]
BFLOAT16_FUSIONS = ["late", "am_fbp", "lmf", "mfh"]
BFLOAT16_FUSIONS += [fusion for fusion in FUSIONS if FUSIONS[fusion].takes == "sequences"]
CASES += [
    pytest.param(fusion, "bfloat16", marks=() if fusion == "am_fbp" else pytest.mark.long)
    for fusion in BFLOAT16_FUSIONS
]


@pytest.mark.parametrize(("fusion", "dtype"), CASES)
def test_trains_finitely_also_when_a_whole_batch_lacks_a_modality(fusion, dtype):
    config = load_experiment(fusion).loss
    model, params, state, _ = small_model(
        fusion, dtype=dtype, margins__kind=load_experiment(fusion).model.margins.kind
    )

    @jax.jit
    def step(params, state, batch):
        batch = modality_dropout(batch, jax.random.key(2), audio_rate=0.3, video_rate=0.3)

        def objective(params):
            outputs, new_state = model.apply(params, state, batch, train=True, key=jax.random.key(1))
            loss, _ = losses.total_loss(outputs, batch, config)
            return loss, (outputs, new_state)

        return jax.value_and_grad(objective, has_aux=True)(params)

    for batch in lacking_batches(device_batch(model)):
        (loss, (outputs, new_state)), gradients = step(params, state, batch)
        assert np.isfinite(loss)
        assert outputs.logits.dtype == jnp.float32
        for leaf in float_leaves((outputs, new_state, gradients)):
            assert np.all(np.isfinite(np.asarray(leaf, np.float32)))
        for name, vector in (("audio_mask", outputs.audio_vector), ("face_mask", outputs.video_vector)):
            absent = ~np.asarray(getattr(batch, name)).any(1)
            if vector is not None:
                assert np.all(np.asarray(vector, np.float32)[absent] == 0)


def lacking_batches(batch):
    """The batch, then without sound, faces or both: for every clip, and for the second alone."""
    yield batch
    for names in (("audio_mask",), ("face_mask",), ("audio_mask", "face_mask")):
        masks = {name: getattr(batch, name) for name in names}
        yield dataclasses.replace(batch, **{name: jnp.zeros_like(mask) for name, mask in masks.items()})
        yield dataclasses.replace(batch, **{name: mask.at[1].set(False) for name, mask in masks.items()})


@pytest.mark.parametrize("fusion", ["late", "f_score", "ag_fbp", "am_fbp", "bottleneck"])
def test_an_absent_modality_has_no_weight(fusion):
    model, params, state, apply = small_model(fusion)
    batch = device_batch(model)
    batch = dataclasses.replace(
        batch, audio_mask=batch.audio_mask.at[1].set(False), face_mask=batch.face_mask.at[2].set(False)
    )
    weights = apply(params, state, batch)[0].aux["modality_weights"]
    np.testing.assert_allclose(weights[1], [0, 1])
    np.testing.assert_allclose(weights[2], [1, 0])
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize(("fusion", "absent"), [("audio_only", "video"), ("video_only", "audio")])
def test_a_single_stream_builds_one_encoder(fusion, absent):
    model, params, state, apply = small_model(fusion)
    present = "audio" if absent == "video" else "video"
    assert absent not in params
    assert present in params
    outputs, _ = apply(params, state, device_batch(model))
    assert getattr(outputs, f"{absent}_vector") is None
    np.testing.assert_allclose(outputs.aux["modality_weights"][0], [present == "audio", present == "video"])


@pytest.mark.parametrize("gates", ["scalar", "vector"])
def test_the_output_follows_the_gates(gates):
    config = small_config("ag_fbp").fusion
    config.gates = gates
    trunk = AdaptiveFBP(8, 12, config, jnp.float32, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    audio, video = (jnp.asarray(rng.normal(size=(3, d)), jnp.float32) for d in (8, 12))
    ok = jnp.ones((3, 2), bool)
    before, weights, gates_by_name = trunk(audio, video, ok, train=False, key=None)
    layer = trunk.gates.audio_score if gates == "scalar" else trunk.gates.audio_gate
    layer.kernel[...] = layer.kernel[...] + 0.5
    after, changed, _ = trunk(audio, video, ok, train=False, key=None)
    assert set(gates_by_name) == ({"audio_gate", "video_gate"} if gates == "vector" else set())
    assert np.abs(weights - changed).max() > 1e-2
    assert np.abs(before - after).max() > 1e-3
    np.testing.assert_allclose(jnp.linalg.norm(after, axis=-1), config.scale, rtol=1e-5)


def test_unknown_gates():
    config = small_config("ag_fbp").fusion
    config.gates = "hard"
    with pytest.raises(ValueError, match=r"fusion.gates: 'hard', expected one of scalar, vector"):
        AdaptiveFBP(8, 12, config, jnp.float32, rngs=nnx.Rngs(0))


def test_late_is_the_mean_of_the_posteriors():
    late = Late(3, 4, 5, small_config("late").fusion, jnp.float32, rngs=nnx.Rngs(0))
    audio, video = (
        jax.random.normal(jax.random.key(0), (3, 1, 3)),
        jax.random.normal(jax.random.key(1), (3, 1, 4)),
    )
    ok_a, ok_v = jnp.array([[True], [True], [False]]), jnp.array([[True], [False], [False]])
    logits = late(PooledVectors(audio, ok_a, video, ok_v), train=False, key=None).logits
    p_a = jax.nn.softmax(late.audio_head(audio[:, 0], train=False, key=None))
    p_v = jax.nn.softmax(late.video_head(video[:, 0], train=False, key=None))
    expected = [(p_a[0] + p_v[0]) / 2, p_a[1], (p_a[2] + p_v[2]) / 2]
    np.testing.assert_allclose(jax.nn.softmax(logits), np.stack(expected), atol=1e-6)
    np.testing.assert_allclose(equal_weights(jnp.array([[False, True]])), [[0, 1]])


def test_time_parts():
    mask = jnp.array([[True] * 5 + [False] * 2])
    audio = EncodedSequence(jnp.zeros((1, 7, 2)), mask, jnp.cumsum(mask, 1) - 1, mask.sum(1))
    masks = trunk_masks(audio, 3)
    expected = [[1, 1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0]]
    assert np.array_equal(masks[0], expected)
    assert np.array_equal(trunk_masks(audio, 0), mask[:, None])


def test_a_part_counts_when_it_has_what_the_clip_has():
    ok = jnp.array(
        [
            [[1, 1], [1, 1], [1, 0], [0, 1], [0, 0]],  # both streams: only complete parts
            [[1, 0], [1, 0], [1, 0], [0, 0], [0, 0]],  # sound alone: the parts with sound
            [[0, 0], [0, 0], [0, 0], [0, 0], [0, 0]],
        ],
        bool,
    )
    assert np.array_equal(complete_trunks(ok), [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])


def test_am_fbp_levels_and_masked_parts():
    model, params, state, apply = small_model("am_fbp", fusion__auxiliary=True)
    batch = device_batch(model)
    batch = dataclasses.replace(batch, face_mask=jnp.ones_like(batch.face_mask).at[:, 3].set(False))
    outputs, _ = apply(params, state, batch)  # four frames, three parts: the last frame is the last part
    trunks = outputs.aux["trunks"]
    assert trunks.shape == (4, 4, 8)
    assert outputs.aux["level_logits"].shape == (4, 2, 5)
    full = np.asarray(outputs.embedding[0])  # the first clip has all its columns
    np.testing.assert_allclose(full[:8], trunks[0, 0], atol=1e-6)
    np.testing.assert_allclose(full[8:], trunks[0, 1:3].mean(0), atol=1e-6)


@pytest.mark.parametrize("fusion", ["late", "am_fbp"])
def test_auxiliary_loss_trains_its_heads(fusion):
    model, params, state, _ = small_model(fusion, fusion__auxiliary=True)
    batch = device_batch(model)
    config = ConfigDict({"smoothing": 0.0, "objectives": {"cross_entropy": 0.0, "levels": 1.0}})

    def objective(params):
        return losses.total_loss(model.apply(params, state, batch)[0], batch, config)[0]

    gradients = jax.jit(jax.grad(objective))(params)["fusion"]
    heads = ("audio_head", "video_head") if fusion == "late" else ("global_head", "part_head")
    for head in heads:
        assert np.abs(gradients[head]["linear"]["kernel"]).max() > 0


def test_the_number_of_parts_is_checked():
    with pytest.raises(ValueError, match=r"fusion.parts: 0, expected at least 1"):
        small_model("am_fbp", fusion__parts=0)
