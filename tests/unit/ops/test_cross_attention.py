import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from emofuse_jax.ops.cross_attention import cross_attention

RNG = np.random.default_rng(3)
N, D_A, D_V = 4, 3, 5
TRUE = np.ones(N, bool)
attend = jax.jit(cross_attention)


def formula(audio, video, w, audio_mask, video_mask):
    """One clip, row by row; positions that are masked are zero vectors without a row of weights."""
    audio, video = audio * audio_mask[:, None], video * video_mask[:, None]
    c = np.array([[a @ w @ v for v in video] for a in audio])
    picked_a, picked_v = np.zeros_like(audio), np.zeros_like(video)
    for i in range(len(c)):
        if video_mask[i] and audio_mask.any():
            e = np.exp(c[:, i] - c[:, i].max()) * audio_mask
            picked_a[i] = (e / e.sum()) @ audio
        if audio_mask[i] and video_mask.any():
            e = np.exp(c[i] - c[i].max()) * video_mask
            picked_v[i] = (e / e.sum()) @ video
    return np.tanh(audio + picked_a), np.tanh(video + picked_v)


def make_inputs(batch=(), dtype=np.float32):
    shapes = ((*batch, N, D_A), (*batch, N, D_V), (D_A, D_V))
    return [RNG.normal(size=shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize(
    ("audio_mask", "video_mask"),
    [(TRUE, TRUE), (TRUE, [1, 0, 1, 1]), ([1, 1, 0, 0], [0, 1, 1, 0]), ([0, 0, 0, 0], TRUE)],
)
def test_equals_the_formula(audio_mask, video_mask):
    masks = [np.array(mask, bool) for mask in (audio_mask, video_mask)]
    arrays = make_inputs()
    out = attend(*map(jnp.asarray, (*arrays, *masks)))
    for ours, expected in zip(out[:2], formula(*arrays, *masks), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_rows_sum_to_one_over_the_valid_columns():
    audio_mask, video_mask = np.array([1, 1, 0, 1], bool), np.array([0, 1, 1, 1], bool)
    out = attend(*map(jnp.asarray, (*make_inputs(), audio_mask, video_mask)))
    np.testing.assert_allclose(out.audio_weights.sum(-1), video_mask, atol=1e-6)
    np.testing.assert_allclose(out.video_weights.sum(-1), audio_mask, atol=1e-6)
    assert np.all(np.asarray(out.audio_weights)[:, ~audio_mask] == 0)
    assert np.all(np.asarray(out.video_weights)[:, ~video_mask] == 0)
    assert out.audio_weights.dtype == jnp.float32


def test_permuting_the_video_permutes_its_picks_and_leaves_those_of_the_audio():
    audio, video, w = make_inputs((2,))
    masks = np.ones((2, N), bool), np.array([[1, 1, 0, 1]] * 2, bool)
    order = np.array([2, 0, 3, 1])
    one = attend(*map(jnp.asarray, (audio, video, w, *masks)))
    other = attend(*map(jnp.asarray, (audio, video[:, order], w, masks[0], masks[1][:, order])))
    np.testing.assert_allclose(other.audio_picked, one.audio_picked[:, order], atol=1e-6)
    np.testing.assert_allclose(other.video_picked, one.video_picked, atol=1e-6)
    assert np.abs(other.audio - one.audio).max() > 1e-2


def test_masked_positions_do_not_matter():
    audio, video, w = make_inputs((2,))
    masks = np.array([[1, 0, 1, 1], [1, 1, 1, 0]], bool), np.array([[1, 1, 0, 1], [0, 0, 0, 0]], bool)
    moved = [np.where(mask[..., None], x, 1e6) for x, mask in zip((audio, video), masks, strict=True)]
    one = attend(*map(jnp.asarray, (audio, video, w, *masks)))
    two = attend(*map(jnp.asarray, (*moved, w, *masks)))
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a, b)
    np.testing.assert_allclose(one.audio[1], np.tanh(audio[1] * masks[0][1][:, None]), atol=1e-6)
    assert np.all(one.video[1] == 0)


def test_gradients():
    masks = jnp.array([[1, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
    others = jnp.array([[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]], bool)

    def attended(*values):
        return cross_attention(*values, masks, others)[:2]

    values = [jnp.asarray(x) for x in make_inputs((3,))]
    check_grads(jax.jit(attended), values, order=1, modes=["rev"], atol=2e-2, rtol=2e-2)
    zeros = [jnp.zeros_like(x) for x in values]
    _, pull = jax.vjp(attended, *zeros)
    for leaf in jax.tree.leaves(pull(attended(*values))):
        assert np.all(np.isfinite(leaf))


def test_bfloat16():
    arrays = [jnp.asarray(30 * x, jnp.bfloat16) for x in make_inputs((2,))]
    out = attend(*arrays, jnp.ones((2, N), bool), jnp.zeros((2, N), bool))
    assert out.audio.dtype == jnp.bfloat16
    assert out.video_weights.dtype == jnp.float32
    for leaf in out:
        assert np.all(np.isfinite(np.asarray(leaf, np.float32)))


def test_other_numbers_of_positions():
    audio, video, w = map(jnp.asarray, make_inputs())
    with pytest.raises(ValueError, match="4 audio positions and 3 video positions, expected the same number"):
        cross_attention(audio, video[:3], w, jnp.ones(4, bool), jnp.ones(3, bool))
