import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from emofuse_jax.ops.segments import cut_segments, resample_sequence

RNG = np.random.default_rng(8)


def segment_formula(clip, valid, count, steps):
    """The windows of one clip, frame by frame; `valid` are its frames' flags, the last one true."""
    out, inside = np.zeros((count, steps, clip.shape[1])), np.zeros((count, steps), bool)
    for i in range(count):
        middle = int(np.floor((i + 0.5) * len(clip) / count))
        for j in range(steps):
            position = middle - steps // 2 + j
            if 0 <= position < len(clip) and valid[position]:
                out[i, j], inside[i, j] = clip[position], True
    return out, inside


@pytest.mark.parametrize(("count", "steps"), [(30, 64), (4, 7), (1, 8), (5, 1)])
def test_windows_lie_around_the_centres_of_equal_parts(count, steps):
    lengths, t = (100, 61, 3, 1, 0), 100
    values = RNG.normal(size=(len(lengths), t, 2)).astype(np.float32)  # padding holds numbers too
    mask = np.arange(t) < np.array(lengths)[:, None]
    mask[1, 20:30] = False  # a hole
    segments, inside = cut_segments(
        jnp.asarray(values), jnp.asarray(mask), num_segments=count, window_steps=steps
    )
    assert segments.shape == (len(lengths), count, steps, 2)
    for i, length in enumerate(lengths[:-1]):
        expected = segment_formula(values[i, :length], mask[i, :length], count, steps)
        np.testing.assert_array_equal(segments[i], expected[0])
        np.testing.assert_array_equal(inside[i], expected[1])
        if i != 1:
            assert np.asarray(inside[i])[:, steps // 2].all()
    assert not np.asarray(inside[-1]).any()
    assert not np.asarray(segments[-1]).any()


def test_four_parts_of_a_short_clip():
    values = jnp.arange(1.0, 9.0)[None, :, None]
    segments, _ = cut_segments(values, jnp.ones((1, 8), bool), num_segments=4, window_steps=3)
    assert segments[0, :, :, 0].tolist() == [[1, 2, 3], [3, 4, 5], [5, 6, 7], [7, 8, 0]]


def test_padding_changes_nothing_and_no_gradient_enters_it():
    values, mask = RNG.normal(size=(2, 20, 3)), np.arange(20) < np.array([[20], [13]])
    padded = np.pad(values, ((0, 0), (0, 9), (0, 0)), constant_values=np.nan)

    def cut(x, m):
        return cut_segments(jnp.asarray(x), jnp.asarray(m), num_segments=5, window_steps=6)

    shorter, longer = cut(values, mask), cut(padded, np.pad(mask, ((0, 0), (0, 9))))
    for a, b in zip(shorter, longer, strict=True):
        np.testing.assert_array_equal(a, b)
    gradient = jax.grad(lambda x: (cut(x, mask)[0] ** 2).sum())(jnp.asarray(values))
    assert np.all(np.asarray(gradient)[~mask] == 0)
    assert np.any(np.asarray(gradient)[mask] != 0)


def resample_formula(values, mask, order, length, count):
    """The mean of the positions at each part, one pair at a time."""
    out, ok = np.zeros((count, values.shape[1])), np.zeros(count, bool)
    for i in range(count):
        members = []
        for position in range(len(values)):
            if not mask[position]:
                continue
            start, middle = order[position] / length, (order[position] + 0.5) / length
            centre = (i + 0.5) / count
            if i / count <= middle < (i + 1) / count or start <= centre < start + 1 / length:
                members.append(values[position])
        if members:
            out[i], ok[i] = np.mean(members, axis=0), True
    return out, ok


@pytest.mark.parametrize(("l", "count"), [(7, 7), (7, 3), (3, 7), (16, 5), (1, 4), (4, 1)])
def test_resampled_positions(l, count):
    values = RNG.normal(size=(3, l, 2)).astype(np.float32)
    mask = np.ones((3, l), bool)
    mask[1, ::2] = False
    mask[2] = False
    order = np.broadcast_to(np.arange(l), (3, l))
    arrays = [jnp.asarray(x) for x in (values, mask, order, np.full(3, l))]
    resampled, ok = resample_sequence(*arrays, num_segments=count)
    for i in range(3):
        expected = resample_formula(values[i], mask[i], order[i], l, count)
        np.testing.assert_allclose(resampled[i], expected[0], atol=1e-6)
        np.testing.assert_array_equal(ok[i], expected[1])
    assert np.asarray(ok[0]).all()
    if l == count:
        np.testing.assert_array_equal(resampled[0], values[0])


def test_resampling_averages_a_column_and_leaves_padding_out():
    values = RNG.normal(size=(1, 12, 2)).astype(np.float32)  # four places of three rows, then padding
    order = np.minimum(np.arange(12) // 3, 2)[None]  # as the feature map counts: padding stays at the last
    mask = (np.arange(12) < 9)[None]
    arrays = [jnp.asarray(x) for x in (values, mask, order, np.array([3]))]
    resampled, ok = resample_sequence(*arrays, num_segments=3)
    np.testing.assert_allclose(resampled[0], values[0, :9].reshape(3, 3, 2).mean(1), atol=1e-6)
    assert np.asarray(ok).all()
    shorter = [arrays[0][:, :9], arrays[1][:, :9], arrays[2][:, :9], arrays[3]]
    np.testing.assert_allclose(resample_sequence(*shorter, num_segments=3)[0], resampled, atol=1e-6)


def test_gradients_half_precision_and_a_clip_without_places():
    order, mask = jnp.arange(5)[None], jnp.array([[True, False, True, True, True]])
    with jax.enable_x64(True):
        x = jnp.asarray(RNG.normal(size=(1, 5, 2)))
        check_grads(
            jax.jit(lambda x: resample_sequence(x, mask, order, jnp.array([5]), num_segments=3)[0]),
            [x],
            order=1,
            modes=["rev"],
        )
    half = jnp.full((1, 5, 2), jnp.nan, jnp.bfloat16)

    def total(x):
        return resample_sequence(x, jnp.zeros((1, 5), bool), order, jnp.array([0]), num_segments=3)[0].sum()

    value, gradient = jax.value_and_grad(total)(half)
    assert value == 0
    assert value.dtype == jnp.bfloat16
    assert np.all(np.asarray(gradient, np.float32) == 0)
