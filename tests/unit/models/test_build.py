import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emofuse_jax.models.build import build_model
from emofuse_jax.settings.model import default_model_config
from emofuse_jax.types import Batch
from tests.support.small_models import SPEC, device_batch, small_config, small_model


def test_numbers_are_nested_plain_dicts_with_text_keys():
    _, params, state, _ = small_model()

    def walk(tree):
        assert type(tree) is dict
        for name, value in tree.items():
            assert type(name) is str
            if not isinstance(value, jax.Array):
                walk(value)

    walk(params)
    walk(state)
    assert {"audio", "video", "fusion"} <= params.keys()
    assert state.keys() == {"input", "video"}
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((params, state)))


def test_init_is_pure_and_seeded():
    model, params, _, _ = small_model()
    again, _ = jax.jit(model.init)(jax.random.key(0))
    other, _ = model.init(jax.random.key(1))
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)

    def kernel(p):
        return p["audio"]["fcn"]["conv1"]["kernel"]

    assert np.abs(kernel(params) - kernel(other)).max() > 0.01


def test_one_trace_for_a_shape():
    model, params, state, _ = small_model()
    traces = []

    @jax.jit
    def step(params, state, batch, key):
        traces.append(batch.faces.shape)
        outputs, state = model.apply(params, state, batch, train=True, key=key)
        return outputs.logits, state

    for i in range(3):
        _, state = step(params, state, device_batch(model, seed=i), jax.random.key(i))
    assert len(traces) == 1
    fewer = device_batch(model)
    fewer = dataclasses.replace(fewer, faces=fewer.faces[:, :3], face_mask=fewer.face_mask[:, :3])
    step(params, state, fewer, jax.random.key(0))
    step(params, state, fewer, jax.random.key(1))
    assert traces == [(4, 4, 16, 16, 3), (4, 3, 16, 16, 3)]


def test_scoring_is_deterministic_and_leaves_the_state():
    model, params, state, apply = small_model()
    batch = device_batch(model)
    first, same = apply(params, state, batch)
    second, _ = apply(params, state, batch, key=jax.random.key(9))
    assert np.array_equal(first.logits, second.logits)
    assert jax.tree.structure(same) == jax.tree.structure(state)
    for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(state), strict=True):
        assert np.array_equal(a, b)


def test_training_uses_its_key_and_moves_the_running_statistics():
    model, params, state, apply = small_model()
    batch = device_batch(model)
    one, new_state = apply(params, state, batch, train=True, key=jax.random.key(0))
    two, _ = apply(params, state, batch, train=True, key=jax.random.key(1))
    assert np.abs(one.logits - two.logits).max() > 1e-4

    def mean(s):
        return s["video"]["resnet"]["stem"]["norm"]["mean"]

    assert np.abs(mean(new_state) - mean(state)).max() > 1e-4
    with pytest.raises(ValueError, match="train=True needs a key"):
        model.apply(params, state, batch, train=True)


def test_statistics_standardise_the_sound():
    model, params, state, apply = small_model("audio_only")
    batch = device_batch(model)
    mean, std = np.linspace(-5, -3, SPEC.f), np.linspace(1, 3, SPEC.f)
    outputs, _ = apply(params, model.with_statistics(state, mean, std), batch)
    audio = (np.asarray(batch.audio, np.float32) - mean) / std
    by_hand = dataclasses.replace(batch, audio=jnp.asarray(audio, jnp.float32))
    np.testing.assert_allclose(outputs.logits, apply(params, state, by_hand)[0].logits, atol=1e-4)


@pytest.mark.parametrize(
    ("mean", "message"),
    [
        (np.zeros(3), r"mean has shape \(3,\)"),
        (np.full(SPEC.f, np.nan), "mean has values that are not finite"),
    ],
)
def test_bad_statistics(mean, message):
    model, _, state, _ = small_model("audio_only")
    with pytest.raises(ValueError, match=message):
        model.with_statistics(state, mean, np.ones(len(mean)))


def test_fake_batches_are_valid_and_seeded():
    model, *_ = small_model("concat")
    batch = model.fake_batch(6, seed=3)
    assert isinstance(batch, Batch)
    assert batch.audio.shape == (6, SPEC.t, SPEC.f)
    assert batch.faces.dtype == np.uint8
    assert batch.audio_mask[0].all()
    assert batch.face_mask[0].all()
    assert not batch.audio_mask.all()
    assert not batch.face_mask.all()
    assert batch.face_mask.any(1).all()
    assert np.array_equal(batch.faces, model.fake_batch(6, seed=3).faces)
    assert not np.array_equal(batch.audio, model.fake_batch(6, seed=4).audio)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"fusion.name": "sum"}, r"fusion.name: 'sum', expected one of audio_only"),
        ({"dtype": "float16"}, r"dtype: 'float16', expected one of float32, bfloat16"),
        ({"video.attention": "mean"}, "attention: 'mean', expected one of additive"),
        ({"audio.attn_axes": "3d"}, r"audio.attn_axes: '3d'"),
    ],
)
def test_a_bad_config_is_named(edit, message):
    config = small_config()
    config.update_from_flattened_dict(edit)
    with pytest.raises(ValueError, match=message):
        build_model(config, SPEC)


def test_a_bad_batch_is_named():
    model, params, state, _ = small_model("concat")
    batch = device_batch(model)
    with pytest.raises(ValueError, match=r"batch.audio: shape \(4, 163, 60\)"):
        model.apply(params, state, dataclasses.replace(batch, audio=batch.audio[:, :, :60]))


def test_unknown_defaults():
    with pytest.raises(ValueError, match="fusion: 'sum'"):
        default_model_config("sum")
    with pytest.raises(ValueError, match="audio: 'vgg'"):
        default_model_config(audio="vgg")
