import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from emofuse_jax.models.encoders.audio_segment_cnn import ConvBlocks, SegmentEncoder
from emofuse_jax.settings.model import default_model_config
from emofuse_jax.types import Batch, InputSpec

RNG = np.random.default_rng(9)
SPEC = InputSpec(t=60, f=20, s=1, h=8, w=8, classes=3)


def make_config(**fields):
    config = default_model_config("hgr", audio="segments").audio
    config.update({"segments": 5, "segment_steps": 12, "widths": (3, 4)} | fields)
    return config


def make_audio_batch(audio, mask):
    """A batch of which nothing but the sound is looked at."""
    empty = dict.fromkeys(field.name for field in dataclasses.fields(Batch))
    return Batch(**empty | {"audio": jnp.asarray(audio), "audio_mask": jnp.asarray(mask)})


def random_audio(lengths, t=60, f=20):
    mask = np.arange(t) < np.array(lengths)[:, None]
    return (RNG.normal(size=(len(lengths), t, f)) * mask[..., None]).astype(np.float32), mask


def block_formula(x, kernel, scale):
    """Convolution of one map with zeros around, norm at its initial statistics, ReLU, 2x2 max-pool."""
    t, f, _ = x.shape
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    y = np.array(
        [[np.einsum("abi,abio->o", padded[i : i + 3, j : j + 3], kernel) for j in range(f)] for i in range(t)]
    )
    y = np.maximum(y * scale / np.sqrt(1 + 1e-5), 0)
    return np.array(
        [[y[i : i + 2, j : j + 2].max((0, 1)) for j in range(0, f - 1, 2)] for i in range(0, t - 1, 2)]
    )


def test_blocks_equal_the_formula():
    network = ConvBlocks(make_config(), 6, 9, jnp.float32, rngs=nnx.Rngs(0))
    window = RNG.normal(size=(6, 9)).astype(np.float32)
    scale = np.array([0.5, 1.5, 2.0], np.float32)
    network.norm1.scale[...] = jnp.asarray(scale)
    x = block_formula(window[..., None], np.asarray(network.conv1.kernel), scale)
    x = block_formula(x, np.asarray(network.conv2.kernel), 1.0)
    assert x.shape == (1, 2, 4)
    features = network(jnp.asarray(window)[None], jnp.ones(1, bool), train=False)
    np.testing.assert_allclose(features[0], x.mean((0, 1)), atol=1e-5)


def make_runner(train):
    network = SegmentEncoder(make_config(), SPEC, jnp.float32, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(network)
    state = nnx.to_pure_dict(state)

    @jax.jit
    def call(audio, mask):
        merged = nnx.merge(graphdef, state)
        sequence = merged(make_audio_batch(audio, mask), train=train).sequence
        return sequence, jax.tree.leaves(nnx.state(merged, nnx.BatchStat))

    return call


@pytest.mark.parametrize("train", [False, True])
def test_padding_and_clips_without_sound_change_nothing(train):
    call = make_runner(train)
    audio, mask = random_audio((60, 31, 7, 1))
    shorter, statistics = call(audio, mask)
    assert shorter.values.shape == (4, 5, 4)
    assert np.asarray(shorter.mask).all()  # every clip with sound has all its segments
    assert shorter.time_index[2].tolist() == [0, 1, 2, 3, 4]
    assert shorter.length.tolist() == [5] * 4
    padded = np.pad(audio, ((0, 2), (0, 17), (0, 0)), constant_values=0)
    longer, longer_statistics = call(padded, np.pad(mask, ((0, 2), (0, 17))))
    np.testing.assert_allclose(longer.values[:4], shorter.values, atol=1e-5)
    assert not np.asarray(longer.mask[4:]).any()
    for a, b in zip(statistics, longer_statistics, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    if train:
        moved_statistics = call(*random_audio((60, 60)))[1]
        assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(moved_statistics, statistics, strict=True))
        silent, silent_statistics = call(*random_audio((0, 0)))
        assert np.all(np.isfinite(silent.values))
        fresh = SegmentEncoder(make_config(), SPEC, jnp.float32, rngs=nnx.Rngs(0))
        initial = jax.tree.leaves(nnx.state(fresh, nnx.BatchStat))
        for a, b in zip(silent_statistics, initial, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_segment_is_the_network_of_its_window():
    network = SegmentEncoder(make_config(), SPEC, jnp.float32, rngs=nnx.Rngs(0))
    audio, mask = random_audio((50,))
    values = network(make_audio_batch(audio, mask), train=False).sequence.values
    window = audio[0, 25 - 6 : 25 + 6]  # the third of five parts is centred at 25
    alone = network.blocks(jnp.asarray(window)[None], jnp.ones(1, bool), train=False)
    np.testing.assert_allclose(values[0, 2], alone[0], atol=1e-6)


def test_half_precision_and_gradients_are_finite():
    network = SegmentEncoder(make_config(), SPEC, jnp.bfloat16, rngs=nnx.Rngs(0))
    graphdef, *numbers = nnx.split(network, nnx.Param, ...)
    params, state = map(nnx.to_pure_dict, numbers)
    audio, mask = random_audio((60, 0, 9))

    @jax.jit
    def loss(params):
        merged = nnx.merge(graphdef, params, state)
        values = merged(make_audio_batch(audio.astype(jnp.bfloat16), mask), train=True).sequence.values
        return (values.astype(jnp.float32) ** 2).sum(), values

    (_, values), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    assert values.dtype == jnp.bfloat16
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradients))
    assert any(np.any(np.asarray(x) != 0) for x in jax.tree.leaves(gradients))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"segments": 0}, r"audio.segments: 0, expected at least 1"),
        (
            {"segment_steps": 3},
            r"2 blocks need windows of at least 4 steps and bins, not 3 steps and 20 bins",
        ),
        ({"widths": (2,) * 5}, r"5 blocks need windows of at least 32 steps and bins, not 12 steps and 20"),
    ],
)
def test_mistakes_name_the_field(fields, message):
    with pytest.raises(ValueError, match=message):
        SegmentEncoder(make_config(**fields), SPEC, jnp.float32, rngs=nnx.Rngs(0))
