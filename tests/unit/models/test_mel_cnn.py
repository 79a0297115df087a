"""The networks for log-mel energies: padding, silence, attentive statistics."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emofuse_jax import settings
from emofuse_jax.models.build import build_model
from emofuse_jax.types import InputSpec

SPEC = InputSpec(t=160, f=64, s=1, h=8, w=8, classes=8)


def make_model(encoder="mel_cnn", **changes):
    config = settings.load_shipped("speech", encoder).model
    small = {"mel_cnn": {"widths": (6, 8, 10)}, "ecapa": {"width": 8, "bottleneck": 4, "output": 10}}
    config.audio.update(small[encoder] | changes)
    model = build_model(config, SPEC)
    return model, *model.init(jax.random.key(0))


CASES = [{}, {"residual": False}, {"attn_axes": "1d_mean"}, {"attn_axes": "2d"}, {"encoder": "ecapa"}]


@pytest.mark.parametrize("changes", CASES)
def test_padding_a_clip_changes_nothing(changes):
    model, params, state = make_model(**changes)
    state = model.with_statistics(state, np.full(64, -4.0), np.full(64, 2.0))
    batch = jax.tree.map(jnp.asarray, model.fake_batch(3))
    for length in (97, 100):
        short = dataclasses.replace(
            batch, audio=batch.audio[:, :length], audio_mask=jnp.ones((3, length), bool)
        )
        padded = dataclasses.replace(
            short,
            audio=jnp.pad(short.audio, ((0, 0), (0, 43), (0, 0)), constant_values=3.0),
            audio_mask=jnp.pad(short.audio_mask, ((0, 0), (0, 43))),
        )
        short_outputs, padded_outputs = (model.apply(params, state, b)[0] for b in (short, padded))
        np.testing.assert_allclose(padded_outputs.audio_vector, short_outputs.audio_vector, atol=1e-5)
        np.testing.assert_allclose(padded_outputs.logits, short_outputs.logits, atol=1e-5)
        steps = -(-length // (2 if "encoder" in changes else 8))
        weights = np.asarray(padded_outputs.aux["audio_attention"])
        weights = weights.sum(-1) if weights.ndim == 3 else weights
        np.testing.assert_allclose(weights[:, :steps].sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("encoder", ["mel_cnn", "ecapa"])
def test_a_clip_without_sound_is_zero_and_trains(encoder):
    model, params, state = make_model(encoder)
    batch = jax.tree.map(jnp.asarray, model.fake_batch(4))
    batch = dataclasses.replace(batch, audio_mask=batch.audio_mask.at[1].set(False))

    def loss(params):
        outputs, _ = model.apply(params, state, batch, train=True, key=jax.random.key(0))
        return (outputs.logits**2).sum(), outputs

    grads, outputs = jax.grad(loss, has_aux=True)(params)
    assert not np.asarray(outputs.audio_vector)[1].any()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(grads["audio"]))


def test_an_even_stem_is_named():
    with pytest.raises(ValueError, match=r"audio\.stem: 4, expected an odd number"):
        make_model(stem=4)


def test_a_width_that_cannot_be_split_is_named():
    with pytest.raises(ValueError, match=r"audio\.width: 10, expected a multiple of .*scale=4"):
        make_model("ecapa", width=10)
