import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from emofuse_jax.models.encoders.video_snippets import SnippetEncoder
from emofuse_jax.models.layers.token_attention import TokenAttention
from emofuse_jax.types import Batch, InputSpec

RNG = np.random.default_rng(8)
SMALL = {"width": 4, "blocks": (1, 1), "stem_kernel": (3, 3, 3), "snippets": 3}
SPEC = InputSpec(t=1, f=1, s=6, h=16, w=16, classes=5)
FACES = RNG.integers(0, 256, (2, 6, 16, 16, 3), np.uint8)
MASK = np.array([[1, 1, 0, 1, 0, 0], [1, 0, 1, 1, 1, 1]], bool)


def make_batch(faces=FACES, mask=MASK):
    empty = dict.fromkeys(field.name for field in dataclasses.fields(Batch))
    return Batch(**empty | {"faces": jnp.asarray(faces), "face_mask": jnp.asarray(mask)})


@functools.cache
def make_runner(dtype=jnp.float32, spec=SPEC, **fields):
    """`(faces, mask, train) -> EncoderOutput, statistics`, jitted."""
    config = ConfigDict(SnippetEncoder.defaults | SMALL | fields)
    graphdef, state = nnx.split(SnippetEncoder(config, spec, dtype, rngs=nnx.Rngs(0)))
    state = nnx.to_pure_dict(state)

    def call(faces, mask, train):
        encoder = nnx.merge(graphdef, state)
        return encoder(make_batch(faces, mask), train=train), nnx.to_pure_dict(
            nnx.state(encoder, nnx.BatchStat)
        )

    return jax.jit(call, static_argnums=2)


def test_shapes_at_the_paper_size():
    config, spec = ConfigDict(SnippetEncoder.defaults), InputSpec(400, 256, 96, 112, 112, 8)

    def run(faces, mask):
        encoder = SnippetEncoder(config, spec, jnp.float32, rngs=nnx.Rngs(0))
        assert encoder.width == 512
        return encoder(dataclasses.replace(make_batch(), faces=faces, face_mask=mask), train=False)

    faces = jax.ShapeDtypeStruct((2, 96, 112, 112, 3), jnp.uint8)
    out = jax.eval_shape(run, faces, jax.ShapeDtypeStruct((2, 96), jnp.bool_))
    assert out.sequence.values.shape == (2, 6, 512)
    assert out.aux["space_attention"].shape == (2, 6, 7, 7)
    assert out.aux["channel_attention"].shape == (2, 6, 512)
    assert out.aux["time_attention"].shape == (2, 6, 6)


def test_a_snippet_is_valid_when_it_has_a_face_and_weights_sum_to_one():
    out, _ = make_runner()(FACES, MASK, False)
    valid = np.array([[1, 1, 0], [1, 1, 1]], bool)
    assert np.array_equal(out.sequence.mask, valid)
    assert np.array_equal(out.sequence.time_index, [[0, 1, 2]] * 2)
    assert np.array_equal(out.sequence.length, [3, 3])
    np.testing.assert_allclose(out.aux["space_attention"].sum((-1, -2)), 1, atol=1e-5)
    np.testing.assert_allclose(out.aux["channel_attention"].sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(out.aux["time_attention"].sum(-1), 1, atol=1e-5)
    assert np.all(np.asarray(out.aux["time_attention"])[0, :, 2] == 0)


@pytest.mark.parametrize("train", [False, True])
def test_faceless_frames_change_nothing(train):
    other = np.where(MASK[..., None, None, None], FACES, 255 - FACES)
    (one, one_state), (two, two_state) = (make_runner()(faces, MASK, train) for faces in (FACES, other))
    assert np.array_equal(one.sequence.values[one.sequence.mask], two.sequence.values[one.sequence.mask])
    for a, b in zip(jax.tree.leaves(one_state), jax.tree.leaves(two_state), strict=True):
        assert np.array_equal(a, b)


def test_snippets_are_runs_of_frames():
    """Exchanging two whole snippets exchanges their vectors; exchanging frames over a border does not."""
    mask = np.ones_like(MASK)
    values = make_runner()(FACES, mask, False)[0].sequence.values
    swapped = make_runner()(FACES[:, [2, 3, 0, 1, 4, 5]], mask, False)[0].sequence.values
    np.testing.assert_allclose(swapped, values[:, [1, 0, 2]], atol=1e-5)
    mixed = make_runner()(FACES[:, [0, 2, 1, 3, 4, 5]], mask, False)[0].sequence.values
    assert np.abs(mixed - values).max() > 1e-3
    turned = make_runner()(FACES[:, [1, 0, 2, 3, 4, 5]], mask, False)[0].sequence.values
    assert np.abs(turned - values).max() > 1e-3  # order inside a snippet counts


def test_downsampling_equals_smaller_faces():
    large = FACES.repeat(2, axis=2).repeat(2, axis=3)
    small = make_runner()(FACES, MASK, False)[0].sequence.values
    spec = dataclasses.replace(SPEC, h=32, w=32)
    np.testing.assert_allclose(
        make_runner(spec=spec, downsample=2)(large, MASK, False)[0].sequence.values, small, atol=1e-5
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_batch_without_faces_is_finite(dtype):
    out, state = make_runner(dtype)(FACES, np.zeros_like(MASK), True)
    assert out.sequence.values.dtype == dtype
    for leaf in jax.tree.leaves((out.sequence.values, out.aux, state)):
        assert np.all(np.isfinite(np.asarray(leaf, np.float32)))


def test_frames_that_do_not_fit():
    with pytest.raises(ValueError, match=r"video.snippets=4 does not divide the 6 frames of a clip"):
        make_runner(snippets=4)
    with pytest.raises(ValueError, match=r"video.downsample=3 does not divide faces of 16x16"):
        make_runner(downsample=3)


def test_token_attention_is_residual_and_takes_any_width():
    layer = TokenAttention(5, 4, jnp.float32, rngs=nnx.Rngs(0))
    x = jnp.asarray(RNG.normal(size=(2, 3, 5)), jnp.float32)
    mask = jnp.array([[True, True, False], [False] * 3])
    y, weights = layer(x, mask)
    assert weights.shape == (2, 3, 3)
    np.testing.assert_allclose(weights.sum(-1), [[1] * 3, [0] * 3], atol=1e-6)
    np.testing.assert_allclose(y[1], x[1] + layer.out.bias[...], atol=1e-6)
    order = np.array([1, 0, 2])
    np.testing.assert_allclose(layer(x[:, order], mask[:, order])[0], y[:, order], atol=1e-5)
