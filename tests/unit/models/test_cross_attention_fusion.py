import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from emofuse_jax.models.fusions.avef import DeepFusion
from emofuse_jax.models.fusions.cross_attention import CrossAttention
from emofuse_jax.models.interfaces import EncodedSequence, EncodedSequences, PooledVectors
from tests.support.small_models import device_batch, small_model

RNG = np.random.default_rng(10)


def make_sequence(l, d, mask=None):
    values = jnp.asarray(RNG.normal(size=(2, l, d)), jnp.float32)
    mask = jnp.ones((2, l), bool) if mask is None else jnp.asarray(mask, bool)
    return EncodedSequence(values, mask, jnp.broadcast_to(jnp.arange(l), (2, l)), jnp.full(2, l))


def make_fusion(d_a=4, d_v=4, **fields):
    config = ConfigDict(CrossAttention.defaults | {"positions": 3, "common_width": 5} | fields)
    return CrossAttention(d_a, d_v, 6, config, jnp.float32, rngs=nnx.Rngs(0))


def test_equals_the_formula_on_positions_of_one_width():
    net, audio, video = make_fusion(layer_norm=False), make_sequence(3, 4), make_sequence(3, 4)
    out = net(EncodedSequences(audio, video), train=False, key=None)
    for i in range(2):
        x_a, x_v, w = np.asarray(audio.values[i]), np.asarray(video.values[i]), np.asarray(net.w[...])
        e = np.exp(x_a @ w @ x_v.T)
        over_v, over_a = e / e.sum(1, keepdims=True), (e / e.sum(0, keepdims=True)).T
        both = np.concatenate([np.tanh(x_a + over_a @ x_a), np.tanh(x_v + over_v @ x_v)], axis=1)
        np.testing.assert_allclose(out.embedding[i], both.ravel(), atol=1e-5)
        np.testing.assert_allclose(out.aux["cross_audio_weights"][i], over_a, atol=1e-5)
        np.testing.assert_allclose(out.aux["cross_video_weights"][i], over_v, atol=1e-5)
    np.testing.assert_allclose(out.logits, net.head(out.embedding, train=False, key=None), atol=1e-6)


def test_layer_norm_comes_before_the_affinities():
    net, plain, audio, video = (
        make_fusion(),
        make_fusion(layer_norm=False),
        make_sequence(3, 4),
        make_sequence(3, 4),
    )
    plain.w[...], plain.head = net.w[...], net.head
    normed = (x._replace(values=jax.nn.standardize(x.values, epsilon=1e-6)) for x in (audio, video))
    one, two = (
        net(EncodedSequences(audio, video), train=False, key=None),
        plain(EncodedSequences(*normed), train=False, key=None),
    )
    np.testing.assert_allclose(one.logits, two.logits, atol=1e-5)


def test_large_inputs_do_not_end_in_the_flat_part_of_the_tanh():
    audio, video = (
        x._replace(values=4 + jnp.abs(x.values)) for x in (make_sequence(3, 8), make_sequence(3, 8))
    )
    embeddings = [
        make_fusion(8, 8, layer_norm=norm)(EncodedSequences(audio, video), train=False, key=None).embedding
        for norm in (True, False)
    ]
    slopes = [float(jnp.mean(1 - z**2)) for z in embeddings]
    assert slopes[0] > 0.2 > 1e-3 > slopes[1]


@pytest.mark.parametrize(("l_a", "d_a", "l_v", "d_v"), [(7, 4, 2, 3), (3, 4, 12, 4)])
def test_takes_any_pair_of_sequences(l_a, d_a, l_v, d_v):
    net = make_fusion(d_a, d_v)
    out = net(EncodedSequences(make_sequence(l_a, d_a), make_sequence(l_v, d_v)), train=False, key=None)
    assert out.embedding.shape == (2, 3 * 2 * (4 if d_a == d_v else 5))
    assert out.aux["cross_audio_weights"].shape == (2, 3, 3)
    assert np.all(np.isfinite(out.logits))


def test_longer_sequences_are_averaged_in_equal_parts():
    long = make_sequence(6, 4)
    short = make_sequence(3, 4)._replace(values=long.values.reshape(2, 3, 2, 4).mean(2))
    net, video = make_fusion(), make_sequence(3, 4)
    one, two = (net(EncodedSequences(audio, video), train=False, key=None).logits for audio in (long, short))
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_masked_positions_and_absent_modalities():
    net, audio, video = (
        make_fusion(d_v=3, layer_norm=False),
        make_sequence(3, 4),
        make_sequence(6, 3, [[1, 0, 1, 1, 0, 0], [0] * 6]),
    )
    changed_video = video._replace(values=jnp.where(video.mask[..., None], video.values, 9.0))
    one, two = (
        net(EncodedSequences(audio, video_input), train=False, key=None)
        for video_input in (video, changed_video)
    )
    np.testing.assert_allclose(one.logits, two.logits, atol=1e-6)
    halves = one.embedding[1].reshape(3, 2, 5)
    np.testing.assert_allclose(halves[:, 0], np.tanh(net.audio_projection(audio.values[1])), atol=1e-5)
    assert np.all(np.asarray(halves)[:, 1] == 0)


def test_affinities_are_of_order_one_at_first():
    net, audio, video = make_fusion(64, 64), make_sequence(3, 64), make_sequence(3, 64)
    affinity = audio.values @ net.w[...] @ jnp.swapaxes(video.values, 1, 2)
    assert 0.5 < jnp.std(affinity) < 2


def test_with_fcn_and_frames_padding_changes_nothing():
    model, params, state, apply = small_model("cross_attention", fusion__positions=2)
    batch = device_batch(model)
    longer = dataclasses.replace(
        batch,
        audio=jnp.pad(batch.audio, ((0, 0), (0, 40), (0, 0)), constant_values=3.0),
        audio_mask=jnp.pad(batch.audio_mask, ((0, 0), (0, 40))),
    )
    one, two = (apply(params, state, padded_batch)[0] for padded_batch in (batch, longer))
    np.testing.assert_allclose(one.logits, two.logits, atol=1e-5)


def test_the_number_of_positions_is_checked():
    with pytest.raises(ValueError, match=r"fusion.positions: 0, expected at least 1"):
        make_fusion(positions=0)


def test_deep_fusion_is_a_perceptron():
    config = ConfigDict(DeepFusion.defaults | {"hidden": (6, 5), "layer_norm": False})
    net = DeepFusion(4, 3, 2, config, jnp.float32, rngs=nnx.Rngs(0))
    audio, video = (jnp.asarray(RNG.normal(size=(2, 1, d)), jnp.float32) for d in (4, 3))
    streams = PooledVectors(audio, jnp.ones((2, 1), bool), video, jnp.ones((2, 1), bool))
    out = net(streams, train=False, key=None)
    z = np.concatenate([audio[:, 0], video[:, 0]], axis=1)
    for layer in (net.hidden1, net.hidden2):
        z = np.maximum(z @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...]), 0)
    np.testing.assert_allclose(out.embedding, z, atol=1e-5)
    np.testing.assert_allclose(out.logits, net.head(jnp.asarray(z), train=False, key=None), atol=1e-5)
    normed = DeepFusion(
        4, 3, 2, ConfigDict(DeepFusion.defaults | {"hidden": (6, 5)}), jnp.float32, rngs=nnx.Rngs(0)
    )
    scaled = streams._replace(audio=100 * audio, audio_mask=jnp.array([[True], [False]]))
    one, two = (
        normed(s, train=False, key=None).embedding
        for s in (streams._replace(audio_mask=scaled.audio_mask), scaled)
    )
    np.testing.assert_allclose(one, two, atol=1e-4)  # neither scale nor an absent vector matters
    dropped = net(streams, train=True, key=jax.random.key(0))
    assert np.abs(dropped.embedding - out.embedding).max() > 1e-3
