import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from emofuse_jax.models.encoders.audio_part_resnet import PartResNet
from emofuse_jax.types import Batch, InputSpec
from tests.golden import tables

RNG = np.random.default_rng(9)
SMALL = {"width": 4, "blocks": (1, 1), "stem_kernel": 3, "parts": 3}
SPEC = InputSpec(t=24, f=20, s=1, h=16, w=16, classes=5)
AUDIO = RNG.normal(size=(2, 24, 20)).astype(np.float32)
LENGTH = np.array([24, 15])


def make_batch(audio, mask):
    empty = dict.fromkeys(field.name for field in dataclasses.fields(Batch))
    return Batch(**empty | {"audio": jnp.asarray(audio), "audio_mask": jnp.asarray(mask)})


@functools.cache
def make_runner(dtype=jnp.float32, **fields):
    config = ConfigDict(PartResNet.defaults | SMALL | fields)
    graphdef, state = nnx.split(PartResNet(config, SPEC, dtype, rngs=nnx.Rngs(0)))
    state = nnx.to_pure_dict(state)

    def call(audio, mask, train):
        encoder = nnx.merge(graphdef, state)
        out = encoder(make_batch(audio.astype(dtype), mask), train=train)
        return out, nnx.to_pure_dict(nnx.state(encoder, nnx.BatchStat))

    return jax.jit(call, static_argnums=2)


def valid_mask(steps=24):
    return np.arange(steps) < LENGTH[:, None]


def test_shapes_and_parameters_at_the_paper_size():
    config, spec = ConfigDict(PartResNet.defaults), InputSpec(400, 256, 96, 112, 112, 8)

    def make():
        return PartResNet(config, spec, jnp.float32, rngs=nnx.Rngs(0))

    encoder = nnx.eval_shape(make)
    assert (encoder.width, encoder.window_frames) == (512, 67)
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(encoder.resnet, nnx.Param)))
    assert count == tables.RESNET18_PARAMETERS - 2 * 64 * 49  # one input channel instead of three
    out = jax.eval_shape(
        lambda a, m: make()(make_batch(a, m), train=False),
        *map(jnp.zeros, ((2, 400, 256),)),
        jnp.ones((2, 400), bool),
    )
    assert out.sequence.values.shape == (2, 6, 512)
    assert out.aux["time_attention"].shape == (2, 6, 6)


@pytest.mark.parametrize("train", [False, True])
def test_padding_changes_nothing(train):
    longer = np.pad(AUDIO * valid_mask()[..., None], ((0, 0), (0, 9), (0, 0)), constant_values=7.0)
    one, one_state = make_runner()(AUDIO * valid_mask()[..., None], valid_mask(), train)
    two, two_state = make_runner()(longer, valid_mask(33), train)
    np.testing.assert_allclose(one.sequence.values, two.sequence.values, atol=1e-5)
    for a, b in zip(jax.tree.leaves(one_state), jax.tree.leaves(two_state), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert np.all(one.sequence.mask)


def test_a_part_sees_its_own_time():
    """Before attention, the first part of a whole clip does not feel its last steps."""
    graphdef, state = nnx.split(
        PartResNet(ConfigDict(PartResNet.defaults | SMALL), SPEC, jnp.float32, rngs=nnx.Rngs(0))
    )

    @jax.jit
    def vectors(audio):
        encoder = nnx.merge(graphdef, state)
        encoder.time = lambda x, mask: (x, mask[..., None])
        return encoder(make_batch(audio, jnp.ones((2, 24), bool)), train=False).sequence.values

    changed = np.abs(vectors(AUDIO) - vectors(np.where(np.arange(24)[:, None] < 16, AUDIO, 3.0))).max((0, 2))
    assert np.array_equal(changed > 1e-6, [False, False, True])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_clip_or_batch_without_sound_is_finite(dtype):
    for mask in (valid_mask() & np.array([[True], [False]]), np.zeros((2, 24), bool)):
        out, state = make_runner(dtype)(AUDIO, mask, True)
        assert out.sequence.values.dtype == dtype
        assert np.array_equal(out.sequence.mask.any(1), mask.any(1))
        for leaf in jax.tree.leaves((out.sequence.values, out.aux, state)):
            assert np.all(np.isfinite(np.asarray(leaf, np.float32)))


def test_the_number_of_parts_is_checked():
    with pytest.raises(ValueError, match=r"audio.parts: 0, expected at least 1"):
        make_runner(parts=0)
