import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from emofuse_jax.models.encoders.audio_fcn import (
    ALEXNET,
    TORCHVISION_ALEXNET,
    AudioFCN,
    FCNEncoder,
    downsample_mask,
    map_to_sequence,
    min_input_length,
    output_length,
    parse_layers,
)
from emofuse_jax.settings.model import default_model_config
from emofuse_jax.types import InputSpec
from tests.golden import tables
from tests.support.small_models import small_config


def config_of_shape(shape):
    config = default_model_config()
    config.audio.update({"alexnet": ALEXNET, "torchvision": TORCHVISION_ALEXNET}[shape])
    return config


def make_fcn(config, bins=200):
    return AudioFCN(config.audio, bins, jnp.float32, rngs=nnx.Rngs(0))


def jit_network(network, train):
    graphdef, state = nnx.split(network)
    state = nnx.to_pure_dict(state)
    return jax.jit(lambda audio, mask: nnx.merge(graphdef, state)(audio, mask, train=train))


@pytest.mark.parametrize("shape", tables.FCN_PARAMETERS)
def test_parameter_count(shape):
    abstract = nnx.eval_shape(lambda: make_fcn(config_of_shape(shape)))
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(abstract, nnx.Param)))
    assert count == tables.FCN_PARAMETERS[shape]


@pytest.mark.parametrize("steps", tables.FCN_COLUMNS)
def test_shape_for_two_hundred_bins(steps):
    config = default_model_config()

    def run(audio, mask):
        return make_fcn(config)(audio, mask, train=False)

    audio = jax.ShapeDtypeStruct((2, steps, 200), jnp.float32)
    features, mask = jax.eval_shape(run, audio, jax.ShapeDtypeStruct((2, steps), jnp.bool_))
    assert features.shape == (2, tables.FCN_COLUMNS[steps], tables.FCN_ROWS, 256)
    assert mask.shape == (2, tables.FCN_COLUMNS[steps])
    assert output_length(steps, parse_layers(config.audio)) == tables.FCN_COLUMNS[steps]


def test_fewest_steps():
    layers = parse_layers(default_model_config().audio)
    assert min_input_length(layers) == 67
    assert min_input_length(layers, 3) == 131
    with pytest.raises(ValueError, match="audio: 66 steps, expected at least 67"):
        make_fcn(small_config(), 70)(jnp.zeros((1, 66, 70)), jnp.ones((1, 66), bool), train=False)
    with pytest.raises(ValueError, match="audio: 40 frequency bins"):
        make_fcn(small_config(), 40)


@pytest.mark.parametrize(("shape", "norm"), [("alexnet", "lrn"), ("torchvision", "batch")])
@pytest.mark.parametrize("length", [67, 131, 162])
def test_padding_a_clip_changes_no_column(shape, norm, length):
    config = config_of_shape(shape)
    config.audio.widths, config.audio.norms = (4, 6, 6, 6, 8), (norm, norm, norm, norm, norm)
    network = jit_network(make_fcn(config, 70), train=True)
    audio = jnp.asarray(np.random.default_rng(0).normal(size=(2, length, 70)), jnp.float32)
    alone, alone_mask = network(audio, jnp.ones((2, length), bool))
    padded = jnp.pad(audio, ((0, 0), (0, 77), (0, 0)))
    mask = jnp.broadcast_to(jnp.arange(length + 77) < length, (2, length + 77))
    features, valid = network(padded, mask)
    assert alone_mask.all()
    assert np.array_equal(valid.sum(1), [alone.shape[1]] * 2)
    np.testing.assert_allclose(features[:, : alone.shape[1]], alone, atol=1e-5)
    assert np.all(features[:, alone.shape[1] :] == 0)
    assert np.abs(alone).max() > 0.1


def test_a_clip_below_the_minimum_counts_as_followed_by_mean_values():
    network = jit_network(make_fcn(small_config(), 70), train=False)
    audio = jnp.ones((1, 120, 70)).at[:, 30:].set(0)
    short = jnp.arange(120)[None] < 30
    features, mask = network(audio, short)
    assert np.array_equal(mask, [[True, False]])
    shortest, _ = network(audio[:, :67], jnp.ones((1, 67), bool))
    np.testing.assert_allclose(features[:, :1], shortest, atol=1e-6)
    _, empty_mask = network(audio, jnp.zeros((1, 120), bool))
    assert not empty_mask.any()


def test_shrink_mask_wants_all_inputs():
    mask = jnp.array([[1, 1, 1, 1, 0, 1, 1, 1, 1]], bool)
    assert np.array_equal(downsample_mask(mask, 3, 2), [[True, False, False, True]])
    assert np.array_equal(downsample_mask(mask, 1, 1), mask)


def test_positions():
    features = jnp.arange(2 * 3 * 2 * 4.0).reshape(2, 3, 2, 4)
    mask = jnp.array([[True, True, False], [True, True, True]])
    flat = map_to_sequence(features, mask, "2d")
    assert flat.values.shape == (2, 6, 4)
    assert np.array_equal(flat.mask[0], [1, 1, 1, 1, 0, 0])
    assert np.array_equal(flat.time_index[1], [0, 0, 1, 1, 2, 2])
    assert np.array_equal(flat.length, [2, 3])
    concat = map_to_sequence(features, mask, "1d_concat")
    assert np.array_equal(concat.values[1, 2], features[1, 2].reshape(-1))
    np.testing.assert_allclose(
        map_to_sequence(features, mask, "1d_mean").values[0, 1], features[0, 1].mean(0)
    )


@pytest.mark.parametrize(("axes", "width"), [("2d", 256), ("1d_concat", 1280), ("1d_mean", 256)])
def test_vector_width(axes, width):
    config = default_model_config()
    config.audio.attn_axes = axes
    widths = []

    def build():
        encoder = FCNEncoder(config.audio, InputSpec(400, 200, 4, 16, 16, 5), jnp.float32, rngs=nnx.Rngs(0))
        widths.append(encoder.width)
        return encoder

    nnx.eval_shape(build)
    assert widths == [width]


def test_bad_rows_are_named():
    config = small_config()
    config.audio.kernels = (11, 5, 3)
    with pytest.raises(ValueError, match=r"audio.kernels: 3 entries, expected 5"):
        parse_layers(config.audio)
    config = small_config()
    config.audio.norms = ("layer",) * 5
    with pytest.raises(ValueError, match=r"audio.norms: 'layer', expected one of none, lrn, batch"):
        parse_layers(config.audio)
