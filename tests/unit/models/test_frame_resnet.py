import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from emofuse_jax.models.encoders.video_frame_resnet import FrameEncoder, ResNet, downsample_images
from emofuse_jax.models.layers.norm import masked_batch_norm
from emofuse_jax.settings.model import default_model_config
from emofuse_jax.types import Batch, InputSpec
from tests.golden import tables
from tests.support.small_models import small_config

RNG = np.random.default_rng(5)


def make_encoder(size=(16, 16), **fields):
    config = small_config()
    config.video.update(fields)
    return FrameEncoder(config.video, InputSpec(163, 70, 4, *size, 5), jnp.float32, rngs=nnx.Rngs(0))


def make_face_batch(faces, mask):
    """A batch of which nothing but the faces is looked at."""
    empty = dict.fromkeys(field.name for field in dataclasses.fields(Batch))
    return Batch(**empty | {"faces": faces, "face_mask": mask})


def run_encoder(network, faces, mask, train):
    """Frame embeddings and new statistics, jitted."""
    graphdef, state = nnx.split(network)
    state = nnx.to_pure_dict(state)

    @jax.jit
    def call(faces, mask):
        merged = nnx.merge(graphdef, state)
        values = merged(make_face_batch(faces, mask), train=train).sequence.values
        return values, jax.tree.leaves(nnx.state(merged, nnx.BatchStat))

    return call(jnp.asarray(faces), jnp.asarray(mask))


def test_parameter_count_of_resnet18():
    config = default_model_config().video
    abstract = nnx.eval_shape(lambda: ResNet(config, jnp.float32, rngs=nnx.Rngs(0)))
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(abstract, nnx.Param)))
    assert count == tables.RESNET18_PARAMETERS


def test_embedding_is_512_then_256_for_the_paper_size():
    config = default_model_config().video

    def run(faces, mask):
        network = FrameEncoder(config, InputSpec(163, 70, 3, 112, 112, 5), jnp.float32, rngs=nnx.Rngs(0))
        assert network.resnet.width == 512
        return network(make_face_batch(faces, mask), train=False).sequence

    faces = jax.ShapeDtypeStruct((2, 3, 112, 112, 3), jnp.uint8)
    sequence = jax.eval_shape(run, faces, jax.ShapeDtypeStruct((2, 3), jnp.bool_))
    assert sequence.values.shape == (2, 3, 256)


@pytest.mark.parametrize("train", [True, False])
def test_faceless_frames_change_nothing(train):
    faces = RNG.integers(0, 256, (2, 3, 16, 16, 3), np.uint8)
    mask = jnp.array([[True, False, True], [True, True, False]])
    other = np.where(np.asarray(mask)[..., None, None, None], faces, 255 - faces)
    (one, one_state), (two, two_state) = (
        run_encoder(make_encoder(), images, mask, train) for images in (faces, other)
    )
    valid = np.asarray(mask)
    assert np.array_equal(one[valid], two[valid])
    for a, b in zip(one_state, two_state, strict=True):
        assert np.array_equal(a, b)


def test_batch_norm_equals_the_formula_over_the_valid_rows():
    norm = nnx.BatchNorm(3, momentum=0.9, rngs=nnx.Rngs(0))
    x = RNG.normal(2, 3, size=(6, 2, 2, 3)).astype(np.float32)
    mask = np.array([1, 0, 1, 1, 0, 1], bool)
    y = masked_batch_norm(norm, jnp.asarray(x), jnp.asarray(mask)[:, None, None, None], train=True)
    valid_rows = x[mask]
    mean, var = valid_rows.mean((0, 1, 2)), valid_rows.var((0, 1, 2))
    np.testing.assert_allclose(y[mask], (valid_rows - mean) / np.sqrt(var + 1e-5), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(norm.mean[...], 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * var, rtol=1e-4)


def test_a_batch_without_faces_leaves_the_running_statistics():
    norm = nnx.BatchNorm(3, momentum=0.9, rngs=nnx.Rngs(0))
    x = jnp.full((2, 2, 2, 3), 7.0)
    y = masked_batch_norm(norm, x, jnp.zeros((2, 1, 1, 1), bool), train=True)
    assert np.all(np.isfinite(y))
    assert np.array_equal(norm.mean[...], np.zeros(3))
    assert np.array_equal(norm.var[...], np.ones(3))


def test_shrink_is_the_mean_of_squares():
    images = jnp.arange(16.0).reshape(1, 4, 4, 1).repeat(3, axis=-1)
    np.testing.assert_allclose(downsample_images(images, 2)[0, :, :, 0], [[2.5, 4.5], [10.5, 12.5]])
    with pytest.raises(ValueError, match=r"video.downsample=3 does not divide faces of 16x16"):
        make_encoder(downsample=3)


def test_downsampling_equals_smaller_faces():
    faces = RNG.integers(0, 256, (1, 2, 8, 8, 3), np.uint8)
    large = faces.repeat(2, axis=2).repeat(2, axis=3)
    mask = jnp.ones((1, 2), bool)
    small, _ = run_encoder(make_encoder((8, 8)), faces, mask, False)
    np.testing.assert_allclose(
        run_encoder(make_encoder(downsample=2), large, mask, False)[0], small, atol=1e-6
    )


@pytest.mark.parametrize(
    "fields", [{"stem_kernel": 3, "stem_stride": 1, "stem_pool": False}, {"blocks": (2, 1, 1)}]
)
def test_other_stems_and_blocks(fields):
    faces = RNG.integers(0, 256, (1, 2, 16, 16, 3), np.uint8)
    values, _ = run_encoder(make_encoder(**fields), faces, np.ones((1, 2), bool), True)
    assert values.shape == (1, 2, 12)
    assert np.all(np.isfinite(values))
